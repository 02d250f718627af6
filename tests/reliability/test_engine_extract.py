"""m2e-extract while things go wrong: signals, killed workers, deadly files, a full disk, a closed folder."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.lent import invoke
from support.music import write_songs
from support.runs import TRY_OUT, all_gone, children, start_extract, wait_until

from m2e.cache import FeatureCache
from m2e.cache.failures import read_failures
from m2e.extract.cli import main

Rounds = Callable[[int, int], int]
Run = subprocess.Popen[str]
pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
    pytest.mark.timeout(3600),
]
N = 40


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of 40 songs of 10 s, in a folder from which it and the audio can be read."""
    return write_songs(tmp_path_factory.mktemp("songs"), N, seconds=10)


@pytest.fixture(scope="module")
def reference(songs: Path) -> dict[str, bytes]:
    """Feature files of an undisturbed run with one worker."""
    cache = songs.parent / "reference"
    whole("--dataset", songs, "--cache", cache, "--jobs", "1")
    return content(cache)


def content(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("songs/features-*/*.h5")}


def finish(run: Run, code: int = 0) -> tuple[dict[str, int], str]:
    """Wait for a run: its summary, and what it said."""
    output, errors = run.communicate(timeout=240)
    assert run.returncode == code, errors
    assert "Traceback" not in errors, errors
    return json.loads(output) if output else {}, errors


