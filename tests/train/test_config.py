"""Presets, and what a config refuses."""

import json

import pytest

from m2e.cache import DataError
from m2e.train.config import TrainConfig


@pytest.mark.parametrize("name", ["paper", "release"])
def test_presets_survive_json(name: str) -> None:
    config = TrainConfig.preset(name, epochs=3, seed=7)
    assert TrainConfig.from_json(config.to_json()) == config
    assert (config.based_on, config.epochs, config.seed) == (name, 3, 7)


def test_presets_differ_as_documented() -> None:
    paper, release = TrainConfig.preset("paper"), TrainConfig.preset("release")
    assert paper == TrainConfig()
    assert (paper.layers, release.layers) == ((5, 6), (6, 7))
    assert (paper.exhausted, release.exhausted) == ("cycle", "stop")
    assert (paper.epochs, paper.patience, release.epochs, release.patience) == (200, 0, 500, 10)
    assert (paper.max_chords, release.max_chords) == (512, 100)
    assert (paper.span, release.span) == ("paper", "paper")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("x_chord", "maybe"),
        ("tag_loss", "hinge"),
        ("kd_weight", 1.5),
        ("kd_weight", "much"),
        ("dropout", -0.1),
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", True),
        ("hidden", 10**9),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("patience", -1),
        ("seed", -1),
        ("layers", ()),
        ("layers", (5, 5)),
        ("layers", ("5",)),
        ("mask_padding", 1),
        ("inputs", ()),
        ("inputs", ("mert", "mert")),
        ("inputs", ("key", "mert")),
        ("inputs", ("audio",)),
        ("inputs", "mert"),
        ("precision", "float16"),
        ("precision", ["float32"]),
        ("tag_loss", {}),
        ("inputs", ["mert"]),
        ("layers", [5, 6]),
        ("learning_rate", "fast"),
        ("heads", 7),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(DataError, match="training config: ") as caught:
        TrainConfig.preset("paper", **{field: value})
    assert field in str(caught.value) or field == "heads"
    assert "\n" not in str(caught.value)


def test_unknown_presets_fields_and_files_are_refused() -> None:
    with pytest.raises(DataError, match="no preset 'best'"):
        TrainConfig.preset("best")
    with pytest.raises(DataError, match="colour"):
        TrainConfig.preset("paper", colour="red")
    values = json.loads(TrainConfig().to_json())
    for text in (
        "[]",
        "{",
        "{}",
        json.dumps({**values, "x": 1}),
        json.dumps({**values, "layers": 5}),
        json.dumps({**values, "inputs": None}),
    ):
        with pytest.raises(DataError, match="training config"):
            TrainConfig.from_json(text)
