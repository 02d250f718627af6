"""A trained model on disk: model.safetensors with the weights, config.json with everything needed to use them.

Weights carry their task's name before the module's: "tags/input_proj.0.weight". A model of two tasks holds two sets,
see "Selection" in `m2e.train.learning.loop`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from m2e.cache.settings import ExtractionConfig
from m2e.common.checks import is_number, is_whole, require
from m2e.common.errors import DataError
from m2e.common.files import write_atomically
from m2e.common.json_files import parse_object, typed, typed_list
from m2e.common.regular import read_regular
from m2e.train.config import TASKS, Task, TrainConfig
from m2e.train.data.tensors import EmotionData
from m2e.train.model.network import EmotionModel

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "config.json"
FORMAT = 1
_DATASET = ("name", "letter", "provenance")
_LARGEST_WIDTH = 65_536
_LARGEST_CARD = 1 << 24  # thousands of tags have thousands of thresholds
LARGEST_WEIGHTS = 1 << 32


@dataclass(frozen=True)
class ModelCard:
    """What a model is and what it was made from.

    Attributes:
        train: sizes, variants and schedule.
        extraction: encoder, chord recogniser and everything else that its features depend on.
        width: of the features that it takes, all layers together.
        tag_names: of its tag logits, in order; empty without the task "tags".
        tasks: what it predicts.
        datasets: name, letter and provenance of the labels of each data set that it was trained on.
        thresholds: from which probability on each tag is given, see `m2e.train.scoring.thresholds`; empty where none
            were chosen.
    """

    train: TrainConfig
    extraction: ExtractionConfig
    width: int
    tag_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    datasets: tuple[dict[str, str], ...]
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raises DataError."""
        for name, kind in (("train", TrainConfig), ("extraction", ExtractionConfig)):
            value = getattr(self, name)
            _require(isinstance(value, kind), name, value, f"a {kind.__name__}")
        _require(is_whole(self.width, 1, _LARGEST_WIDTH), "width", self.width, f"a whole number, 1 to {_LARGEST_WIDTH}")
        names, tasks, thresholds = self.tag_names, self.tasks, self.thresholds
        texts = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        _require(texts, "tag_names", names, "a tuple of texts")
        _require(tasks in (TASKS, TASKS[:1], TASKS[1:]), "tasks", tasks, f"some of {', '.join(TASKS)}, in this order")
        _require(("tags" in tasks) == bool(names), "tag_names", names, "there where tags are predicted, and only there")
        chosen = isinstance(thresholds, tuple) and all(is_number(each, 0, 1) for each in thresholds)
        _require(
            chosen and len(thresholds) in (0, len(names)), "thresholds", thresholds, "one a tag, 0 to 1, or none at all"
        )
        for each in self.datasets:
            told = (
                isinstance(each, dict) and set(each) == set(_DATASET) and all(isinstance(x, str) for x in each.values())
            )
            _require(told, "a data set", each, f"texts for {', '.join(_DATASET)}")

    @classmethod
    def of(cls, sets: Sequence[EmotionData], config: TrainConfig, thresholds: tuple[float, ...] = ()) -> Self:
        """The card of a model trained on `sets`."""
        return cls(
            train=config,
            extraction=sets[0].extraction,
            width=sets[0].width,
            tag_names=next((data.tag_names for data in sets if data.tag_names), ()),
            tasks=tuple(task for task in TASKS if any(task in data.targets for data in sets)),
            datasets=tuple({"name": d.name, "letter": d.letter, "provenance": d.provenance} for d in sets),
            thresholds=thresholds,
        )

    @property
    def outputs(self) -> dict[Task, int]:
        """Number of outputs a task."""
        return {task: len(self.tag_names) if task == "tags" else 2 for task in self.tasks}

    def to_json(self) -> str:
        """Readable; the same card gives the same text."""
        values = {
            "format": FORMAT,
            "train": json.loads(self.train.to_json()),
            "extraction": json.loads(self.extraction.to_json()),
            "features": self.extraction.fingerprint,
            "width": self.width,
            "tag_names": self.tag_names,
            "thresholds": self.thresholds,
            "tasks": self.tasks,
            "datasets": self.datasets,
        }
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError, DataError: it is something else.
        """
        values = parse_object(text)
        if values.get("format") != FORMAT:
            raise ValueError(f"it is not a model of format {FORMAT}")
        settings = ExtractionConfig.from_values(typed(values, "extraction", dict))
        extraction = settings.of_fingerprint(typed(values, "features", str))
        if extraction is None:
            raise ValueError("its extraction settings are not those that it was trained with: it was edited")
        return cls(
            train=TrainConfig.from_values(typed(values, "train", dict)),
            extraction=extraction,
            width=typed(values, "width", int),
            tag_names=typed_list(values, "tag_names", str),
            tasks=typed_list(values, "tasks", str),  # type: ignore[arg-type]
            datasets=tuple(
                {key: typed(each, key, str) for key in _DATASET} for each in typed_list(values, "datasets", dict)
            ),
            thresholds=typed_list(values, "thresholds", float),
        )


def _require(right: bool, name: str, value: object, accepted: str) -> None:
    require(right, f"model card: {name}", value, accepted)


def read_card(folder: Path) -> ModelCard:
    """The card of a model's folder.

    Raises:
        OSError: it cannot be opened.
        DataError: it is no card that this m2e can read.
    """
    path = folder / CARD_FILE
    content = read_regular(path, _LARGEST_CARD)
    try:
        return ModelCard.from_json(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def save_model(folder: Path, models: Mapping[Task, EmotionModel], card: ModelCard) -> None:
    """Write a model's folder; equal weights give equal bytes.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    weights = {
        f"{task}/{name}": value.detach().cpu().contiguous().clone()
        for task, model in models.items()
        for name, value in model.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_FILE, save(weights))
    write_atomically(folder / CARD_FILE, card.to_json().encode())


def load_model(folder: Path) -> tuple[dict[Task, EmotionModel], ModelCard]:
    """Models in eval mode on the CPU, one a task, and their card.

    Raises:
        DataError: a file is missing or damaged, or the weights are not those of a model of this config.
    """
    try:
        card = read_card(folder)
        weights = load(read_regular(folder / WEIGHTS_FILE, LARGEST_WEIGHTS))
    except OSError as error:
        raise DataError(f"{folder} is no model folder of m2e-train: {error.strerror}: {error.filename}") from error
    except (SafetensorError, DataError) as error:
        raise DataError(f"{folder} holds no model that this m2e can read: {error}") from error
    foreign = [name for name in weights if name.partition("/")[0] not in card.tasks]
    if foreign or not all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values()):
        raise DataError(f"{folder / WEIGHTS_FILE} holds weights that are foreign or not finite float32: {foreign[:3]}")
    models: dict[Task, EmotionModel] = {}
    for task in card.tasks:
        own = {name.removeprefix(f"{task}/"): value for name, value in weights.items() if name.startswith(f"{task}/")}
        model = EmotionModel(card.train, card.width, card.outputs)
        try:
            model.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"the weights in {folder} do not fit its {CARD_FILE}: {reason}") from error
        models[task] = model.eval()
    return models, card
