"""Runs of the engine and of m2e-extract in processes of their own, to be killed.

`python -m support.runs CACHE TRACKS JOBS SECONDS [I/N]` extracts random features, real in all but the audio: the
engine, its workers, the writer and the packer are m2e's.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.caches import CONFIG, random_track

from m2e.cache.care.pack import pack
from m2e.cache.catalogue import scan
from m2e.cache.folders import features_folder
from m2e.cache.writer import FeatureWriter
from m2e.extract.job.part import Part
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import Lost, run_tasks

TESTS = Path(__file__).parents[1]
EXTRACT = "from m2e.extract.cli import main; main()"
TRY_OUT = ("--encoder", "tiny", "--chords", "template", "--device", "cpu", "--json")


@dataclass(frozen=True)
class RandomFeatures:
    """What a worker does to a batch: random features, of each id always the same, into a cache folder."""

    folder: Path
    seconds: float = 0.0
    deadly: frozenset[str] = frozenset()

    def __call__(self, track_ids: Iterator[str]) -> list[str]:
        done = []
        with FeatureWriter(self.folder, CONFIG) as writer:
            for track_id in track_ids:
                log = os.open(self.folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(log, f"{track_id} {os.getpid()}\n".encode())
                os.close(log)
                if track_id in self.deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(self.seconds)
                writer.add(random_track(track_id, int(track_id[1:])))
                done.append(track_id)
        return done


def names(n: int) -> list[str]:
    return [f"t{i:05d}" for i in range(n)]


def stored(folder: Path) -> dict[str, bytes]:
    """Digest of each record in a cache folder; raises where anything there is damaged."""
    index = scan(features_folder(folder, CONFIG), CONFIG).index
    return {row["id"].decode(): row["digest"].tobytes() for row in index}


def computed(folder: Path) -> list[str]:
    """Every track that a worker began, each time that it did."""
    log = folder.with_suffix(".log")
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def processes(folder: Path) -> list[int]:
    """The process of the worker that began each of `computed`."""
    return [int(line.split()[1]) for line in folder.with_suffix(".log").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    """Feature files by name; where all is packed, that is all there is."""
    return {path.name: path.read_bytes() for path in folder.glob("features-*/*.h5")}


def extract_random(folder: Path, track_ids: list[str], jobs: int, seconds: float, part: Part) -> None:
    """What the cache does not hold yet, and if this is all parts, packed."""
    there = stored(folder)
    todo = [track_id for track_id in track_ids if track_id in part and track_id not in there]
    with LocalWorkers(jobs) as workers:
        for outcome in run_tasks(RandomFeatures(folder, seconds), todo, workers):
            assert not isinstance(outcome, Lost)
    if part.count == 1:
        pack(features_folder(folder, CONFIG))


def start_random(folder: Path, n: int, jobs: int = 2, seconds: float = 0.0, part: str = "0/1") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "support.runs", str(folder), str(n), str(jobs), str(seconds), part]
    return _start(command)


def start_extract(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """m2e-extract with the tiny encoder, in a session of its own."""
    return _start([sys.executable, "-c", EXTRACT, *TRY_OUT, *map(str, arguments)], **environment)


def _start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    folders = [environment.pop("PYTHONPATH", ""), str(TESTS), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, folders))
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(process: int) -> list[int]:
    """Worker processes of a process (the others keep books for multiprocessing)."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"popen_loky" in command:
                found.append(child)
    return found


def wait_until(there: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert process is None or process.poll() is None, f"it ended too early: {process and process.communicate()}"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def all_gone(processes: list[int]) -> bool:
    """Whether these processes have ended; one that waits to be reaped has."""
    for process in processes:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            continue
    return True


if __name__ == "__main__":
    cache, tracks, workers, delay, share = sys.argv[1:]
    order = names(int(tracks))
    random.shuffle(order)  # any order must do
    extract_random(Path(cache), order, int(workers), float(delay), Part.parse(share))
