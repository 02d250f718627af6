"""Kills and power cuts: what was acknowledged is there, and nothing is damaged."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import crash

Rounds = Callable[[int, int], int]


def test_writers_and_a_packer_killed_at_random(tmp_path: Path, rounds: Rounds) -> None:
    found = crash.run("kills", tmp_path, rounds(8, 200))
    assert found["committed"] > 0
    assert (found["lost"], found["bad"], found["too_many_again"]) == (0, 0, 0)


@pytest.mark.parametrize("how", ["strace", "shim"])
def test_a_kill_at_any_system_call(how: str, rounds: Rounds) -> None:
    if how == "strace" and not _strace_works():
        pytest.skip("strace is not here, or may not watch processes")
    found = crash.run("points", how, rounds(*{"strace": (35, 1), "shim": (7, 1)}[how]))
    for action, outcome in found.items():
        assert outcome["killed"] > 0, action
        assert outcome["wrong"] == 0, action


def _strace_works() -> bool:
    return (
        bool(shutil.which("strace"))
        and subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode == 0
    )


def test_power_cuts_on_a_journaling_file_system(tmp_path: Path, rounds: Rounds) -> None:
    if not _may_mount(tmp_path):
        pytest.skip("power cuts need root, mkfs.ext4 and loop devices")
    found = crash.run("powercut", tmp_path, rounds(3, 100), before=("unshare", "-m"))
    assert (found["lost"], found["bad"]) == (0, 0)


def _may_mount(folder: Path) -> bool:
    if not all(map(shutil.which, ("unshare", "mkfs.ext4", "mount"))):
        return False
    script = "truncate -s 16M probe.img && mkfs.ext4 -q -F probe.img && mkdir -p probe && mount -o loop probe.img probe"
    return subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize("how", ["tmpfs", "rlimit"])
def test_full_disks_under_one_process(tmp_path: Path, rounds: Rounds, how: str) -> None:
    """A small file system that is full; or where that may not be mounted, a limit on the length of files."""
    before = ("unshare", "-rm") if how == "tmpfs" else ()
    if before and subprocess.run([*before, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=False).returncode:
        pytest.skip("unshare is not here, or may not mount a tmpfs")
    found = crash.run("disk", tmp_path, how, rounds(10, 100), before=before)
    assert found["failed"] >= rounds(10, 100)
    assert (found["lost"], found["bad"]) == (0, 0)
