"""Extraction past one machine: what scheduling costs at a million tracks, and what more workers gain.

    python benchmarks/scaling.py simulate [--tracks 1000000] [--workers 4]
    python benchmarks/scaling.py efficiency [--tracks 48] [--workers 1 --workers 4]

`simulate`: a manifest of a million tracks, a Dask scheduler and workers as processes of their own, and an encoder that
takes 1 ms; all else is what m2e-extract does: plan, batches, notes, sealed shards, pack, scan. All tracks name the same
audio file, which nobody reads, and a track has one segment.

`efficiency`: m2e-extract on songs of 30 s with an encoder of MERT-v1-95M's architecture and size and random weights, on
one Dask worker and on several. Where other programs have the machine too, seconds say little: so each worker's share of
time in which it had nothing to do (neither running nor waiting for a core) is printed beside them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import click
import numpy as np

from m2e.cache import ChordSequence, ExtractionConfig, FeatureWriter, TrackFeatures
from m2e.cache.care.pack import pack
from m2e.cache.catalogue import scan
from m2e.cache.folders import features_folder
from m2e.extract.encoders.tiny import tiny_encoder_folder
from m2e.extract.job.plan import Plan, Selection, Task, make_plan
from m2e.extract.models import Models
from m2e.extract.workers.dask import dask_workers
from m2e.extract.workers.schedule import run_tasks
from m2e.extract.workers.task import Extraction
from m2e.manifests.store import save_labels, standing
from m2e.manifests.types import Manifest, Track

CONFIG = ExtractionConfig(encoder="stub", encoder_revision="none", chords="template")
STUB_SECONDS = 0.001


@dataclass(frozen=True)
class Stub:
    """What a worker does to a batch: 1 ms a track, and features that cost nothing, sealed as always."""

    folder: Path
    dim: int

    def __call__(self, tasks: Iterator[Task]) -> list[str]:
        features = np.ones((1, len(CONFIG.layers), self.dim), np.float32)
        silence = ChordSequence(np.array([[0, 30]], np.float32), np.array([-1]), np.array([-1]))
        done = []
        with writer_of(self.folder) as writer:
            for task in tasks:
                time.sleep(STUB_SECONDS)
                writer.add(TrackFeatures(task.track_id, features, silence, None, 30.0, bytes(32), task.audio_bytes))
                done.append(task.track_id)
        return done


@cache
def writer_of(folder: Path) -> FeatureWriter:
    """One a process, as in `m2e.extract.workers.task`."""
    return FeatureWriter(folder, CONFIG)


@dataclass(frozen=True)
class Cluster:
    """A scheduler, its address, and its workers."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Processes on this machine, that end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{len(started)}.log").open("wb") as log:
            command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
            started.append(
                subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
            )
        return started[-1]

    file = folder / f"scheduler-{workers}.json"
    try:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        while not (file.exists() and file.read_text().endswith("}")):
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        options = ("--nthreads", "1", "--no-nanny", "--memory-limit", "0")
        yield Cluster(address, scheduler, tuple(start("worker", address, *options) for _ in range(workers)))
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def processor_seconds(process: int) -> float:
    """Of a running process and all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(peak: bool = False) -> float:
    """Of this process."""
    name = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6


def planned(manifest: Manifest, folder: Path) -> Plan:
    catalogue = scan(features_folder(folder, CONFIG), CONFIG)
    nowhere = np.zeros(len(manifest.tracks), np.bool_)
    known = standing(manifest, folder)
    return make_plan(manifest, catalogue.index, catalogue.generations, {}, Selection(), known, nowhere)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Print seconds, processor seconds of this process, and its memory."""
    started, processor = time.perf_counter(), time.process_time()
    yield
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    click.echo(f"{what}: {seconds:.1f} s, processor {processor:.1f} s; memory {memory_mb():.0f} MB")


def write_encoder(folder: Path) -> Path:
    """A checkpoint of MERT-v1-95M's architecture and size, from the tiny encoder's; its weights are random."""
    from safetensors.torch import save_file
    from transformers import HubertConfig, HubertModel

    tiny = tiny_encoder_folder()
    settings = json.loads((tiny / "config.json").read_text()) | {
        "conv_dim": [512] * 7,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
    }
    known = {name: value for name, value in settings.items() if name not in ("model_type", "deepnorm")}
    weights = HubertModel(HubertConfig(**known, conv_pos_batch_norm=False)).state_dict()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text((tiny / "preprocessor_config.json").read_text())
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def busiest_thread(process: int) -> Path:
    """The thread that extracts."""
    return max(Path(f"/proc/{process}/task").iterdir(), key=lambda thread: on_core_and_waiting(thread)[0])


def on_core_and_waiting(thread: Path) -> tuple[float, float]:
    """Seconds that a thread has run, and that it could have run but had no core."""
    running, waiting, _ = (thread / "schedstat").read_text().split()
    return int(running) / 1e9, int(waiting) / 1e9


@dataclass(frozen=True)
class Rate:
    """Extraction on some workers.

    Attributes:
        tracks_per_second: of all workers together.
        processor: seconds of a worker's extracting thread a track.
        idle: share of the time in which such a thread had nothing to do.
    """

    tracks_per_second: float
    processor: float
    idle: float


