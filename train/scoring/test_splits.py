"""Models on test splits: those of a run, and a checkpoint, ours or a published one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from m2e.common.errors import DataError
from m2e.train.config import Task, TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.model.checkpoint import ModelCard, load_model
from m2e.train.model.network import EmotionModel
from m2e.train.model.released import read_released
from m2e.train.report.report import Report, make_report
from m2e.train.run import Run
from m2e.train.scoring.evaluate import Evaluation, Made, evaluate


def score_run(run: Run, sets: Sequence[EmotionData], config: TrainConfig) -> list[Evaluation]:
    """Every model of a run on its data sets, data set by data set, the student's first."""
    kind = "single" if run.student is None else "teacher"
    made = partial(Made, inputs=config.inputs, seeds=(config.seed,))
    found: list[Evaluation] = []
    if run.student is not None:
        found += evaluate(made("student", tuple(data.label for data in sets)), [run.student.models], sets)
    for data in sets:
        found += evaluate(made(kind, (data.label,)), [run.teachers[data.label].models], [data])
    order = [data.name for data in sets]
    return sorted(found, key=lambda each: order.index(each.data.name))


def open_checkpoint(path: Path) -> tuple[dict[Task, EmotionModel], ModelCard, tuple[int, ...]]:
    """Models, card and seed of a folder of m2e-train, or of a published checkpoint, whose seed is not known.

    Raises:
        DataError: it is neither.
    """
    if path.is_dir():
        models, card = load_model(path)
        return models, card, (card.train.seed,)
    return *read_released(path), ()


def score_checkpoint(
    path: Path,
    cache: Path,
    names: Sequence[str],
    device: torch.device,
    features: str | None = None,
    allow_missing: bool = False,
) -> Report:
    """Test the model at `path` on the data sets `names` (letters or names) among the caches in `cache`.

    Args:
        allow_missing: test on what has features, though more than a tenth of the test tracks has none.

    Raises:
        DataError: the checkpoint or a cache cannot be used, or they do not fit each other.
    """
    models, card, seeds = open_checkpoint(path)
    caches = open_caches(cache, names, features)
    sets = load_data(caches, card.train, device, to_learn=False, allow_missing=allow_missing)
    different = _check(path, card, sets)
    trained_on = tuple(data["letter"] or data["name"] for data in card.datasets)
    others, unknown = _others(card, sets, cache, features)
    made = Made(path.resolve().name, trained_on, card.train.inputs, seeds)
    placed = {task: model.to(device) for task, model in models.items()}
    return make_report(
        f"{made.model} on {', '.join(data.name for data in sets)}",
        evaluate(made, [placed], sets),
        sets,
        card.train,
        str(device),
        seeds=seeds,
        trained=others,
        more_cautions=different,
        left_out=unknown,
    )


def _check(path: Path, card: ModelCard, sets: Sequence[EmotionData]) -> list[str]:
    """A line on the settings in which the model's features and the caches differ.

    Raises:
        DataError: the model cannot take these features, or does not predict these labels.
    """
    for data in sets:
        if data.width != card.width:
            raise DataError(
                f"{path} takes features {card.width} wide, of {card.extraction.encoder}; "
                f"the cache of {data.name} has {data.width} of {data.extraction.encoder}: extract with that encoder"
            )
        if not set(card.tasks) & set(data.targets):
            raise DataError(f"{path} predicts {' and '.join(card.tasks)}; {data.name} has {' and '.join(data.targets)}")
        if "tags" in card.tasks and "tags" in data.targets and data.tag_names != card.tag_names:
            raise DataError(
                f"{path} predicts {len(card.tag_names)} tags, {_some(card.tag_names)}; "
                f"{data.name} has {len(data.tag_names)}, {_some(data.tag_names)}: they cannot be compared"
            )
    # Which layers a cache holds besides those that the model takes makes no difference.
    differences = sets[0].extraction.differences(card.extraction)
    told = [line for line in differences if not line.startswith("layers:")]
    return [f"features made with other settings than the model's: {'; '.join(told)}"] if told else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _others(
    card: ModelCard, sets: Sequence[EmotionData], cache: Path, features: str | None
) -> tuple[list[EmotionData], list[str]]:
    """Data sets that the model was trained on and is not tested on here, and a line on those that are not at hand."""
    found: list[EmotionData] = []
    missing: list[str] = []
    for about in card.datasets:
        if about["name"] in {data.name for data in sets}:
            continue
        try:
            caches = open_caches(cache, [about["name"]], features)
            found += load_data(caches, card.train, sets[0].device, to_learn=False, allow_missing=True)
        except DataError:
            missing.append(about["name"])
    if not card.datasets:
        return found, ["test clips that were trained on: the checkpoint does not say what it was trained on"]
    if missing:
        return found, [f"test clips that were trained on as part of {', '.join(missing)}: no usable cache in {cache}"]
    return found, []
