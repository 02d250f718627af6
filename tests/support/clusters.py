"""Dask schedulers and workers as processes of their own, on loopback or wherever a command puts them.

`python -m support.clusters ADDRESS CACHE TRACKS SECONDS` extracts what the cache does not hold yet of random features
(see `support.runs`) on such a cluster, packs, and prints the deaths as JSON.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from distributed import Client
from support.caches import CONFIG
from support.runs import RandomFeatures, names, stored, wait_until

from m2e.cache.care.pack import pack
from m2e.cache.folders import features_folder
from m2e.common.errors import DataError
from m2e.extract.workers.dask import dask_workers
from m2e.extract.workers.schedule import Lost, run_tasks

TESTS = Path(__file__).parents[1]
_OPTIONS = ("--nthreads", "1", "--no-dashboard", "--memory-limit", "0")


class Cluster:
    """A scheduler, and workers that come and go; all are killed at the end of the `with` block."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", **environment: str) -> None:
        """`folder`: of its own, for what the processes write; `environment`: of the scheduler."""
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "scheduler.json"
        arguments = ["--host", host, "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        self.scheduler = self._start("scheduler", arguments, (), environment)
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), self.scheduler)
        self.address: str = json.loads(file.read_text())["address"]

    def add_worker(
        self, *options: str, nanny: bool = False, through: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker, through a command that runs another where one is given; it joins some time later."""
        local = self._folder / f"worker{len(self._processes)}"
        arguments = [self.address, *_OPTIONS, *options, "--local-directory", str(local)]
        worker = self._start("worker", [*arguments, "--nanny" if nanny else "--no-nanny"], through, environment)
        self.workers.append(worker)
        return worker

    def keep(self, n: int) -> None:
        """Kill workers or start them, until `n` are there."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) > n:
            self.workers.pop().kill()
        while len(self.workers) < n:
            self.add_worker()
        wait_for_workers(self, n)

    def _start(
        self,
        kind: str,
        arguments: list[str],
        through: Sequence[str],
        environment: dict[str, str],
    ) -> subprocess.Popen[bytes]:
        own = (environment.pop("PYTHONPATH", ""), str(TESTS), os.environ.get("PYTHONPATH", ""))
        path = os.pathsep.join(filter(None, own))
        with (self._folder / f"{kind}{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*through, sys.executable, "-m", "dask", kind, *arguments],
                env={**os.environ, "PYTHONPATH": path, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes:
            process.wait()


class Negate:
    """What a worker does to a batch of numbers."""

    def __call__(self, items: Iterator[int]) -> list[int]:
        return [-item for item in items]


class Unusable:
    """Meets what no item is to blame for."""

    def __call__(self, items: Iterator[str]) -> list[str]:
        raise DataError(f"the disk is full at {next(items)}")


def wait_for_workers(cluster: Cluster, n: int) -> None:
    with Client(cluster.address, set_as_default=False) as client:
        wait_until(lambda: len(client.nthreads()) == n)


def start_client(cluster: Cluster, folder: Path, n: int, seconds: float = 0.0) -> "subprocess.Popen[str]":
    """A run on the cluster in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.clusters", cluster.address, str(folder), str(n), str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH", ""))))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def extract_on(
    address: str, folder: Path, track_ids: list[str], seconds: float = 0.0, deadly: frozenset[str] = frozenset()
) -> list[Lost[str]]:
    """Extract what the cache does not hold, and pack; the deaths."""
    there = stored(folder)
    todo = [track_id for track_id in track_ids if track_id not in there]
    folder.mkdir(parents=True, exist_ok=True)
    with dask_workers(address, folder.parent, str, {}) as workers:
        outcomes = list(run_tasks(RandomFeatures(folder, seconds, deadly), todo, workers))
    deaths = [outcome for outcome in outcomes if isinstance(outcome, Lost)]
    given_up = [death.item for death in deaths if death.final]
    assert sorted([*(o for o in outcomes if not isinstance(o, Lost)), *given_up]) == sorted(todo), "not each once"
    pack(features_folder(folder, CONFIG))
    return deaths


if __name__ == "__main__":
    scheduler, cache, tracks, delay = sys.argv[1:]
    deaths = extract_on(scheduler, Path(cache), names(int(tracks)), float(delay))
    print(json.dumps([[death.item, death.final] for death in deaths]))
