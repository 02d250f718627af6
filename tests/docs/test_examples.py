"""The examples of docs/extending.md, run as a reader would run them."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support.documents import ROOT

from m2e import manifests
from m2e.cache import FeatureCache
from m2e.extract.encoders.registry import ARCHITECTURES, find_encoder
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models
from m2e.predict import Predictor
from m2e.train.learning.losses import TAG_LOSSES

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def here(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workspace, as the current folder; what examples register is forgotten afterwards."""
    folder = tmp_path / "here"
    shutil.copytree(workspace, folder)
    monkeypatch.chdir(folder)
    for registry in (manifests.DATASETS, TAG_LOSSES, ARCHITECTURES):
        for name, value in registry.items():
            monkeypatch.setitem(registry, name, value)
    before = [(registry, set(registry)) for registry in (manifests.DATASETS, TAG_LOSSES, ARCHITECTURES)]
    yield folder
    for registry, names in before:
        for name in set(registry) - names:
            del registry[name]


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_every_example_is_explained_and_tested() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"data_set", "encoder", "feature", "loss"}
    assert all(f"examples/{name}.py" in text for name in names)


def test_a_data_set(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data/moods").mkdir(parents=True)
    (here / "data/moods/moods.csv").write_text("song,singer,pleasant,active\na,Ann,0,100\nb,Bob,50,25\n")
    run("data_set", monkeypatch)
    first, second = capsys.readouterr().out.splitlines()
    assert "valence=1.0, arousal=9.0" in first
    assert "valence=5.0, arousal=3.0" in second
    (here / "data/moods/moods.csv").write_text("song,singer,pleasant,active\na,Ann,0,101\n")
    with pytest.raises(manifests.table.DataError, match=r"moods\.csv"):
        run("data_set", monkeypatch)


def test_an_encoder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("encoder", monkeypatch, "2")
    cache = FeatureCache.open(here / "features-of-bands/my-songs")
    features = cache.embeddings(cache.track_ids[0])
    assert features.shape == (1, 2, 32)
    assert (features >= 0).all()
    # The predictor finds the encoder by its digest, as with any other.
    predictor = Predictor.from_pretrained("runs/bands/single-my-songs", encoder=Path("weights/bands"), device="cpu")
    assert np.isfinite(predictor.predict("song.mp3").emotion.valence)


def test_a_feature(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("feature", monkeypatch)
    source = find_encoder("weights/with-loudness")
    cache = FeatureCache.open(here / "features/deam")
    config = cache.config.__class__(source.name, source.revision, chords="template")
    audio = here / "small-deam/0.flac"
    heard = Extractor.of(Models(config, source.folder, None, "cpu"))(audio).embeddings
    plain = cache.embeddings("2001")
    assert heard.shape == (*plain.shape[:2], plain.shape[2] + 1)
    np.testing.assert_array_equal(heard[..., :-1].astype(np.float16), plain.astype(np.float16))
    assert -20 < heard[0, 0, -1] < 0


def test_a_loss(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("loss", monkeypatch, "2")
    config = json.loads((here / "runs/focal/single-J/config.json").read_text())
    assert config["train"]["tag_loss"] == "focal"
    assert Predictor.from_pretrained("runs/focal/single-J", device="cpu").predict("song.mp3").emotion.tags
