"""A model folder comes back as it was, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.caches import CONFIG

from m2e.cache import DataError
from m2e.train.config import Task, TrainConfig
from m2e.train.model.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelCard, load_model, save_model
from m2e.train.model.network import EmotionModel, Inputs

CARD = ModelCard(
    train=TrainConfig.preset("paper", hidden=16, branch_hidden=8),
    extraction=CONFIG,
    width=6,
    tag_names=("happy", "traurig ü"),
    tasks=("tags", "valence_arousal"),
    datasets=({"name": "mine", "letter": "", "provenance": "by hand"},),
)


def models(card: ModelCard) -> dict[Task, EmotionModel]:
    return {task: EmotionModel(card.train, card.width, card.outputs).eval() for task in card.tasks}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "student", models(CARD), CARD)
    return tmp_path / "student"


@pytest.mark.parametrize("tasks", [("tags", "valence_arousal"), ("tags",), ("valence_arousal",)])
@pytest.mark.parametrize("preset", ["paper", "release"])
def test_models_come_back_whole(tmp_path: Path, preset: str, tasks: tuple[Task, ...]) -> None:
    names = CARD.tag_names if "tags" in tasks else ()
    card = replace(CARD, train=TrainConfig.preset(preset), tasks=tasks, tag_names=names)
    saved = models(card)
    save_model(tmp_path, saved, card)
    loaded, read = load_model(tmp_path)
    assert read == card
    ids = torch.ones(2, 100, dtype=torch.long)
    inputs = Inputs(torch.randn(2, 6), ids, ids, torch.tensor([0, 1]))
    for task in tasks:
        assert loaded[task](inputs).of(task).equal(saved[task](inputs).of(task))
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS_FILE, CARD_FILE}


def test_equal_weights_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    loaded, card = load_model(folder)
    save_model(tmp_path / "copy", loaded, card)
    for name in (WEIGHTS_FILE, CARD_FILE):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def edit(folder: Path, *keys: str, value: Any) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    place = card
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / CARD_FILE).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("format",), 2),
        (("width",), 7),
        (("width",), 10**12),
        (("width",), "6"),
        (("tag_names",), ["only one"]),
        (("tag_names",), []),
        (("tag_names",), None),
        (("tasks",), ["valence_arousal"]),
        (("tasks",), ["mood"]),
        (("datasets",), ["J"]),
        (("datasets",), [{}]),
        (("extraction", "sample_rate"), 8000),
        (("extraction", "segment_seconds"), 1e-9),
        (("train", "hidden"), 17),
        (("train", "hidden"), 10**9),
        (("train", "cls"), "zero"),
        (("train",), {}),
        (("extraction",), []),
    ],
)
def test_cards_that_do_not_fit_the_weights_are_refused(folder: Path, keys: tuple[str, ...], value: Any) -> None:
    edit(folder, *keys, value=value)
    with pytest.raises(DataError, match="student") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"width": True},
        {"tag_names": ["happy", "sad"]},
        {"tasks": ("valence_arousal", "tags")},
        {"thresholds": (0.5,)},
        {"thresholds": (0.5, float("nan"))},
        {"datasets": ({"name": "mine"},)},
        {"train": None},
        {"extraction": {}},
    ],
)
def test_cards_check_themselves(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"model card: .* it must be"):
        replace(CARD, **change)


@pytest.mark.parametrize("change", ["missing", "more", "nan", "float64", "cut", "empty", "pickle"])
def test_weights_that_do_not_fit_are_refused(folder: Path, change: str) -> None:
    path = folder / WEIGHTS_FILE
    weights = load_file(path)
    name = "tags/input_proj.0.bias"
    if change == "missing":
        del weights[name]
    elif change == "more":
        weights["other/x"] = torch.zeros(1)
    elif change == "nan":
        weights[name][0] = torch.nan
    elif change == "float64":
        weights[name] = weights[name].double()
    save_file(weights, path)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "pickle":
        torch.save(weights, path)
    with pytest.raises(DataError, match="student"):
        load_model(folder)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CARD_FILE])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=name):
        load_model(folder)


def test_broken_cards_are_refused(folder: Path) -> None:
    for text in ("", "[]", "{", "null", "\xff"):
        (folder / CARD_FILE).write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match="student"):
            load_model(folder)
