"""Killing a commit, a pack or the replacement of tracks at each of its system calls.

With strace the calls are those that the kernel sees, by its fault injection; with the shim those of Python's os that
change the disk, each killed before it happens and, for a write, half way through.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.caches import CONFIG, random_track
from support.crash.forks import track_id, write

from m2e.cache import FeatureWriter, TrackFeatures
from m2e.cache.care import pack as packing
from m2e.cache.care.verify import verify
from m2e.cache.catalogue import scan
from m2e.cache.folders import features_folder
from m2e.cache.layout import to_record

OLD, NEW = range(40), range(40, 44)
REPLACED = (3, 30)
CHANGING = (
    "open", "write", "posix_fallocate", "fsync", "close", "replace", "rename", "unlink", "mkdir", "link",
)  # fmt: skip


def _commit(folder: Path) -> None:
    write(folder, NEW, len(NEW), lambda kind, number: None)


def _pack(folder: Path) -> None:
    packing.pack(features_folder(folder, CONFIG))


def _newer(number: int) -> TrackFeatures:
    return random_track(track_id(number), seed=1000 + number)


def _replace(folder: Path) -> None:
    with FeatureWriter(folder, CONFIG, generation=1) as writer:
        for number in REPLACED:
            writer.add(_newer(number))
    _pack(folder)


ACTIONS: dict[str, Callable[[Path], None]] = {"commit": _commit, "pack": _pack, "replace": _replace}


def present(folder: Path) -> set[int]:
    features = features_folder(folder, CONFIG)
    return {int(name[1:]) for name in scan(features, CONFIG).index["id"].tolist()}


def replaced(folder: Path) -> set[int]:
    """Tracks whose newer record is the one that counts."""
    digest = {row["id"]: row["digest"].tobytes() for row in scan(features_folder(folder, CONFIG), CONFIG).index}
    newer = {number: to_record(_newer(number)).index for number in REPLACED}
    return {number for number, row in newer.items() if digest[row["id"][0]] == row["digest"][0].tobytes()}


def is_right(action: str, folder: Path) -> bool:
    """After a kill every old track is there, the new ones all or none, nothing is damaged, and it can be done again."""
    found = present(folder)
    fine = found in ((set(OLD), set(OLD) | set(NEW)) if action == "commit" else (set(OLD),))
    fine &= replaced(folder) in (set(), set(REPLACED))
    fine &= verify(features_folder(folder, CONFIG), deep=True) == []
    ACTIONS[action](folder)
    after = set(OLD) | set(NEW) if action == "commit" else set(OLD)
    return fine and present(folder) == after and replaced(folder) == (set(REPLACED) if action == "replace" else set())


def in_child(action: Callable[[], None], attach: list[str] | None = None) -> int:
    """The wait status of a child that does `action`; strace may watch it, from the beginning of `action` on."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if attach:
                ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, by anybody
            os.close(writing)
            os.read(reading, 1)
            action()
            code = 0
        finally:
            os._exit(code)
    os.close(reading)
    if attach:
        with subprocess.Popen([*attach, "-p", str(child)], stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr
            line = tracer.stderr.readline()
            if "attached" not in line:
                os.kill(child, signal.SIGKILL)
                raise RuntimeError(line)
            with contextlib.suppress(BrokenPipeError):  # killed in the read that waits
                os.write(writing, b"x")
            status = os.waitpid(child, 0)[1]
            tracer.communicate()
    else:
        os.write(writing, b"x")
        status = os.waitpid(child, 0)[1]
    os.close(writing)
    return status


def calls_of(action: Callable[[], None], log: Path) -> list[tuple[str, int]]:
    """Name and count so far of every system call of `action`."""
    in_child(action, ["strace", "-f", "-o", str(log)])
    names = re.findall(r"^\d+\s+(\w+)\(", log.read_text(errors="replace"), re.MULTILINE)
    counts: Counter[str] = Counter()
    points = []
    for name in names:
        counts[name] += 1
        points.append((name, counts[name]))
    return points


def dying(action: Callable[[], None], n: int, half: bool) -> None:
    """Do `action`, but die before its `n`-th call of os that changes something, or half way through that."""
    count = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == n:
                if half and name == "write":
                    real(words[0], bytes(words[1])[: len(words[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*words, **named)

        return call

    for name in CHANGING:
        if hasattr(os, name):
            setattr(os, name, wrap(name, getattr(os, name)))
    action()


def main(how: str, step: int) -> dict[str, dict[str, int]]:
    """Kill at every `step`-th call of each action."""
    packing.PACK_TRACKS = 16
    found = {}
    with tempfile.TemporaryDirectory() as name:
        base, work = Path(name, "base"), Path(name, "work")
        write(base, OLD, 10, lambda kind, number: None)

        def attempt(kind: str, status: Callable[[], int]) -> tuple[bool, bool]:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work)
            killed = os.WIFSIGNALED(status())
            return killed, is_right(kind, work)

        for kind, action in ACTIONS.items():
            act = functools.partial(action, work)
            attempt(kind, lambda: in_child(lambda: None))  # loads what is loaded late
            shutil.rmtree(work)
            shutil.copytree(base, work)
            outcomes = []
            if how == "strace":
                for call, count in calls_of(act, Path(name, "log"))[step // 2 :: step]:
                    words = ["strace", "-f", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={count}"]
                    outcomes.append(attempt(kind, functools.partial(in_child, act, words)))
            else:
                for n in itertools.count(1, step):
                    for half in (False, True):
                        die = functools.partial(dying, act, n, half)
                        outcomes.append(attempt(kind, functools.partial(in_child, die)))
                    if not outcomes[-1][0]:  # it came to its end
                        break
            found[kind] = {
                "points": len(outcomes),
                "killed": sum(killed for killed, _ in outcomes),
                "wrong": sum(not right for _, right in outcomes),
            }
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
