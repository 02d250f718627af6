"""The training loop (paper IV-B): a teacher a data set, then one student that learns from all (paper Fig. 2).

A step takes one batch from each data set, sends all through the student at once and sums the sets' losses. A set's
loss reads only the outputs of its own task, so that it updates the trunk and that branch: the selective update.

Selection: the epoch with the best validation loss, for each task by itself (its mean over the data sets that have
validation tracks). A model of two tasks therefore ends as two sets of weights, and each task is predicted with its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m2e.cache.errors import DataError
from m2e.train.config import TASKS, Task, TrainConfig
from m2e.train.data import EmotionData
from m2e.train.evaluate import validation_loss
from m2e.train.losses import distilled, task_loss
from m2e.train.model import EmotionModel, Inputs, Predictions, concatenate, padding_id
from m2e.train.spans import sample_spans

OnEpoch = Callable[[int], None]
Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model.

    Attributes:
        models: for each task, the model with the weights that were best for it; in eval mode.
        best_epoch: the epoch of those weights, from 1 on; the last where no set has validation tracks.
        validation: loss a task in every epoch, empty for a task without validation tracks.
        epochs: how many were run.
    """

    models: dict[Task, EmotionModel]
    best_epoch: dict[Task, int]
    validation: dict[Task, list[float]]
    epochs: int


Teacher = Mapping[Task, EmotionModel]


def train_teacher(data: EmotionData, config: TrainConfig, on_epoch: OnEpoch = lambda epoch: None) -> Trained:
    """Train on one data set alone: a teacher, and the paper's "single" row."""
    return _train([data], None, config, on_epoch)


def train_student(
    sets: Sequence[EmotionData],
    teachers: Sequence[Teacher],
    config: TrainConfig,
    on_epoch: OnEpoch = lambda epoch: None,
) -> Trained:
    """Train on several data sets at once, each with its own frozen teacher.

    Raises:
        DataError: the loss is no longer finite.
    """
    return _train(sets, teachers, config, on_epoch)


def _train(
    sets: Sequence[EmotionData], teachers: Sequence[Teacher] | None, config: TrainConfig, on_epoch: OnEpoch
) -> Trained:
    # The same for every model: a teacher does not depend on which other sets are trained in the same run.
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    device = sets[0].device
    outputs = output_sizes(sets)
    model = EmotionModel(config, sets[0].width, outputs).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    validated = {task: [d for d in sets if task in d.targets and len(d.splits["validation"])] for task in outputs}
    validation: dict[Task, list[float]] = {task: [] for task in outputs}
    best_epoch = dict.fromkeys(outputs, 0)
    best: dict[Task, Weights] = {}
    epoch = 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        total = torch.zeros((), device=device)
        for rows in epoch_batches([data.splits["train"] for data in sets], config, generator):
            loss = step_loss(model, sets, teachers, rows, config, generator)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()

        weights: Weights | None = None
        for task, judges in validated.items():
            losses = [validation_loss(model, data, task, config) for data in judges]
            loss_now = sum(losses) / len(losses) if losses else 0.0
            if not math.isfinite(float(total) + loss_now):
                raise DataError(f"the loss is no longer finite after epoch {epoch}: try a lower --lr")
            if not judges or loss_now < min(validation[task], default=math.inf):
                weights = weights or {name: value.clone() for name, value in model.state_dict().items()}
                best[task], best_epoch[task] = weights, epoch
            if judges:
                validation[task].append(loss_now)
        on_epoch(epoch)
        judged = [best_epoch[task] for task, judges in validated.items() if judges]
        if config.patience and judged and epoch - max(judged) >= config.patience:
            break

    models = {}
    for task in outputs:
        models[task] = EmotionModel(config, sets[0].width, outputs).to(device).eval()
        models[task].load_state_dict(best[task])
    return Trained(models, best_epoch, validation, epoch)


def output_sizes(sets: Sequence[EmotionData]) -> dict[Task, int]:
    """Outputs of a model for these data sets: tasks in the order of TASKS."""
    return {
        task: sizes[0] for task in TASKS if (sizes := [d.targets[task].shape[1] for d in sets if task in d.targets])
    }


def step_loss(
    model: EmotionModel,
    sets: Sequence[EmotionData],
    teachers: Sequence[Teacher] | None,
    rows: Sequence[Tensor | None],
    config: TrainConfig,
    generator: torch.Generator,
) -> Tensor:
    """Sum of the losses of one batch a data set; `rows` is None for a set that has run dry."""
    batches: list[tuple[int, Tensor, Inputs]] = []
    for i, (data, batch) in enumerate(zip(sets, rows, strict=True)):
        if batch is not None:
            start, stop = sample_spans(data.n_segments[batch], config.span, generator)
            batches.append((i, batch, data.inputs(batch, start, stop)))
    predicted: Predictions = model(concatenate([inputs for _, _, inputs in batches], padding_id(config)))
    losses = []
    end = 0
    for i, batch, inputs in batches:
        start_row, end = end, end + len(batch)
        for task, targets in sets[i].targets.items():
            outputs = predicted.rows(start_row, end).of(task)
            loss = task_loss(config, task, outputs, targets[batch.to(targets.device)], sets[i].tag_rate)
            if teachers is not None:
                with torch.no_grad():
                    taught = teachers[i][task](inputs).of(task)
                loss = distilled(config, loss, outputs, taught)
            losses.append(loss)
    return torch.stack(losses).sum()


def epoch_batches(
    splits: Sequence[Tensor], config: TrainConfig, generator: torch.Generator
) -> Iterator[list[Tensor | None]]:
    """One pass over the longest split, a batch of every split a step, each in random order.

    A shorter split gives None when its pass has ended (``exhausted = stop``), or starts another (``cycle``). The last
    batch of a pass holds what is left.
    """
    steps = max(-(-len(split) // config.batch_size) for split in splits)
    passes = [_batches(split, config, generator) for split in splits]
    for _ in range(steps):
        yield [next(batches, None) for batches in passes]


def _batches(split: Tensor, config: TrainConfig, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from split[torch.randperm(len(split), generator=generator)].split(config.batch_size)  # type: ignore[no-untyped-call]
        if config.exhausted == "stop":
            return