def whole(*arguments: str | Path, code: int = 0) -> tuple[dict[str, int], str]:
    """A run in this process, whose workers alone are others, to its end: its summary, and what it said."""
    result = invoke(main, [*TRY_OUT, *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout) if result.stdout else {}, result.stderr


def begin(songs: Path, cache: Path, files: int = 2, jobs: int = 2) -> Run:
    """A run that has committed some files."""
    run = start_extract("--dataset", songs, "--cache", cache, "--jobs", str(jobs))
    there = len(content(cache))
    wait_until(lambda: len(content(cache)) >= there + files, run)
    return run


def interrupted(run: Run, cache: Path, number: int) -> None:
    """What a run leaves behind that was told to end."""
    workers = children(run.pid)
    # As a terminal and a batch system do: every process gets it.
    os.killpg(run.pid, number)
    _, errors = finish(run, 128 + number)
    assert all_gone(workers)
    kept = len(FeatureCache.open(cache / "songs").track_ids)
    assert f"interrupted: {kept} of {N} tracks are in {cache}/songs, safe. To go on: m2e-extract " in errors
    assert f"--cache {cache} --jobs 2" in errors.splitlines()[-1]


def interrupted_twice(run: Run, cache: Path, number: int) -> None:
    run.send_signal(number)
    time.sleep(random.uniform(0, 0.2))
    run.send_signal(number)
    finish(run, 128 + number)


def killed(run: Run, cache: Path, number: int, group: bool = False) -> None:
    workers = children(run.pid)
    os.killpg(run.pid, number) if group else run.kill()
    run.communicate()
    wait_until(lambda: all_gone(workers), seconds=30)


def test_signals_and_kills_one_after_the_other_lose_nothing(
    songs: Path, tmp_path: Path, reference: dict[str, bytes], rounds: Rounds
) -> None:
    signals = [
        partial(interrupted, number=signal.SIGTERM),
        partial(interrupted, number=signal.SIGINT),
        partial(interrupted_twice, number=signal.SIGTERM),
    ]
    kills = [partial(killed, number=signal.SIGKILL, group=group) for group in (False, True)]
    for i in range(rounds(1, 3)):
        cache = tmp_path / f"cache{i}"
        endings = random.sample(signals, rounds(1, 3)) + random.sample(kills, rounds(1, 2))
        for end in random.sample(endings, len(endings)):
            run = begin(songs, cache)
            time.sleep(random.uniform(0, 0.3))
            before = content(cache)
            end(run, cache)
            assert before.items() <= content(cache).items(), end
        committed = len(FeatureCache.open(cache / "songs").track_ids)
        summary, _ = whole("--dataset", songs, "--cache", cache, "--jobs", "2")
        assert (summary["kept"], summary["new"]) == (N, N - committed)
        assert content(cache) == reference
        assert not list(cache.glob("songs/**/.tmp-*"))


def test_workers_killed_in_mid_run(songs: Path, tmp_path: Path, reference: dict[str, bytes], rounds: Rounds) -> None:
    for i in range(rounds(1, 3)):
        cache = tmp_path / f"cache{i}"
        run = begin(songs, cache)
        os.kill(random.choice(children(run.pid)), signal.SIGKILL)
        summary, errors = finish(run)
        assert (summary["kept"], summary["failed"]) == (N, 0)
        assert errors.count("a worker process died at it (SIGKILL)") <= 1
        assert content(cache) == reference


# Loaded by every Python process of a run: kills whichever opens a file of this name, as a decoder's fault would.
POISON = """
import os, sys
def kill(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison.wav"):
        os.kill(os.getpid(), 9)
sys.addaudithook(kill)
"""


def test_a_file_that_kills_its_worker_is_quarantined(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "songs"
    shutil.copytree(songs.parent, folder, ignore=shutil.ignore_patterns("reference"))
    (folder / "0.wav").rename(folder / "poison.wav")
    table, hook = folder / songs.name, tmp_path / "hook" / "sitecustomize.py"
    table.write_text(table.read_text().replace("song00,0.wav", "song00,poison.wav"))
    hook.parent.mkdir()
    hook.write_text(POISON)
    arguments = ("--dataset", table, "--cache", tmp_path / "cache", "--jobs", "2", "--limit", "8")
    monkeypatch.setenv("PYTHONPATH", str(hook.parent))
    summary, errors = whole(*arguments)
    assert (summary["kept"], summary["failed"], summary["quarantined"]) == (7, 1, 1)
    assert f"quarantined song00 ({folder}/poison.wav): its worker process was killed" in errors
    failure = read_failures(next(tmp_path.glob("cache/songs/features-*")))["song00"]
    assert (failure.stage, failure.attempts) == ("worker", 2)
    again, errors = whole(*arguments)
    assert (again["new"], again["quarantined"]) == (0, 1)
    monkeypatch.delenv("PYTHONPATH")
    mended, _ = whole(*arguments, "--retry-failed")
    assert (mended["new"], mended["failed"]) == (1, 0)


def test_two_runs_at_once_and_two_parts_give_the_bytes_of_one(
    songs: Path, tmp_path: Path, reference: dict[str, bytes], rounds: Rounds
) -> None:
    for i in range(rounds(1, 3)):
        cache = tmp_path / f"twice{i}"
        for run in [start_extract("--dataset", songs, "--cache", cache, "--jobs", "1") for _ in range(2)]:
            finish(run)
        whole("--dataset", songs, "--cache", cache)  # packs, where each found the other at it
        assert content(cache) == reference
        cache = tmp_path / f"parts{i}"
        command = ("--dataset", songs, "--cache", cache, "--jobs", "1")
        summaries = [whole(*command, "--shard", f"{part}/2")[0] for part in (0, 1)]
        assert sum(summary["new"] for summary in summaries) == N
        whole("--dataset", songs, "--cache", cache)
        assert content(cache) == reference


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 60 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=60k", "m2e-test", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("may not mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_and_a_read_only_one_are_one_line_and_the_next_run_goes_on(
    songs: Path, disk: Path, reference: dict[str, bytes]
) -> None:
    arguments = ("--dataset", songs, "--cache", disk, "--jobs", "2")
    _, errors = whole(*arguments, code=1)
    assert errors.count("Error: ") == 1
    assert "No space left on device" in errors.splitlines()[-1]
    committed = len(FeatureCache.open(disk / "songs").track_ids)
    assert 0 < committed < N
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    _, errors = whole(*arguments, code=1)
    assert errors.count("Error: ") == 1
    assert "Read-only file system" in errors.splitlines()[-1]
    subprocess.run(["mount", "-o", "remount,rw,size=10m", str(disk)], check=True)
    summary, _ = whole(*arguments)
    assert (summary["kept"], summary["new"]) == (N, N - committed)
    assert content(disk) == reference
