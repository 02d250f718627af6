"""The functions behind m2e-train: from Python they do what the command does, and leave the process as it was."""

import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from support.caches import make_cache, make_labels

from m2e.cache import DataError
from m2e.train import evaluate, reproduce, train
from m2e.train.cli import main


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    make_cache(folder / "one", make_labels("one", "J", 60, ("calm", "sad"), seed=1), signal=1)
    make_cache(folder / "two", make_labels("two", "D", 40, seed=2, prefix="r"), signal=1)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All that does not say how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".safetensors", ".csv", ".md")
    } | {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("config.json")}


def test_the_command_and_the_functions_give_the_same_files(cache: Path, tmp_path: Path) -> None:
    common = ["--datasets", "J,D", "--cache", str(cache), "--device", "cpu"]
    CliRunner().invoke(main, [*common, "--epochs", "2", "--out", str(tmp_path / "a")], catch_exceptions=False)
    threads = torch.get_num_threads()
    found = train(["J", "D"], cache, tmp_path / "b", epochs=2, device="cpu")
    assert torch.get_num_threads() == threads
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(found.models) == {"teacher-J", "teacher-D", "student"}
    assert found.folder == tmp_path / "b"
    student = tmp_path / "b" / "student"
    CliRunner().invoke(main, ["--evaluate", str(student), *common, "--out", str(tmp_path / "c")])
    tested = evaluate(str(student), ["J", "D"], str(cache), tmp_path / "d", device="cpu")
    assert files(tmp_path / "c") == files(tmp_path / "d")
    frame = tested.report.to_frame()
    written = pd.read_csv(tested.folder / "report.csv", dtype={"inputs": str, "seeds": str})
    pd.testing.assert_frame_equal(frame, written, check_dtype=False, check_column_type=False, rtol=1e-12)


def test_what_cannot_be_done_is_an_exception(cache: Path, tmp_path: Path) -> None:
    for wrong in (
        lambda: train(["J"], cache, tmp_path / "x", epochs=0),
        lambda: train(["J"], cache, tmp_path / "x", preset="papers"),
        lambda: train(["nothing"], cache, tmp_path / "x"),
        lambda: reproduce(5, cache, tmp_path / "x"),
        lambda: evaluate(tmp_path / "none", ["J"], cache, tmp_path / "x"),
    ):
        with pytest.raises(DataError):
            wrong()


def test_threads_train_side_by_side(cache: Path, tmp_path: Path) -> None:
    folders = [tmp_path / str(i) for i in range(2)]
    threads = [
        threading.Thread(target=train, args=(["D"], cache, folder), kwargs={"epochs": 2, "device": "cpu"})
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(folders[0]) == files(folders[1])
    assert (folders[0] / "report.json").is_file()
