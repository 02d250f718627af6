"""Models to and from the hub, which a local stand-in plays: the real client over real HTTP, nothing beyond loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.hub import TOKEN, local_hub
from support.workspace import STUDENT

from m2e.cache import DataError
from m2e.predict.hub import FILES, find_model


def run(code: str, endpoint: str, home: Path, token: str = TOKEN) -> str:
    """What Python code prints in a process of its own: the client reads its settings when it is imported."""
    setting = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **setting}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


PUSH = """
from pathlib import Path
from m2e.cache import DataError
from m2e.predict.hub import push_model
try:
    print(push_model(Path({folder!r}), "somebody/emotions"))
except DataError as error:
    print("refused:", error)
"""
FIND = """
from m2e.cache import DataError
from m2e.predict.hub import find_model
try:
    print(find_model("somebody/emotions", {revision!r}))
except DataError as error:
    print("refused:", error)
"""


@pytest.fixture
def model(workspace: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in FILES[:2]:
        (folder / name).write_bytes((workspace / STUDENT / name).read_bytes())
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA model.\n")
    (folder / "history.json").write_text("{}")  # stays at home
    return folder


def test_a_model_comes_back_by_its_commit_even_when_another_followed(model: Path, tmp_path: Path) -> None:
    with local_hub(tmp_path / "hub") as endpoint:
        first = run(PUSH.format(folder=str(model)), endpoint, tmp_path / "home").strip()
        assert len(first) == 40
        before = {name: (model / name).read_bytes() for name in FILES}
        (model / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nAnother.\n")
        second = run(PUSH.format(folder=str(model)), endpoint, tmp_path / "home").strip()
        assert second not in (first, "")
        pinned = Path(run(FIND.format(revision=first), endpoint, tmp_path / "elsewhere").strip())
        latest = Path(run(FIND.format(revision=None), endpoint, tmp_path / "elsewhere").strip())
    assert {path.name: path.read_bytes() for path in pinned.iterdir()} == before
    assert (latest / "README.md").read_text().endswith("Another.\n")
    config = json.loads((pinned / "config.json").read_text())
    assert config["extraction"]["encoder"] == "tiny"


def test_what_goes_wrong_is_one_line(model: Path, tmp_path: Path) -> None:
    with local_hub(tmp_path / "hub") as endpoint:
        said = run(FIND.format(revision=None), endpoint, tmp_path / "home")
        assert said.startswith("refused: there is no folder somebody/emotions, and somebody/emotions cannot be fetched")
        assert said.count("\n") == 1
        said = run(PUSH.format(folder=str(model)), endpoint, tmp_path / "home", token="wrong")
        assert said.startswith(f"refused: {model} cannot be uploaded")
        assert said.count("\n") == 1
        (model / "README.md").unlink()
        assert "has no README.md" in run(PUSH.format(folder=str(model)), endpoint, tmp_path / "home")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_without_a_network_both_ways_are_one_line(model: Path, tmp_path: Path, endpoint: str) -> None:
    said = run(PUSH.format(folder=str(model)), endpoint, tmp_path / "home")
    assert said.startswith(f"refused: {model} cannot be uploaded to somebody/emotions: ")
    assert said.count("\n") == 1
    said = run(FIND.format(revision=None), endpoint, tmp_path / "home")
    assert said.startswith("refused: there is no folder somebody/emotions")
    assert said.count("\n") == 1


def test_a_folder_is_never_looked_for_on_the_hub(tmp_path: Path) -> None:
    assert find_model(tmp_path) == tmp_path
    with pytest.raises(DataError, match="which has no revision v1"):
        find_model(tmp_path, "v1")
    with pytest.raises(DataError, match="there is no folder"):
        find_model("a/b/c")
