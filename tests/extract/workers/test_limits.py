"""A track at which native code hangs costs that track, not the run."""

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2e.extract.job.plan import Task
from m2e.extract.workers import limits
from m2e.extract.workers.attempts import given_up
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import Lost, run_tasks


def hang() -> None:
    """In native code that keeps the interpreter, as a decoder with a fault may."""
    ctypes.PyDLL(None).sleep(600)


def work(items: Iterator[int]) -> list[int]:
    limits._LEAST_SECONDS = 1.0  # in this process alone
    done = []
    for item in items:
        limits.allow_decoding(Path("nowhere"))
        if item == 3:
            hang()
        limits.allow_embedding(0.1)
        time.sleep(0.01)
        done.append(item)
    return done


def test_a_track_that_hangs_is_given_up_and_the_others_are_done() -> None:
    started = time.monotonic()
    with LocalWorkers(2) as workers:
        outcomes = list(run_tasks(work, range(8), workers))
    lost = [outcome for outcome in outcomes if isinstance(outcome, Lost)]
    assert [(each.item, each.final) for each in lost] == [(3, False), (3, True)]
    assert sorted(outcome for outcome in outcomes if isinstance(outcome, int)) == [0, 1, 2, 4, 5, 6, 7]
    assert time.monotonic() - started < 100
    failure = given_up(Lost(Task("a", Path("a.mp3"), 5), lost[0].death, True))
    assert "took far longer than any track of its size" in failure.reason


def test_between_tracks_nothing_counts_and_a_process_that_is_no_worker_has_no_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_LEAST_SECONDS", 0.01)
    limits.allow_decoding(Path("nowhere"))
    time.sleep(0.1)
    limits.rest()


def rests(items: Iterator[int]) -> list[int]:
    limits._LEAST_SECONDS = 0.5
    for _ in items:
        limits.allow_decoding(Path("nowhere"))
    return [0]


def test_a_worker_that_waits_is_not_ended() -> None:
    with LocalWorkers(1) as workers:
        assert list(run_tasks(rests, [1], workers)) == [0]
        time.sleep(1.5)
        assert list(run_tasks(rests, [2], workers)) == [0]


@pytest.mark.parametrize(("megabytes", "seconds"), [(5, 240), (1000, 6000), (30, 36_000)])
def test_limits_are_generous(megabytes: float, seconds: float) -> None:
    """A slow core that has three processes to run, an encoder of the largest size, a disk of a MB/s."""
    assert limits._LEAST_SECONDS + limits._SECONDS_A_MEGABYTE * megabytes > 3 * megabytes + 60
    assert limits._LEAST_SECONDS + limits._SECONDS_A_SECOND * seconds > 3 * 2 * seconds
