"""The training loop (paper IV-B): a teacher a data set, then one student that learns from all (paper Fig. 2).

A step takes one batch from each data set, sends all through the student at once and sums the sets' losses. A set's
loss reads only the outputs of its own task, so that it updates the trunk and that branch: the selective update.

Selection: the epoch with the best validation loss, for each task by itself (its mean over the data sets that have
validation tracks). A model of two tasks therefore ends as two sets of weights, and each task is predicted with its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from m2e.common.errors import DataError
from m2e.common.float32 import float32_products
from m2e.train.config import TASKS, Task, TrainConfig
from m2e.train.data.tensors import EmotionData
from m2e.train.learning import distributed
from m2e.train.learning.graphs import StepGraphs
from m2e.train.learning.losses import distilled, task_loss
from m2e.train.learning.schedule import Batch, draw_schedule
from m2e.train.learning.teachers import freeze
from m2e.train.model.attention import Attention, plain_attention
from m2e.train.model.network import EmotionModel, Inputs, Predictions, concatenate, padding_id
from m2e.train.scoring.evaluate import validation_loss

Weights = dict[str, Tensor]
# (rows, start, stop) to a frozen teacher's outputs.
Taught = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class History:
    """What a model has gone through so far; plain JSON values.

    Attributes:
        epochs: how many were run.
        training: mean training loss a step, in every epoch.
        validation: loss a task in every epoch, empty for a task without validation tracks.
        best_epoch: the epoch with the best validation loss, from 1 on; the last where no set has validation tracks.
    """

    epochs: int = 0
    training: list[float] = field(default_factory=list)
    validation: dict[Task, list[float]] = field(default_factory=dict)
    best_epoch: dict[Task, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model; the other attributes are `History`'s.

    Attributes:
        models: for each task, the model with the weights that were best for it; in eval mode.
    """

    models: dict[Task, EmotionModel]
    best_epoch: dict[Task, int]
    validation: dict[Task, list[float]]
    epochs: int
    training: list[float]


class Keeper:
    """Is told of every epoch, and may bring back an earlier one. This one forgets; see `m2e.train.learning.state`."""

    def restore(self) -> tuple[dict[str, Tensor], History] | None:
        """What `keep` was given last, by this process or one before it."""
        return None

    def keep(self, tensors: Callable[[], dict[str, Tensor]], history: History) -> None:
        """After every epoch; `tensors` makes a copy of everything that changes in training."""

    def flush(self) -> None:
        """When training ends early, for whatever reason."""


def train_teacher(data: EmotionData, config: TrainConfig, keeper: Keeper | None = None) -> Trained:
    """Train on one data set alone: a teacher, and the paper's "single" row."""
    return _Training([data], None, config).run(keeper or Keeper())


def train_student(
    sets: Sequence[EmotionData],
    teachers: Sequence[Mapping[Task, EmotionModel]],
    config: TrainConfig,
    keeper: Keeper | None = None,
) -> Trained:
    """Train on several data sets at once, each with its own frozen teacher.

    Raises:
        DataError: the loss is no longer finite.
    """
    frozen = [freeze(models, data) for models, data in zip(teachers, sets, strict=True)]
    return _Training(sets, frozen, config).run(keeper or Keeper())


