"""m2e on a GPU in one command, in less than seven minutes: what it computes there, and how fast.

    python benchmarks/gpu.py [--out DIR] [--device cuda]
    python benchmarks/gpu.py --device cpu --small        # shows that everything runs, and no more

Weights are random in the shapes of the published models, music is synthesised, and features to train on are random in
the sizes of the paper's Table I. Each part is a process of its own, so that its memory is its own and a part that fails
costs no other. Prints a table, and writes gpu.json with all figures into --out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

from extract import LAYERS, MERT_95M, SEGMENT, Song, make_checkpoints, segment_gflop, synthesise
from m2e.cache.settings import Precision
from m2e.extract.encoders.registry import load_encoder
from m2e.extract.extractor import extractor_of
from m2e.extract.job.plan import Task
from m2e.extract.job.report import Tally
from m2e.extract.models import Models
from m2e.extract.workers.attempts import attempt
from m2e.extract.workers.gpu import SHARING, Busy, extract_ahead
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import run_tasks
from m2e.extract.workers.task import Extraction
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning.loop import _Training, output_sizes
from m2e.train.learning.teachers import freeze
from m2e.train.model.network import EmotionModel
from train import SETS, write_caches

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")
PRESETS = ("paper", "release")
EPOCHS = 200
# In --small: the share of the paper's training sets, and an encoder.
SMALL = 0.01
TOY = {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_conv_pos_embedding_groups": 4,
}


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(action: Callable[[], object], device: str, repeats: int = 3) -> float:
    """The least of some runs, after one to warm up."""
    action()
    best = float("inf")
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        action()
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return best


def gigabytes(device: str) -> float | None:
    """Most memory that tensors took on the device so far."""
    return None if device == "cpu" else torch.cuda.max_memory_allocated() / 1e9


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def waves(count: int, samples: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(samples, np.float32) for _ in range(count)]


def here(device: str, precisions: Sequence[Precision] = PRECISIONS) -> list[Precision]:
    return [precision for precision in precisions if device != "cpu" or precision != "tf32"]


def checkpoints(folder: Path, precision: Precision, small: bool) -> Models:
    return make_checkpoints(folder, precision, {**MERT_95M, **TOY} if small else MERT_95M)


# --- parts -----------------------------------------------------------------------------------------------------------


def machine(device: str, small: bool) -> dict[str, Any]:
    """Card, driver, versions; and the rate of matrix products."""
    about: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__, "cores": cpu_count()}
    if device != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        about["card"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        about["cuda"] = torch.version.cuda
    n = 512 if small else 8192
    for precision in here(device):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        about[f"tflops {precision}"] = 2 * n**3 / seconds(lambda a=a, b=b: a @ b, device) / 1e12  # type: ignore[misc]
    return about


def parity(folder: Path, device: str, small: bool) -> dict[str, Any]:
    """How far the device's numbers are from the CPU's, in float32 unless said."""
    from m2e.extract.chords.btc import BTCRecogniser

    results: dict[str, Any] = {}
    models = checkpoints(folder, "float32", small)
    some = waves(2, 24_000 if small else SEGMENT)
    exact = load_encoder(models.encoder_folder, LAYERS).embed(some)
    for precision in here(device):
        ours = load_encoder(models.encoder_folder, LAYERS, device, precision).embed(some)
        results[f"MERT {precision}"] = relative(ours, exact)
    assert models.chord_checkpoint
    features = [np.random.default_rng(1).standard_normal((144, 1_000)).astype(np.float32) - 3.5]
    there, on_cpu = (BTCRecogniser(models.chord_checkpoint, "", place).logits(features)[0] for place in (device, "cpu"))
    results["BTC logits"] = relative(there, on_cpu)
    results["BTC labels that differ"] = float((there.argmax(1) != on_cpu.argmax(1)).mean())
    for preset in PRESETS:
        config = TrainConfig.preset(preset, dropout=0.0)
        losses = []
        for place in (device, "cpu"):
            sets = [shortened(data, 200) for data in load_sets(folder, config, place)]
            training = _Training(sets, teachers(sets, config), config)
            training._epoch()
            training._epoch()
            losses.append(np.array([*training.history.training, *map(sum, training.history.validation.values())]))
        results[f"training, {preset}, losses after 2 epochs"] = float(np.abs(losses[0] / losses[1] - 1).max())
    return results


def encoder(folder: Path, device: str, small: bool) -> dict[str, Any]:
    """The network alone, on waves that are on the device."""
    results: dict[str, Any] = {}
    models = checkpoints(folder, "float32", small)
    samples = 24_000 if small else SEGMENT
    for precision in here(device):
        loaded = load_encoder(models.encoder_folder, LAYERS, device, precision)
        for batch in (1, 4, 16) if device != "cpu" else (1,):
            given = torch.from_numpy(np.stack(waves(batch, samples))).to(device)
            if device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            with torch.inference_mode():
                took = seconds(lambda loaded=loaded, given=given: loaded(given), device) / batch  # type: ignore[misc]
            results[f"{precision}, batch {batch}"] = {
                "ms a segment": 1e3 * took,
                "segments/s": 1 / took,
                "TFLOP/s": None if small else segment_gflop(LAYERS[-1], True) / took / 1e3,
                "GB": gigabytes(device),
            }
    return results


class Staged(Extraction):
    """A GPU's way, on any device."""

    def _extract(self, tasks: Iterator[Task], spans: list[tuple[float, float]]) -> Any:
        yield from extract_ahead(tasks, self.models, spans)


