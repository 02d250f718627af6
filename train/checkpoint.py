"""A trained model on disk: model.safetensors with the weights, config.json with everything needed to use them.

Weights carry their task's name before the module's: "tags/input_proj.0.weight". A model of two tasks holds two sets,
see "Selection" in `m2e.train.loop`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from m2e.cache.errors import DataError
from m2e.cache.files import write_atomically
from m2e.cache.schema import ExtractionConfig
from m2e.train.config import TASKS, Task, TrainConfig
from m2e.train.data import EmotionData
from m2e.train.model import EmotionModel

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "config.json"
FORMAT = 1
_DATASET = ("name", "letter", "provenance")
_LARGEST_WIDTH = 65_536


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
        thresholds: from which probability on each tag is given, see `m2e.train.thresholds`; empty where none were
            chosen.
    """

    train: TrainConfig
    extraction: ExtractionConfig
    width: int
    tag_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    datasets: tuple[dict[str, str], ...]
    thresholds: tuple[float, ...] = ()

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
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError, DataError: it is something else.
        """
        values: dict[str, Any] = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"it is not a model of format {FORMAT}")
        try:
            card = cls(
                train=TrainConfig.from_json(json.dumps(values["train"])),
                extraction=ExtractionConfig.from_json(json.dumps(values["extraction"])),
                width=values["width"],
                tag_names=tuple(str(name) for name in values["tag_names"]),
                tasks=tuple(values["tasks"]),
                datasets=tuple({key: str(each[key]) for key in _DATASET} for each in values["datasets"]),
                thresholds=tuple(float(value) for value in values["thresholds"]),
            )
            made_with = values["features"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or of another type: {error}") from error
        if made_with != card.extraction.fingerprint:
            raise ValueError("its extraction settings are not those that it was trained with: it was edited")
        if type(card.width) is not int or not 1 <= card.width <= _LARGEST_WIDTH:
            raise ValueError(f"width is {card.width!r}; it must be a whole number, 1 to {_LARGEST_WIDTH}")
        if card.tasks not in (TASKS, TASKS[:1], TASKS[1:]) or ("tags" in card.tasks) != bool(card.tag_names):
            raise ValueError(f"tasks are {card.tasks} with {len(card.tag_names)} tag names")
        if len(card.thresholds) not in (0, len(card.tag_names)) or not all(0 <= t <= 1 for t in card.thresholds):
            raise ValueError("thresholds must be one a tag, 0 to 1, or none at all")
        return card


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
        card = ModelCard.from_json((folder / CARD_FILE).read_text(encoding="utf-8"))
        weights = load((folder / WEIGHTS_FILE).read_bytes())
    except OSError as error:
        raise DataError(f"{folder} is no model folder of m2e-train: {error.strerror}: {error.filename}") from error
    except (ValueError, SafetensorError, DataError) as error:
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
