"""Whatever lies in the place of a model's or a record's file: one line, no traceback, no waiting."""

import shutil
from pathlib import Path

import pytest
from click.testing import Result
from support.lent import invoke
from support.odd import NO_FILES, NO_JSON, Make, put
from support.workspace import STUDENT

from m2e.predict.cli import main

ALL = {**NO_FILES, **NO_JSON}


def predict(song: Path, model: Path, *more: str) -> Result:
    return invoke(main, [str(song), "--model", str(model), "--jobs", "1", "--device", "cpu", *more])


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model(workspace: Path, tmp_path: Path, name: str, make: Make) -> None:
    model = Path(shutil.copytree(workspace / STUDENT, tmp_path / "model"))
    put(model / name, make)
    result = predict(workspace / "music/short.ogg", model)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert str(model) in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_record(workspace: Path, tmp_path: Path, make: Make) -> None:
    out = tmp_path / "out.jsonl"
    make(out)
    result = predict(workspace / "music/short.ogg", workspace / STUDENT, "--out", str(out))
    if make in (NO_JSON["nothing"], NO_FILES["link to nothing"]):
        assert result.exit_code == 0
        return
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2)
    assert "out.jsonl" in result.stderr.splitlines()[-1]
