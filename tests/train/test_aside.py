"""What another training left in a folder is renamed, never written over; what is this training's own is taken."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from support.caches import make_cache, make_labels

from m2e.cache import DataError
from m2e.train.cli import main
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import load_data, open_caches
from m2e.train.learning.loop import History
from m2e.train.learning.state import STATE_FILE
from m2e.train.run import train_all

REPORTS = {"report.json", "report.csv", "report.md", "report.html"}


def make_songs(folder: Path, seed: int = 0) -> Path:
    make_cache(folder / "songs", make_labels("songs", "", 20, ("calm", "sad"), seed))
    return folder


def run(cache: Path, out: Path, *more: str, epochs: int = 2) -> Result:
    options = ["--datasets", "songs", "--cache", str(cache), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(main, [*options, "--epochs", str(epochs), *more])
    assert result.exit_code == 0, result.output
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("other", ["settings", "cache"])
def test_a_finished_run_is_renamed_for_another_one(tmp_path: Path, other: str) -> None:
    out = tmp_path / "out"
    run(make_songs(tmp_path / "a"), out)
    before = contents(out)
    cache, epochs = (tmp_path / "a", 1) if other == "settings" else (make_songs(tmp_path / "b", seed=7), 2)
    result = run(cache, out, epochs=epochs)
    kept = contents(out / "single-songs-before-1")
    assert kept == {name.removeprefix("single-songs/"): x for name, x in before.items() if "/" in name}
    files = REPORTS | ({"config.json"} if other == "settings" else set())
    assert contents(out / "before-1") == {name: before[name] for name in files}
    assert f"note {out / 'single-songs'} holds another training: it is now" in result.stderr
    assert str(out / "before-1") in result.stderr
    history = "single-songs/history.json"
    assert contents(out)[history] != before[history]

    # The same again takes what is there, and the next one has the next number.
    names = {path.name for path in out.iterdir()}
    assert "before" not in run(cache, out, epochs=epochs).stderr
    assert {path.name for path in out.iterdir()} == names
    run(cache, out, epochs=epochs + 1)
    assert {path.name for path in out.iterdir()} == names | {"before-2", "single-songs-before-2"}
    assert contents(out / "single-songs-before-1") == kept


def stop(history: History) -> None:
    raise KeyboardInterrupt


def test_a_training_in_progress_is_renamed_for_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, out = make_songs(tmp_path / "a"), tmp_path / "out"
    config = TrainConfig.preset("paper", epochs=3)
    sets = load_data(open_caches(cache, ["songs"]), config, torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setattr("m2e.train.run._row", lambda *_: stop)
        with pytest.raises(KeyboardInterrupt):
            train_all(sets, config, out)
    state = (out / "single-songs" / STATE_FILE).read_bytes()
    run(cache, out, epochs=1)
    assert contents(out / "single-songs-before-1") == {STATE_FILE: state}

    # With its name back, it goes on.
    (out / "single-songs").rename(out / "other")
    (out / "single-songs-before-1").rename(out / "single-songs")
    assert "holds another training" not in run(cache, out, epochs=3).stderr
    assert not (out / "single-songs-before-1").exists()
    assert json.loads((out / "single-songs" / "history.json").read_text())["history"]["epochs"] == 3


def test_a_model_of_which_nobody_knows_what_it_is_is_renamed(tmp_path: Path) -> None:
    cache, out = make_songs(tmp_path / "a"), tmp_path / "out"
    run(cache, out)
    (out / "single-songs" / "history.json").unlink()
    before = contents(out / "single-songs")
    run(cache, out)
    assert contents(out / "single-songs-before-1") == before


def test_reports_of_something_else_are_kept(tmp_path: Path) -> None:
    cache, out = make_songs(tmp_path / "a"), tmp_path / "out"
    run(cache, out)
    before = contents(out)
    options = ["--datasets", "songs", "--cache", str(cache), "--out", str(out), "--device", "cpu"]
    for _ in range(2):
        result = CliRunner().invoke(main, ["--evaluate", str(out / "single-songs"), *options])
        assert result.exit_code == 0, result.output
    assert contents(out / "before-1") == {name: before[name] for name in REPORTS}
    assert not (out / "before-2").exists()
    (out / "report.json").write_text("{")
    run(cache, out)
    assert (out / "before-2" / "report.json").read_text() == "{"


def test_a_models_folder_is_no_runs(tmp_path: Path) -> None:
    cache, out = make_songs(tmp_path / "a"), tmp_path / "out"
    run(cache, out)
    before = contents(out)
    where = ["--datasets", "songs", "--cache", str(cache), "--device", "cpu", "--epochs", "1"]
    result = CliRunner().invoke(main, [*where, "--out", str(out / "single-songs")])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(
        "is a model's folder, and a run's is asked for: choose another --out"
    )
    assert contents(out) == before


def test_a_folder_that_cannot_be_renamed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, out = make_songs(tmp_path / "a"), tmp_path / "out"
    run(cache, out)
    before = contents(out / "single-songs")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    config = TrainConfig.preset("paper", epochs=1)
    sets = load_data(open_caches(cache, ["songs"]), config, torch.device("cpu"))
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DataError, match=r"single-songs-before-1: Permission denied\. Choose another --out"):
        train_all(sets, config, out)
    assert contents(out / "single-songs") == before
