"""A model's README says what the model is, and what may be done with it."""

import json
import re
from pathlib import Path

import pytest
from support.caches import CONFIG
from support.workspace import RUN

from m2e.cache import ExtractionConfig
from m2e.train.config import TrainConfig
from m2e.train.model.checkpoint import ModelCard
from m2e.train.model.released import EXTRACTION
from m2e.train.report.model_card import model_card

LABELS = {"name": "deam", "letter": "D", "provenance": "official labels, split of the paper"}


def card(extraction: ExtractionConfig, thresholds: tuple[float, ...] = ()) -> ModelCard:
    return ModelCard(
        TrainConfig(), extraction, 16, ("calm", "dark"), ("tags", "valence_arousal"), (LABELS,), thresholds
    )


def test_merts_licence_and_what_follows() -> None:
    text = model_card(card(EXTRACTION))
    assert text.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert "MERT's weights are CC BY-NC 4.0" in text
    assert "bound by the same terms" in text
    other = model_card(card(CONFIG))
    assert other.startswith("---\nlicense: other\n")
    assert "CC BY-NC" not in other


def test_the_features_and_the_labels_are_named() -> None:
    text = model_card(card(EXTRACTION))
    for fact in (EXTRACTION.encoder_revision, EXTRACTION.chords_revision, "hidden states 5, 6", LABELS["provenance"]):
        assert fact in text
    assert "SYNTHETIC" not in text
    assert "Scores" not in text


@pytest.mark.parametrize("model", ["student", "teacher-J", "teacher-D"])
def test_a_trained_models_card_has_its_own_scores_and_thresholds(workspace: Path, model: str) -> None:
    folder = workspace / RUN
    text = (folder / model / "README.md").read_text()
    assert "SYNTHETIC" in text
    assert "untrained" in text
    results = json.loads((folder / "report.json").read_text())["results"]
    own = [result for result in results if result["metrics"] and model.startswith(result["model"])]
    own = [result for result in own if model == "student" or result["trained_on"] == [model[-1]]]
    shown = re.findall(r"^\| (\S+) \(.*\) \| (.+?) \| (\S+) \|", text, re.MULTILINE)
    assert len(shown) == sum(len(result["metrics"]) for result in own)
    for result in own:
        for value in result["metrics"].values():
            number = "-" if value is None else f"{value:.4f}"
            assert number in [score for name, _, score in shown if name == result["dataset"]]
    config = json.loads((folder / model / "config.json").read_text())
    for name, threshold in zip(config["tag_names"], config["thresholds"], strict=True):
        assert f"| {name} | {threshold:.3f} |" in text
    assert bool(config["thresholds"]) == (model != "teacher-D")