def measure(root: Path, tasks: list[Task], models: Models, workers: int) -> Rate:
    """Extract on as many workers, that have loaded the encoder before."""
    folder = root / f"cache-{workers}"
    (folder / "warm").mkdir(parents=True)
    with cluster(root, workers) as found, dask_workers(found.address, folder, str, {}) as engine:
        threads: list[Path] = []
        while len(threads) < workers:
            list(run_tasks(Extraction(models, folder / "warm"), tasks[: 2 * engine.width], engine))
            threads = [busiest_thread(worker.pid) for worker in found.workers]
            threads = [thread for thread in threads if on_core_and_waiting(thread)[0] > 5]
        before = [on_core_and_waiting(thread) for thread in threads]
        started = time.perf_counter()
        kept = list(run_tasks(Extraction(models, folder / "songs"), tasks, engine))
        seconds = time.perf_counter() - started
        after = [on_core_and_waiting(thread) for thread in threads]
    assert all(isinstance(track_id, str) for track_id in kept), kept
    running = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
    waiting = sum(a[1] - b[1] for a, b in zip(after, before, strict=True))
    return Rate(len(tasks) / seconds, running / len(tasks), 1 - (running + waiting) / (seconds * workers))


@click.group()
def main() -> None:
    """Scheduling at a million tracks, and what more workers gain."""


@main.command()
@click.option("--tracks", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--dim",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Width of the features; 768 writes 4.6 kB a track.",
)
def simulate(tracks: int, workers: int, dim: int) -> None:
    """Time, processor time and memory of everything around the encoder."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        audio, folder = root / "audio.wav", root / "cache" / "simulated"
        audio.touch()
        folder.mkdir(parents=True)
        features = features_folder(folder, CONFIG)
        click.echo(f"{tracks} tracks; this process after its imports: {memory_mb():.0f} MB")
        with timed("manifest"):
            manifest = Manifest("simulated", "", tuple(Track(f"track_{i:07d}", audio) for i in range(tracks)))
        with timed("labels"):
            save_labels(manifest, folder)
        with timed("plan"):
            plan = planned(manifest, folder)
        with cluster(root, workers) as found, dask_workers(found.address, folder.parent, str, {}) as engine:
            while engine.width < workers:
                list(run_tasks(Stub(root / "warm", dim), plan.tasks[:50], engine))
            before = [processor_seconds(process.pid) for process in (found.scheduler, *found.workers)]
            started, own = time.perf_counter(), time.process_time()
            done = sum(1 for _ in run_tasks(Stub(folder, dim), plan.tasks, engine))
            seconds, own = time.perf_counter() - started, time.process_time() - own
            after = [processor_seconds(process.pid) for process in (found.scheduler, *found.workers)]
        scheduler, *theirs = [b - a for a, b in zip(before, after, strict=True)]
        assert done == tracks
        ms = 1000 / tracks
        click.echo(f"extraction on {workers} workers: {seconds:.0f} s, {tracks / seconds:.0f} tracks/s")
        click.echo(f"  a track: client {own * ms:.3f} ms, scheduler {scheduler * ms:.3f} ms, ", nl=False)
        click.echo(f"workers {sum(theirs) * ms:.3f} ms of processor time, the encoder's sleep of 1 ms not counted")
        overhead = seconds * workers * ms - STUB_SECONDS * 1000
        click.echo(f"  a track takes a worker {overhead:.2f} ms more than its encoder (bar: 5 ms)")
        plan = replace(plan, tasks=())  # as a session does
        shards = sum(1 for _ in features.glob("shard-*"))
        with timed(f"scan of {shards} shards, and pack"):  # together, as in a session: a scan leaves memory behind
            packed = pack(features)
        assert packed.tracks == tracks
        click.echo(f"client's memory from plan to pack: {memory_mb(peak=True):.0f} MB at most (bar: 500 MB)")
        with timed(f"scan of {packed.packs} packs"):
            scan(features, CONFIG)
        with timed("plan of nothing to do"):
            assert not planned(manifest, folder).tasks
        click.echo(f"memory with that, a run of its own otherwise: {memory_mb(peak=True):.0f} MB at most")


@main.command()
@click.option("--tracks", type=click.IntRange(1), default=48, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=[1, 4], multiple=True, show_default=True)
def efficiency(tracks: int, workers: tuple[int, ...]) -> None:
    """What several workers gain over one, when the encoder has nearly all the time."""
    import soundfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        encoder = write_encoder(root / "encoder")
        models = Models(ExtractionConfig("random-95M", "none", chords="template"), encoder, None, "cpu")
        rng = np.random.default_rng(0)
        tasks = []
        for i in range(tracks):
            path = root / f"{i}.flac"
            soundfile.write(path, rng.uniform(-0.1, 0.1, 30 * 24_000 + 10), 24_000)
            tasks.append(Task(f"song{i:03d}", path, path.stat().st_size))
        cores = len(os.sched_getaffinity(0))
        click.echo(f"{tracks} songs of 30 s, {cores} cores")
        rates = {count: measure(root, tasks, models, count) for count in workers}
        one = rates[min(workers)]
        for count, rate in rates.items():
            gain = rate.tracks_per_second / one.tracks_per_second
            alone = (1 - rate.idle) / (1 - one.idle) * one.processor / rate.processor
            click.echo(
                f"{count} workers on {min(count, cores)} cores: {rate.tracks_per_second:.3f} tracks/s, {gain:.2f} "
                f"times one worker's; processor {rate.processor:.2f} s a track, idle {rate.idle:.1%} of the time: "
                f"{alone:.2f} of the cores on a quiet machine (bar: 0.9)"
            )


if __name__ == "__main__":
    import scaling  # under the name by which workers find its stub

    scaling.main()
