"""run_tasks on worker processes: every item once, whatever dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from m2e.cache import DataError
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import Engine, Function, Lost, Returned, run_tasks


@dataclass(frozen=True)
class Square:
    """Squares of numbers, each noted in a file of its own once it is 'sealed'; some numbers kill or delay."""

    folder: Path
    deadly: frozenset[int] = frozenset()
    deadly_once: frozenset[int] = frozenset()
    death: int = signal.SIGKILL
    seconds: float = 0.0

    def __call__(self, items: Iterator[int]) -> list[int]:
        done: list[int] = []
        try:
            for item in items:
                with (self.folder / f"begun-{item}").open("a") as file:
                    file.write(f"{os.getpid()}\n")
                first = len((self.folder / f"begun-{item}").read_text().splitlines()) == 1
                if item in self.deadly or (first and item in self.deadly_once):
                    os.kill(os.getpid(), self.death)
                time.sleep(self.seconds)
                done.append(item)
        finally:  # as a writer seals
            for item in done:
                (self.folder / f"sealed-{item}").touch()
        return [item * item for item in done]


def begun(folder: Path, item: int) -> list[str]:
    return (folder / f"begun-{item}").read_text().splitlines()


def test_every_item_once_on_any_number_of_workers(tmp_path: Path) -> None:
    for jobs in (1, 3):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        with LocalWorkers(jobs) as workers:
            for _ in range(2):  # workers are kept from one run to the next
                assert sorted(run_tasks(Square(folder), range(100), workers)) == [i * i for i in range(100)]
        processes = {process for i in range(100) for process in begun(folder, i)}
        assert len(processes) == jobs


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_a_deadly_item_is_given_up_after_two_deaths_and_costs_nobody_else(
    tmp_path: Path, death: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with LocalWorkers(2) as workers:
        outcomes = list(run_tasks(Square(tmp_path, frozenset({7}), frozenset({11, 30}), death), range(40), workers))
    lost = [outcome for outcome in outcomes if isinstance(outcome, Lost)]
    assert sorted((loss.item, loss.final) for loss in lost) == [(7, False), (7, True), (11, False), (30, False)]
    assert {loss.death for loss in lost} == {death.name}
    assert capfd.readouterr() == ("", "")  # no dump of a crashed process either
    squares = [outcome for outcome in outcomes if not isinstance(outcome, Lost)]
    assert sorted(squares) == [i * i for i in range(40) if i != 7]
    assert len(begun(tmp_path, 7)) == 2


@dataclass(frozen=True)
class TakesAllFirst:
    """What it takes is not what it works on."""

    square: Square

    def __call__(self, items: Iterator[int]) -> list[int]:
        return self.square(iter(list(items)))


def test_an_item_that_kills_long_after_it_was_taken_costs_nobody_else(tmp_path: Path) -> None:
    with LocalWorkers(2) as workers:
        outcomes = list(run_tasks(TakesAllFirst(Square(tmp_path, frozenset({25}))), range(60), workers))
    final = [outcome.item for outcome in outcomes if isinstance(outcome, Lost) and outcome.final]
    assert final == [25]
    assert sorted(o for o in outcomes if not isinstance(o, Lost)) == [i * i for i in range(60) if i != 25]
    assert len(begun(tmp_path, 25)) <= 3


def test_workers_killed_from_outside_lose_nothing(tmp_path: Path) -> None:
    outcomes: list[Any] = []
    with LocalWorkers(2) as workers:
        for outcome in run_tasks(Square(tmp_path, seconds=0.01), range(60), workers):
            outcomes.append(outcome)
            if len(outcomes) in (5, 15, 25):
                os.kill(int(begun(tmp_path, max(i for i in range(60) if (tmp_path / f"begun-{i}").exists()))[-1]), 9)
    assert sorted(o for o in outcomes if not isinstance(o, Lost)) == [i * i for i in range(60)]
    assert not any(isinstance(o, Lost) and o.final for o in outcomes)


class StillBorn:
    """Dies before it takes an item."""

    def __call__(self, items: Iterator[int]) -> list[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def test_workers_that_cannot_live_are_one_line() -> None:
    with LocalWorkers(1) as workers, pytest.raises(DataError, match=r"before they begin \(SIGKILL\)"):
        list(run_tasks(StillBorn(), range(9), workers))


class Unusable:
    """Meets what no item is to blame for."""

    def __call__(self, items: Iterator[int]) -> list[int]:
        raise DataError("the disk is full")


def test_what_the_function_raises_stops_the_run() -> None:
    with LocalWorkers(2) as workers, pytest.raises(DataError, match="the disk is full"):
        list(run_tasks(Unusable(), range(9), workers))


class Here:
    """An engine without processes, which gives up half of each batch and forgets nothing: what run_tasks relies on."""

    width = 3

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._batches: list[tuple[Function[Any, Any], Sequence[Any]]] = []

    def submit(self, function: Function[Any, Any], batch: Sequence[Any]) -> None:
        assert len(self._batches) < self.width
        self.sizes.append(len(batch))
        self._batches.append((function, batch))

    def collect(self) -> Returned[Any, Any]:
        function, batch = self._batches.pop()
        half = (len(batch) + 1) // 2
        return Returned(batch, half, function(iter(batch[:half])))


def test_what_a_worker_did_not_get_to_is_handed_out_again_and_batches_are_bounded() -> None:
    here = Here()
    engine: Engine = here
    assert sorted(run_tasks(lambda items: [-i for i in items], range(10_000), engine)) == sorted(
        -i for i in range(10_000)
    )
    assert here.sizes[0] == here.sizes[-1] == 1
    assert max(here.sizes) == 64


FOLLOWER = """
import sys
from pathlib import Path
from test_schedule import Square
from m2e.extract.workers.schedule import run_tasks
from m2e.extract.workers.local import LocalWorkers
with LocalWorkers(2) as workers:
    for _ in run_tasks(Square(Path(sys.argv[1]), seconds=float(sys.argv[2])), range(1000), workers):
        pass
"""


def start(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    """A run in a process of its own, begun."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FOLLOWER, str(folder), str(seconds)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_items(process, folder, 6)
    return process


def wait_for_items(process: "subprocess.Popen[str]", folder: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("begun-*"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def processes_of(folder: Path) -> set[int]:
    return {int(name) for path in folder.glob("begun-*") for name in path.read_text().splitlines()}


def test_interrupts_from_the_terminal_are_for_the_parent_alone(tmp_path: Path) -> None:
    process = start(tmp_path, 0.05)
    workers = processes_of(tmp_path)
    for worker in workers:  # the first is started along with processes that let signals through
        os.kill(worker, signal.SIGINT)
    wait_for_items(process, tmp_path, len(list(tmp_path.glob("begun-*"))) + 20)
    assert processes_of(tmp_path) == workers
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_seal_and_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, 0.05)
    workers = processes_of(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker survived its parent"
        time.sleep(0.05)
    items = [{path.name.partition("-")[2] for path in tmp_path.glob(f"{kind}-*")} for kind in ("begun", "sealed")]
    assert len(items[0] - items[1]) <= 2  # what each worker was at
