"""A model on one split of a data set, over the mean of all segments of each track."""

from __future__ import annotations

import torch
from torch import Tensor

from m2e.cache.schema import Split
from m2e.train.config import Task, TrainConfig
from m2e.train.data import EmotionData
from m2e.train.losses import task_loss
from m2e.train.metrics import Metrics, tag_metrics, valence_arousal_metrics
from m2e.train.model import EmotionModel

# Bounds the memory of attention over 512 chords.
_BATCH = 64


@torch.no_grad()
def predict(model: EmotionModel, data: EmotionData, split: Split, task: Task) -> Tensor:
    """Outputs for the tracks of a split, in its order [shape=(N, outputs)]; N must not be 0. Leaves the model in eval
    mode."""
    model.eval()
    parts = data.splits[split].split(_BATCH)  # type: ignore[no-untyped-call]
    return torch.cat([model(data.whole(rows)).of(task) for rows in parts])


def validation_loss(model: EmotionModel, data: EmotionData, task: Task, config: TrainConfig) -> float:
    """The task loss alone, without distillation, over the validation split."""
    outputs = predict(model, data, "validation", task)
    targets = data.targets[task][data.splits["validation"].to(data.device)]
    return float(task_loss(config, task, outputs, targets, data.tag_rate))


def measure(model: EmotionModel, data: EmotionData, task: Task) -> Metrics | None:
    """Metrics on the test split; None where it has no tracks."""
    rows = data.splits["test"]
    if not len(rows):
        return None
    outputs = predict(model, data, "test", task).cpu().numpy()
    truth = data.targets[task][rows.to(data.device)].cpu().numpy()
    return tag_metrics(truth, outputs) if task == "tags" else valence_arousal_metrics(truth, outputs)
