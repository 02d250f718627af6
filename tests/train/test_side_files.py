"""Whatever lies in the place of a run's files: one line, no traceback, no waiting."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.caches import make_cache, make_labels
from support.odd import NO_FILES, NO_JSON, Make, put

from m2e.train.cli import main

ALL = {**NO_FILES, **NO_JSON}


def train(folder: Path, *more: str) -> Result:
    where = ["--cache", str(folder / "features"), "--device", "cpu", "--datasets", "D"]
    return CliRunner().invoke(main, [*where, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_cache(folder / "features" / "d", make_labels("d", "D", 20), signal=0.5)
    assert train(folder, "--epochs", "1", "--out", str(folder / "run")).exit_code == 0
    return folder


def assert_one_line(result: Result, name: str) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert name in last


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", ["history.json", "config.json", "model.safetensors"])
def test_a_run_that_goes_on(trained: Path, tmp_path: Path, name: str, make: Make) -> None:
    out = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    put(out / "single-D" / name, make)
    result = train(trained, "--epochs", "1", "--out", str(out))
    assert_one_line(result, "single-D")
    assert "Delete" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_state(trained: Path, tmp_path: Path, make: Make) -> None:
    out = tmp_path / "run"
    (out / "single-D").mkdir(parents=True)
    put(out / "single-D" / "state.safetensors", make)
    assert_one_line(train(trained, "--epochs", "1", "--out", str(out)), "state.safetensors")


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_that_is_tested(trained: Path, tmp_path: Path, name: str, make: Make) -> None:
    model = Path(shutil.copytree(trained / "run" / "single-D", tmp_path / "model"))
    put(model / name, make)
    assert_one_line(train(trained, "--evaluate", str(model), "--out", str(tmp_path / "out")), "model")


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_a_published_checkpoint(trained: Path, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "J.ckpt")
    result = CliRunner().invoke(main, ["--import-checkpoint", str(tmp_path / "J.ckpt"), "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert "J.ckpt" in result.stderr.splitlines()[-1]
