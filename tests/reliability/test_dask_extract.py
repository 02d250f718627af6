"""m2e-extract on a Dask cluster: what one process makes, failures recorded, a deadly file quarantined."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.clusters import Cluster
from support.music import write_songs
from support.runs import start_extract

from m2e.cache.failures import read_failures

N = 8
# Loaded by every Python process of a worker: kills whichever opens a file of this name, as a decoder's fault would.
POISON = """
import os, sys
def kill(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison.wav"):
        os.kill(os.getpid(), 9)
sys.addaudithook(kill)
"""


def content(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("songs/features-*/*.h5")}


def finish(run: "subprocess.Popen[str]") -> tuple[dict[str, int], str]:
    """Wait for a run: its summary, and what it said."""
    output, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert "Traceback" not in errors, errors
    return json.loads(output), errors


def test_a_cluster_makes_what_one_process_makes_and_goes_on_after_failures(tmp_path: Path) -> None:
    table = write_songs(tmp_path / "songs", N)
    finish(start_extract("--dataset", table, "--cache", tmp_path / "reference", "--jobs", "1"))
    reference = content(tmp_path / "reference")
    with table.open("a") as file:
        for name in ("poison.wav", "text.mp3"):
            file.write(f"{name},{name},5,5\n")
    (table.parent / "text.mp3").write_text("this is not music\n" * 100)
    (table.parent / "poison.wav").write_bytes((table.parent / "0.wav").read_bytes())
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(POISON)
    with Cluster(tmp_path / "cluster") as cluster:
        for _ in range(2):
            cluster.add_worker(nanny=True, PYTHONPATH=str(tmp_path / "hook"))
        # Paths as a user gives them, which mean nothing where the workers are.
        arguments = (
            "--dataset",
            os.path.relpath(table),
            "--cache",
            os.path.relpath(tmp_path / "cache"),
            "--scheduler",
            cluster.address,
        )
        summary, errors = finish(start_extract(*arguments))
    assert (summary["kept"], summary["failed"], summary["quarantined"]) == (N, 2, 1), errors
    assert content(tmp_path / "cache") == reference
    failures = read_failures(next(tmp_path.glob("cache/songs/features-*")))
    assert {track_id: (f.stage, f.attempts) for track_id, f in failures.items()} == {
        "poison.wav": ("worker", 2),
        "text.mp3": ("audio", 1),
    }
    assert "poison.wav: its worker process ended (tcp://127.0.0.1:" in errors
    assert not list((tmp_path / "cache").glob(".tmp-*"))
    again, _ = finish(start_extract(*arguments))  # nothing to do: the cluster is not asked for, and it is gone
    assert (again["new"], again["kept"]) == (0, N)


@pytest.mark.long
def test_workers_of_this_machine(tmp_path: Path) -> None:
    table = write_songs(tmp_path / "songs", N)
    for options in (["--jobs", "1"], ["--scheduler", "local:2"]):
        summary, _ = finish(start_extract("--dataset", table, "--cache", tmp_path / options[-1], *options))
        assert summary["new"] == N
    assert content(tmp_path / "local:2") == content(tmp_path / "1")