class Preparing:
    """What decoders do, and nothing after it."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def __call__(self, tasks: Iterator[Task]) -> list[int]:
        extractor = extractor_of(self.models)
        prepared = [attempt(task, lambda task=task: extractor.prepare(task.path)) for task in tasks]  # type: ignore[misc]
        return [len(track.segments) for track in prepared]  # type: ignore[union-attr]


def extraction(folder: Path, device: str, small: bool) -> dict[str, Any]:
    """Files to cache: decoders, one of them a core, and processes that share the device."""
    jobs = 2 if small else cpu_count()
    songs = [Song(Path(path), None, segments) for path, segments in json.loads((folder / "songs.json").read_text())]  # type: ignore[arg-type]
    count = 4 if small else 30 * jobs
    tasks = [
        Task(f"{i:05d}", song.path, song.path.stat().st_size)
        for i, song in zip(range(count), cycle(songs), strict=False)
    ]
    segments = sum(song.segments for _, song in zip(range(count), cycle(songs), strict=False))
    on_cpu = checkpoints(folder, "float32", small)
    results: dict[str, Any] = {"decoders": jobs}
    with LocalWorkers(jobs) as workers:
        list(run_tasks(Preparing(on_cpu), [replace(task, attempts=1) for task in tasks[: 2 * jobs]], workers))
        started = time.perf_counter()
        list(run_tasks(Preparing(on_cpu), tasks, workers))
        rate = segments / (time.perf_counter() - started)
    results["segments/s that they decode"] = rate
    for precision in here(device):
        models = replace(checkpoints(folder, precision, small), device=device, decoders=jobs)
        tally, started, done = Tally(), time.perf_counter(), [0.0]
        with LocalWorkers(SHARING) as workers:
            for outcome in run_tasks(Staged(models, folder / f"cache-{precision}"), tasks, workers):
                if isinstance(outcome, Busy):
                    tally.spans[outcome.gpu] += outcome.spans
                else:
                    assert isinstance(outcome, str), outcome
                    done.append(time.perf_counter() - started)
        spans = [span for its in tally.spans.values() for span in its]
        first, last = min(spans)[0], max(end for _, end in spans)
        results[precision] = {
            "segments/s": segments / (last - first),
            "busy": tally.gpu_busy,
            "seconds": done[-1],
            "seconds to the first pass": first - started + time.monotonic() - time.perf_counter(),
        }
    return results


def load_sets(folder: Path, config: TrainConfig, device: str) -> list[EmotionData]:
    return load_data(open_caches(folder / "caches", list(SETS)), config, torch.device(device))


def shortened(data: EmotionData, tracks: int) -> EmotionData:
    return replace(data, splits={name: rows[:tracks] for name, rows in data.splits.items()})


def teachers(sets: Sequence[EmotionData], config: TrainConfig) -> list[Any]:
    torch.manual_seed(0)
    models = [EmotionModel(config, data.width, output_sizes([data])).to(data.device).eval() for data in sets]
    return [freeze(dict.fromkeys(data.targets, model), data) for data, model in zip(sets, models, strict=True)]


def training(folder: Path, device: str, small: bool) -> dict[str, Any]:
    """Epochs of the student and of every teacher at the paper's sizes, validation included."""
    results: dict[str, Any] = {}
    for preset in PRESETS:
        config = TrainConfig.preset(preset, patience=0)
        sets = load_sets(folder, config, device)
        started = time.perf_counter()
        taught = teachers(sets, config)
        synchronise(device)
        about: dict[str, Any] = {"seconds to prepare teachers": time.perf_counter() - started}
        students = {"float32": config, "tf32": replace(config, precision="tf32")} if device != "cpu" else {"": config}
        for name, each in students.items():
            about[f"student {name}".strip()] = epochs(_Training(sets, taught, each), device)
        if device != "cpu":
            one_by_one = _Training(sets, taught, config)
            one_by_one.graphs = None
            about["student, step by step"] = epochs(one_by_one, device, count=1)
        for data in sets:
            about[f"teacher {data.label}"] = epochs(_Training([data], None, config), device)
        spent = [
            value for key, value in about.items() if key in ("student", "student float32") or key.startswith("teacher ")
        ]
        about[f"minutes of the protocol, {EPOCHS} epochs"] = (
            sum(value["seconds to begin"] + EPOCHS * value["seconds an epoch"] for value in spent) / 60
        )
        about["GB"] = gigabytes(device)
        results[preset] = about
    return results