class _Training:
    """A model in training, and everything that changes with it."""

    def __init__(
        self, sets: Sequence[EmotionData], teachers: Sequence[Mapping[Task, Taught]] | None, config: TrainConfig
    ) -> None:
        self.sets, self.teachers, self.config = sets, teachers, config
        self.device = sets[0].device
        # The same for every model: a teacher does not depend on which other sets are trained in the same run.
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.outputs = output_sizes(sets)
        self.model = self._new_model()
        self.model.attention = fastest_attention(config, self.device)
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True, capturable=on_gpu
        )
        self.total = torch.zeros((), device=self.device)
        # What processes send each other is no part of a graph.
        graphed = on_gpu and distributed.size() == 1
        self.graphs = StepGraphs(self._learn, sets, config.mask_padding) if graphed else None
        # Every process starts from the same weights, and drops out by itself.
        torch.manual_seed(config.seed + distributed.rank())
        self.judges = {task: [d for d in sets if task in d.targets and len(d.splits["validation"])] for task in TASKS}
        self.history = History(validation={task: [] for task in self.outputs})
        self.best: dict[Task, Weights] = {}

    def run(self, keeper: Keeper) -> Trained:
        if kept := keeper.restore():
            try:
                self._restore(*kept)
            except (KeyError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise DataError(f"the kept state of a training does not fit its model: {reason}") from error
        try:
            with float32_products("tf32" if self.config.precision == "tf32" else "ieee"):
                while self.history.epochs < self.config.epochs and not self._out_of_patience():
                    self._epoch()
                    keeper.keep(self._tensors, self.history)
        finally:
            keeper.flush()
        history = self.history
        models = {task: self._new_model() for task in self.outputs}
        for task, model in models.items():
            model.load_state_dict(self.best[task])
            model.eval()
        return Trained(models, history.best_epoch, history.validation, history.epochs, history.training)

    def _new_model(self) -> EmotionModel:
        return EmotionModel(self.config, self.sets[0].width, self.outputs).to(self.device)

    def _epoch(self) -> None:
        self.model.train()
        self.total.zero_()
        splits, lengths = [data.splits["train"] for data in self.sets], [data.n_segments for data in self.sets]
        schedule = draw_schedule(splits, lengths, self.config, self.generator)
        if self.graphs:
            self.graphs.epoch(schedule)
        else:
            for number in range(len(schedule)):
                self._learn(schedule.step(number))
        mean = float(distributed.sum_of(self.total)) / len(schedule)
        history = self.history
        epoch = history.epochs + 1
        weights: Weights | None = None
        for task in self.outputs:
            judges = self.judges[task]
            losses = [validation_loss(self.model, data, task, self.config) for data in judges]
            now = sum(losses) / len(losses) if losses else 0.0
            if not math.isfinite(mean + now):
                raise DataError(f"the loss is no longer finite after epoch {epoch}: try a lower --lr")
            if not judges or now < min(history.validation[task], default=math.inf):
                weights = weights or {name: value.clone() for name, value in self.model.state_dict().items()}
                self.best[task], history.best_epoch[task] = weights, epoch
            if judges:
                history.validation[task].append(now)
        history.training.append(mean)
        history.epochs = epoch

    def _learn(self, step: Sequence[Batch | None], longest: int | None = None) -> None:
        """One step; `longest` as for `step_loss`."""
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16", cache_enabled=not longest
        ):
            loss = step_loss(self.model, self.sets, self.teachers, step, self.config, longest)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        distributed.sum_gradients(self.model)
        self.optimizer.step()
        self.total += loss.detach()

    def _out_of_patience(self) -> bool:
        history, patience = self.history, self.config.patience
        judged = [history.best_epoch[task] for task, losses in history.validation.items() if losses]
        return bool(patience and judged) and history.epochs - max(judged) >= patience

    def _tensors(self) -> dict[str, Tensor]:
        """A copy of all that the next epoch depends on, the history apart."""
        names = [name for name, _ in self.model.named_parameters()]
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"adam/{names[i]}/{key}": value for i, own in moments.items() for key, value in own.items()}
        tensors |= {f"best/{task}/{name}": value for task, best in self.best.items() for name, value in best.items()}
        tensors |= {"random/batches": self.generator.get_state(), "random/torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def _restore(self, tensors: dict[str, Tensor], history: History) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.history = history
        self.model.load_state_dict(under("model/"))
        names = [name for name, _ in self.model.named_parameters()]
        moments = {i: own for i, name in enumerate(names) if (own := under(f"adam/{name}/"))}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.best = {
            task: {name: value.to(self.device) for name, value in under(f"best/{task}/").items()}
            for task in self.outputs
        }
        self.generator.set_state(tensors["random/batches"])
        if distributed.rank():
            torch.manual_seed(self.config.seed + distributed.rank() + distributed.size() * history.epochs)
        else:
            torch.set_rng_state(tensors["random/torch"])
            if self.device.type == "cuda" and "random/cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random/cuda"], self.device)


def fastest_attention(config: TrainConfig, device: torch.device) -> Attention:
    """The compiled kernel for training in float32 on the CPU, torch's operations elsewhere."""
    if device.type != "cpu" or config.precision == "bf16" or "chords" not in config.inputs:
        return plain_attention
    # numba takes a while to import, which nobody but training need wait for.
    from m2e.train.model.fused_attention import fused_attention

    return fused_attention


def output_sizes(sets: Sequence[EmotionData]) -> dict[Task, int]:
    """Outputs of a model for these data sets: tasks in the order of TASKS."""
    return {
        task: sizes[0] for task in TASKS if (sizes := [d.targets[task].shape[1] for d in sets if task in d.targets])
    }


def step_loss(
    model: EmotionModel,
    sets: Sequence[EmotionData],
    teachers: Sequence[Mapping[Task, Taught]] | None,
    step: Sequence[Batch | None],
    config: TrainConfig,
    longest: int | None = None,
) -> Tensor:
    """Sum of the losses of one batch a data set; None for a set that has run dry. Of several processes, each computes
    its share, and the sum over processes is the loss.

    Args:
        longest: chords to pad every track to; None: as many as the longest of the step has.
    """
    batches: list[tuple[int, tuple[Tensor, Tensor, Tensor], float, Inputs]] = []
    for i, (data, batch) in enumerate(zip(sets, step, strict=True)):
        if batch is not None:
            own = distributed.share(batch.rows), distributed.share(batch.start), distributed.share(batch.stop)
            batches.append((i, own, len(own[0]) / len(batch.rows), data.inputs(*own, longest)))
    predicted: Predictions = model(concatenate([inputs for *_, inputs in batches], padding_id(config), longest or 0))
    losses = []
    end = 0
    for i, own, part, inputs in batches:
        start, end = end, end + len(inputs.mode)
        for task, targets in sets[i].targets.items():
            outputs = predicted.rows(start, end).of(task).to(targets.dtype)
            if not part:
                # Zero, with gradients of zero: what is trained must not depend on the process.
                losses.append(outputs.sum())
                continue
            loss = task_loss(config, task, outputs, targets[own[0].to(targets.device)], sets[i].tag_rate)
            if teachers is not None:
                loss = distilled(config, loss, outputs, teachers[i][task](*own))
            losses.append(loss * part if part < 1 else loss)
    return torch.stack(losses).sum()
