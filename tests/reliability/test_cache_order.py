"""The order of a commit: written, synced, renamed, the folder synced, and only then acknowledged."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.caches import CONFIG, random_track
from support.crash import TESTS

from m2e.cache import FeatureWriter
from m2e.cache.care.pack import pack
from m2e.cache.folders import features_folder
from m2e.common.files import write_atomically

EXPECTED = ["reserve file", "write file", "sync file", "rename", "sync folder"]


def record(monkeypatch: pytest.MonkeyPatch, target: str) -> list[str]:
    """What os is asked for from now on: the steps of commits whose file begins with `target`, and removals."""
    steps: list[str] = []
    names: dict[int, str] = {}

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*words: Any, **named: Any) -> Any:
            result = real(*words, **named)
            if name == "open":
                names[result] = "file" if ".tmp-" in str(words[0]) else "folder"
            elif name == "replace":
                steps.append("rename" if Path(words[1]).name.startswith(target) else "rename another")
            elif name == "unlink":
                steps.append(f"remove {Path(words[0]).name[:5]}")
            else:
                steps.append(
                    f"{ {'posix_fallocate': 'reserve', 'write': 'write', 'fsync': 'sync'}[name] } {names[words[0]]}"
                )
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("open", "posix_fallocate", "write", "fsync", "replace", "unlink"):
        watch(name)
    return steps


def test_a_shard_is_durable_when_seal_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeatureWriter(tmp_path, CONFIG) as writer:
        writer.add(random_track("a"))
        writer.seal()
        writer.add(random_track("b"))
        steps = record(monkeypatch, "shard-")
        writer.seal()
        assert steps == EXPECTED


def test_a_new_folder_is_synced_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = record(monkeypatch, "file")
    write_atomically(tmp_path / "a" / "b" / "file", b"content")
    assert steps == ["sync folder", "sync folder", *EXPECTED]


def test_sources_go_only_after_their_pack_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeatureWriter(tmp_path, CONFIG) as writer:
        writer.add(random_track("a"))
    steps = record(monkeypatch, "pack-")
    pack(features_folder(tmp_path, CONFIG))
    assert steps.index("remove shard") > steps.index("sync folder") > steps.index("rename") > steps.index("sync file")


def test_the_kernel_sees_the_same_order(tmp_path: Path) -> None:
    if not shutil.which("strace") or subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("strace is not here, or may not watch processes")
    script = (
        "import sys\nfrom pathlib import Path\nfrom support.crash.forks import write\n"
        "write(Path(sys.argv[1]), range(3), 3, lambda kind, number: Path(f'/told-{kind.decode()}').exists())\n"
    )
    log = tmp_path / "log"
    calls = "trace=fallocate,write,fsync,fdatasync,rename,renameat,renameat2,stat,newfstatat,statx"
    subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-s",
            "16",
            "-o",
            str(log),
            "-e",
            calls,
            sys.executable,
            "-c",
            script,
            str(tmp_path / "c"),
        ],
        cwd=TESTS,
        check=True,
    )
    steps = []
    for line in log.read_text().splitlines():
        call, words = (
            re.match(r"\d+\s+(\w+)\((.*)", line).groups() if re.match(r"\d+\s+(\w+)\((.*)", line) else ("", "")
        )
        if "told-c" in words:
            steps.append("told")
        elif call.startswith("rename") and "shard-" in words:
            steps.append("rename")
        elif call == "fsync" and "features-" in words:
            steps.append("sync file" if ".tmp-" in words else "sync folder")
        elif call in ("write", "fallocate") and ".tmp-" in words:
            steps.append({"write": "write file", "fallocate": "reserve file"}[call])
    assert steps[steps.index("rename") - 3 :] == [*EXPECTED, "told", "told", "told"]


def test_file_systems_that_cannot_reserve_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