def epochs(training: _Training, device: str, count: int = 3) -> dict[str, float]:
    """Seconds of an epoch once its steps are recorded, and what recording them took more."""
    from m2e.common.float32 import float32_products

    steps = max(-(-len(data.splits["train"]) // training.config.batch_size) for data in training.sets)
    took = []
    with float32_products("tf32" if training.config.precision == "tf32" else "ieee"):
        for _ in range(count):
            synchronise(device)
            started = time.perf_counter()
            training._epoch()
            training._tensors()
            synchronise(device)
            took.append(time.perf_counter() - started)
        training.judges = {task: [] for task in training.judges}
        synchronise(device)
        started = time.perf_counter()
        training._epoch()
        synchronise(device)
        alone = time.perf_counter() - started
    return {
        "seconds an epoch": took[-1],
        "seconds to begin": sum(took) - count * took[-1],
        "ms a step": 1e3 * alone / steps,
    }


PARTS: dict[str, Callable[[Path, str, bool], dict[str, Any]]] = {
    "machine": lambda folder, device, small: machine(device, small),
    "parity": parity,
    "encoder": encoder,
    "extraction": extraction,
    "training": training,
}


# --- the command -----------------------------------------------------------------------------------------------------


def prepare(folder: Path, parts: Sequence[str], small: bool) -> None:
    """All that the parts read."""
    checkpoints(folder, "float32", small)
    if "extraction" in parts:
        count = 2 if small else 16
        folders = [folder / f"songs-{seed}" for seed in range(count)]
        for each in folders:
            each.mkdir()
        found = Parallel(n_jobs=min(count, cpu_count()))(
            delayed(synthesise)(each, 1, seed) for seed, each in enumerate(folders)
        )
        songs = [(str(song.path), song.segments) for part in found for song in part]
        (folder / "songs.json").write_text(json.dumps(songs))
    if {"parity", "training"} & set(parts):
        write_caches(folder / "caches", 3, SMALL if small else 1.0)


def rows(part: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{name}, {key}" if key else name, text) for key, text in rows(part, value))
        elif value is not None:
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


@click.command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=".", help="Folder for gpu.json.")
@click.option("--small", is_flag=True, help="Toy sizes: whether it runs, not how fast.")
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Only some.")
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(device: str, out: Path, small: bool, parts: str, folder: Path | None) -> None:
    """Parity with the CPU, encoder, extraction and training on a GPU."""
    if folder:
        if device == "cpu":
            torch.set_num_threads(1)
        click.echo(json.dumps(PARTS[parts](folder, device, small)))
        return
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            "there is no GPU here, or torch is built without one: --device cpu --small shows the way"
        )
    results: dict[str, Any] = {"device": device, "small": small}
    failed = False
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        prepare(Path(name), parts.split(","), small)
        click.echo(f"prepared in {time.perf_counter() - started:.0f} s", err=True)
        for part in parts.split(","):
            started = time.perf_counter()
            options = ["--folder", name, "--parts", part, "--device", device, *["--small"] * small]
            command = [sys.executable, "-W", "ignore", __file__, *options]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            failed |= done.returncode != 0
            results[part] = json.loads(done.stdout) if not done.returncode else {"failed": done.returncode}
            click.echo(f"\n{part} ({time.perf_counter() - started:.0f} s)")
            for title, value in rows(part, results[part]):
                click.echo(f"  {title:<58}{value}")
            out.mkdir(parents=True, exist_ok=True)
            (out / "gpu.json").write_text(json.dumps(results, indent=2) + "\n")
    click.echo(f"\nAll figures: {out / 'gpu.json'}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
