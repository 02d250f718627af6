"""Two processes under torchrun do what one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import two_processes
from support.caches import make_cache, make_labels

from m2e.cache import read_labels
from m2e.train.scoring.metrics import tag_metrics, valence_arousal_metrics

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
M2E_TRAIN = "import m2e.train.learning.state as s; s.SECONDS = 0.0\nfrom m2e.train.cli import main; main()"


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    # 23 and 12 test tracks, and train splits whose last batches two processes cannot share evenly.
    make_cache(tmp_path / "caches" / "j", make_labels("j", "J", 115, ("a", "b", "c")), signal=0.5)
    make_cache(tmp_path / "caches" / "d", make_labels("d", "D", 60), signal=0.5)
    return tmp_path / "caches"


@pytest.mark.timeout(900)
def test_two_processes_evaluate_and_train_as_one(caches: Path, tmp_path: Path) -> None:
    script = Path(two_processes.__file__)
    command = [*TORCHRUN, str(script), str(caches), str(tmp_path / "found")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    shared, alone = load_file(tmp_path / "found"), two_processes.results(caches, shared=False)
    assert shared.keys() == alone.keys()
    labels = {name: read_labels(caches / name) for name in "jd"}
    for name, measure in (("j", tag_metrics), ("d", valence_arousal_metrics)):
        test = np.array(labels[name].splits) == "test"
        truth = (labels[name].tags if name == "j" else labels[name].valence_arousal)[test]
        ours, right = (vars(measure(truth, found[name].numpy())) for found in (shared, alone))
        assert ours == pytest.approx(right, abs=1e-6)
        torch.testing.assert_close(shared[name], alone[name], rtol=0, atol=1e-6)
    for name, value in alone.items():
        if name.endswith("in_proj_bias"):
            # The gradient of a key's bias is 0 but for rounding, which Adam makes into steps of full length.
            continue
        torch.testing.assert_close(shared[name], value, rtol=1e-3, atol=1e-4, msg=name)


def start(caches: Path, out: Path, epochs: int) -> "subprocess.Popen[str]":
    code = out.parent / "train.py"
    code.write_text(M2E_TRAIN)
    options = ["--datasets", "J,D", "--cache", caches, "--out", out, "--device", "cpu", "--epochs", epochs]
    command = [*TORCHRUN, str(code), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(process: int) -> list[int]:
    """Processes that it started (Linux)."""
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_command_runs_under_torchrun_and_goes_on_after_a_killed_rank(caches: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(caches, out, 40)
    state = out / "teacher-J" / "state.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    victims = children(process.pid)
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "lost another process of this job" in said or "interrupted: finished models" in said
    assert "same command" in said
    assert state.exists()
    assert not any(Path(f"/proc/{victim}").exists() for victim in victims)
    again = start(caches, out, 40)
    _, said = again.communicate(timeout=240)
    assert again.returncode == 0, said
    # Only the first process speaks, and only it writes.
    assert said.count("Models, report") == 1
    written = {path.name for path in (out / "student").iterdir()}
    assert written == {"model.safetensors", "config.json", "history.json", "README.md"}
    assert not state.exists()
