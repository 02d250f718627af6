"""A model on one split of a data set, over the mean of all segments of each track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2e.cache.types import Split
from m2e.common.float32 import float32_products
from m2e.train.config import Input, Task, TrainConfig
from m2e.train.data.tensors import EmotionData
from m2e.train.learning import distributed
from m2e.train.learning.losses import task_loss
from m2e.train.model.network import EmotionModel
from m2e.train.scoring.metrics import Metrics, tag_metrics, valence_arousal_metrics

# Bounds the memory of attention over 512 chords; a GPU, which waits for each batch to be launched, has more.
_BATCH = {"cpu": 64, "cuda": 512}


@torch.no_grad()
def predict(model: EmotionModel, data: EmotionData, split: Split, task: Task, shared: bool = False) -> Tensor:
    """Outputs for the tracks of a split, in its order [shape=(N, outputs)]; N must not be 0. Leaves the model in eval
    mode.

    Args:
        shared: all processes of the job ask for it: each computes its share, and all get all of it.
    """
    model.eval()

    def outputs(rows: Tensor) -> Tensor:
        parts = rows.split(_BATCH[data.device.type])  # type: ignore[no-untyped-call]
        return torch.cat([model(data.whole(part)).of(task) for part in parts])

    return distributed.gather(outputs, data.splits[split]) if shared else outputs(data.splits[split])


def validation_loss(model: EmotionModel, data: EmotionData, task: Task, config: TrainConfig) -> float:
    """The task loss alone, without distillation, over the validation split; computed by all processes of the job
    together."""
    outputs = predict(model, data, "validation", task, shared=True)
    targets = data.targets[task][data.splits["validation"].to(data.device)]
    return float(task_loss(config, task, outputs, targets, data.tag_rate))


def measure(model: EmotionModel, data: EmotionData, task: Task) -> Metrics | None:
    """Metrics on the test split; None where it has no tracks."""
    return metrics(task, true_labels(data, task), outputs_on_test(model, data, task))


def metrics(task: Task, truth: NDArray[np.float32], outputs: NDArray[np.float32]) -> Metrics | None:
    """Metrics of a model's outputs [shape=(N, K) both]; None of no tracks."""
    if not len(truth):
        return None
    return tag_metrics(truth, outputs) if task == "tags" else valence_arousal_metrics(truth, outputs)


def true_labels(data: EmotionData, task: Task) -> NDArray[np.float32]:
    """Labels of the test tracks [shape=(N, K)]."""
    return data.targets[task][data.splits["test"].to(data.device)].cpu().numpy()


def outputs_on_test(model: EmotionModel, data: EmotionData, task: Task) -> NDArray[np.float32]:
    """What a model says of the test tracks [shape=(N, K)]; N may be 0."""
    if not len(data.splits["test"]):
        return np.zeros((0, data.targets[task].shape[1]), np.float32)
    with float32_products("ieee"):
        return predict(model, data, "test", task).cpu().numpy()


@dataclass(frozen=True)
class Made:
    """How models were made that differ in their seeds alone.

    Attributes:
        model: "student", "teacher", "single" where nothing was distilled, or the name of a checkpoint.
        trained_on: labels (letter, or name) of the data sets.
        inputs: what it sees.
        seeds: of each of S models; empty where one is not known.
    """

    model: str
    trained_on: tuple[str, ...]
    inputs: tuple[Input, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Models on the test split of a data set.

    Attributes:
        made: the models.
        data: the data set.
        task: what is measured.
        truth: labels [shape=(N, K)].
        outputs: of each model [shape=(S, N, K)].
    """

    made: Made
    data: EmotionData
    task: Task
    truth: NDArray[np.float32]
    outputs: NDArray[np.float32]


def evaluate(
    made: Made, models: Sequence[Mapping[Task, EmotionModel]], sets: Sequence[EmotionData]
) -> list[Evaluation]:
    """Outputs on the test split of each data set, each task with its own weights; tasks that either lacks are left out.

    Args:
        models: one a seed of `made`.
    """
    return [
        Evaluation(
            made,
            data,
            task,
            true_labels(data, task),
            np.stack([outputs_on_test(model[task], data, task) for model in models]),
        )
        for data in sets
        for task in data.targets
        if task in models[0]
    ]
