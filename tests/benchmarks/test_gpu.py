"""The benchmark of a GPU runs to its end where there is none, at toy size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(out: Path, *options: str) -> dict[str, dict[str, object]]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(out / "gpu.json") in done.stdout
    return dict(json.loads((out / "gpu.json").read_text()))


def test_the_encoder_is_measured(tmp_path: Path) -> None:
    results = run(tmp_path, "--parts", "machine,encoder")
    assert {"torch", "cores", "tflops bf16"} <= results["machine"].keys()
    assert results["encoder"].keys() == {"float32, batch 1", "bf16, batch 1"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_is_measured(tmp_path: Path) -> None:
    results = run(tmp_path)
    assert results["parity"]["MERT float32"] == 0
    extraction, training = results["extraction"], results["training"]
    assert isinstance(extraction["bf16"], dict)
    assert 0 < extraction["bf16"]["busy"] <= 1
    for preset in ("paper", "release"):
        about = training[preset]
        assert isinstance(about, dict)
        assert about["minutes of the protocol, 200 epochs"] > 0
