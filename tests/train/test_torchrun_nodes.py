"""Two nodes, simulated by two torchrun agents that meet on loopback, each with one process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import two_processes
from support.caches import make_cache, make_labels

# The state of training is kept after every epoch, not every few minutes.
M2E_TRAIN = "import m2e.train.learning.state as s; s.SECONDS = 0.0\nfrom m2e.train.cli import main; main()"
Node = subprocess.Popen[str]


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    make_cache(tmp_path / "caches" / "j", make_labels("j", "J", 115, ("a", "b", "c")), signal=0.5)
    make_cache(tmp_path / "caches" / "d", make_labels("d", "D", 60), signal=0.5)
    return tmp_path / "caches"


def start_nodes(script: Path, *arguments: str | Path) -> list[Node]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Which agent is the first, and serves the others, is settled by rank, so that they need not find out.
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, "--node-rank", str(node), str(script)]
            + [str(argument) for argument in arguments],
            env={**os.environ, "PYTHONPATH": str(Path(two_processes.__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in (0, 1)
    ]


def finish(nodes: list[Node]) -> list[str]:
    return [node.communicate(timeout=600)[1] for node in nodes]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_nodes_evaluate_and_train_as_one_process(caches: Path, tmp_path: Path) -> None:
    nodes = start_nodes(Path(two_processes.__file__), caches, tmp_path / "found")
    said = finish(nodes)
    assert [node.returncode for node in nodes] == [0, 0], said
    shared, alone = load_file(tmp_path / "found"), two_processes.results(caches, shared=False)
    assert shared.keys() == alone.keys()
    for name, value in alone.items():
        if not name.endswith("in_proj_bias"):  # whose gradient is 0 but for rounding
            torch.testing.assert_close(shared[name], value, rtol=1e-3, atol=1e-4, msg=name)


def train(caches: Path, out: Path) -> list[Node]:
    script = out.with_name("train.py")
    script.write_text(M2E_TRAIN)
    return start_nodes(
        script, "--datasets", "J,D", "--cache", caches, "--out", out, "--device", "cpu", "--epochs", "40"
    )


def process_of(node: Node) -> int:
    return int(Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()[0])


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_job_on_both_nodes_and_the_same_command_resumes(
    caches: Path, tmp_path: Path, victim: int
) -> None:
    out = tmp_path / "out"
    nodes = train(caches, out)
    state = out / "teacher-J" / "state.safetensors"
    deadline = time.monotonic() + 240
    while not state.exists():
        assert all(node.poll() is None for node in nodes), finish(nodes)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process_of(nodes[victim]), signal.SIGKILL)
    said = finish(nodes)
    assert all(node.returncode != 0 for node in nodes)
    survivor = said[1 - victim]
    assert "lost another process of this job" in survivor
    assert "the same command goes on from the last epoch that was kept" in survivor
    assert "Traceback (most recent call last)" not in survivor.partition("lost another process")[0]
    assert state.exists()
    before = state.stat().st_mtime_ns
    again = train(caches, out)
    said = finish(again)
    assert [node.returncode for node in again] == [0, 0], said
    assert "Models, report" in said[0]
    assert "Models, report" not in said[1]
    assert not state.exists()
    assert (out / "student" / "model.safetensors").stat().st_mtime_ns > before
