"""Whatever is killed, and whenever: no committed track is lost, none is missing at the end, and the bytes are the same.

The features are random and cost next to nothing; processes, engine, writer and packer are those of m2e-extract.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.caches import CONFIG
from support.runs import (
    RandomFeatures,
    all_gone,
    children,
    computed,
    content,
    extract_random,
    names,
    start_random,
    stored,
    wait_until,
)

from m2e.cache.care.pack import pack
from m2e.cache.folders import features_folder
from m2e.extract.job.part import Part
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import LARGEST_BATCH, Lost, run_tasks

Rounds = Callable[[int, int], int]
pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
    pytest.mark.timeout(3600),
]
N = 300


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that one undisturbed worker makes."""
    folder = tmp_path_factory.mktemp("reference") / "songs"
    extract_random(folder, names(N), 1, 0.0, Part())
    return folder


def test_kill_9_at_any_moment_and_resume(tmp_path: Path, reference: Path, rounds: Rounds) -> None:
    """The whole group or the parent alone, with two workers and the packer, resumed until the cache is full."""
    whole, wanted = stored(reference), rounds(4, 200)
    kills = caches = redone = 0
    while not caches or kills < wanted:
        caches += 1
        folder = tmp_path / f"songs{caches}"
        committed: dict[str, bytes] = {}
        finished = False
        while not finished:
            began, before = len(computed(folder)), len(committed)
            process = start_random(folder, N, seconds=0.004)
            if kills < wanted:
                wait_until(lambda process=process: children(process.pid) or process.poll() is not None)
                time.sleep(random.uniform(0.3, 1.5))
                workers = children(process.pid)
                committed = stored(folder)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL) if kills % 2 else process.kill()
                wait_until(lambda workers=workers: all_gone(workers), seconds=30)
            _, errors = process.communicate(timeout=120)
            after = stored(folder)
            assert committed.items() <= after.items(), "a committed track is lost"
            assert after.items() <= whole.items(), "a record is not what it should be"
            committed = after
            finished = process.returncode == 0
            if not finished:
                assert process.returncode == -signal.SIGKILL, errors
                kills += 1
                again = len(computed(folder)) - began - (len(after) - before)
                assert again <= 2 * LARGEST_BATCH, "more than one unsealed batch a worker is to be done again"
                redone += again
        assert content(folder) == content(reference)
    print(f"{kills} kills, {caches} caches of {N} tracks, 0 lost, {redone} tracks done again")


def test_workers_killed_in_mid_run(tmp_path: Path, reference: Path, rounds: Rounds) -> None:
    kills, wanted, caches, chance = 0, rounds(3, 100), 0, 0
    while kills < wanted:
        caches += 1
        folder = tmp_path / f"songs{caches}"
        over = threading.Event()

        def kill_now_and_then(folder: Path = folder, over: threading.Event = over) -> None:
            nonlocal kills
            patience = 0
            while not over.wait(0.02):
                if len(computed(folder)) >= patience and (workers := children(os.getpid())):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(random.choice(workers), signal.SIGKILL)
                        kills += 1
                    # Workers that never begin anything would end the run, and rightly.
                    patience = len(computed(folder)) + random.randint(2, 60)

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        try:
            with LocalWorkers(2) as workers:
                outcomes = list(run_tasks(RandomFeatures(folder, 0.01), names(N), workers))
        finally:
            over.set()
            killer.join()
        # A track that chance met twice is given up, which is what the engine promises.
        given_up = {o.item for o in outcomes if isinstance(o, Lost) and o.final}
        chance += len(given_up)
        kept = [o for o in outcomes if not isinstance(o, Lost)]
        assert sorted([*kept, *given_up]) == names(N)
        assert set(kept) <= stored(folder).keys() <= {*kept, *given_up}
        if not given_up:
            pack(features_folder(folder, CONFIG))
            assert content(folder) == content(reference)
    print(f"{kills} workers killed in {caches} runs of {N} tracks, none lost, {chance} met twice and given up")


def test_a_poisoned_track_is_given_up_after_two_deaths(tmp_path: Path) -> None:
    deadly = frozenset({"t00000", "t00033", "t00099"})
    with LocalWorkers(2) as workers:
        outcomes = list(run_tasks(RandomFeatures(tmp_path / "songs", 0.0, deadly), names(100), workers))
    assert {o.item for o in outcomes if isinstance(o, Lost) and o.final} == deadly
    assert all(computed(tmp_path / "songs").count(track_id) == 2 for track_id in deadly)
    assert stored(tmp_path / "songs").keys() == set(names(100)) - deadly


def test_two_runs_on_one_cache_at_once(tmp_path: Path, reference: Path, rounds: Rounds) -> None:
    for i in range(rounds(1, 20)):
        folder = tmp_path / f"songs{i}"
        runs = [start_random(folder, N, jobs=1, seconds=0.001) for _ in range(2)]
        # One may find the packer's lock taken, and says so; nothing else may happen.
        for run in runs:
            _, errors = run.communicate(timeout=120)
            assert run.returncode == 0 or "is being packed" in errors, errors
        with contextlib.suppress(OSError):
            pack(features_folder(folder, CONFIG))
        assert content(folder) == content(reference)


def test_any_order_any_number_of_workers_any_parts_give_the_same_bytes(
    tmp_path: Path, reference: Path, rounds: Rounds
) -> None:
    for i in range(rounds(1, 10)):
        for jobs in (2, 3):
            folder = tmp_path / f"jobs{jobs}-{i}"
            order = random.sample(names(N), N)
            extract_random(folder, order, jobs, 0.0, Part())
            assert content(folder) == content(reference)
        folder = tmp_path / f"parts-{i}"
        runs = [start_random(folder, N, jobs=1, part=f"{part}/3") for part in range(3)]
        for run in runs:
            _, errors = run.communicate(timeout=120)
            assert run.returncode == 0, errors
        assert len(computed(folder)) == N
        pack(features_folder(folder, CONFIG))
        assert content(folder) == content(reference)
