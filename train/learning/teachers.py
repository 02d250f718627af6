"""A frozen teacher, with all that does not change from step to step computed once.

Chords and key are the same for every span of a track, and the trunk's first layer is linear: applied to the prefix sums
of features, it gives the prefix sums of its outputs. What is left for a step is a difference of two rows, a ReLU and
the branch. Exact: the teacher sees the same span as the student, and only rounding differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from m2e.train.config import Task
from m2e.train.data.tensors import EmotionData
from m2e.train.learning.spans import span_means
from m2e.train.model.network import EmotionModel

# Bounds the memory of attention over 512 chords.
_BATCH = 64


@dataclass(frozen=True, eq=False)
class FrozenTeacher:
    """One teacher on its own data set, for one task.

    Attributes:
        sums: prefix sums of what features bring to the first layer; None where the model sees no features
            [shape=(S + N, hidden)].
        base: first row of each track there.
        fixed: what chords, key and bias bring to it [shape=(N, hidden)].
        rest: everything after the first layer.
    """

    sums: Tensor | None
    base: Tensor
    fixed: Tensor
    rest: nn.Module

    @classmethod
    @torch.no_grad()
    def of(cls, model: EmotionModel, data: EmotionData, task: Task) -> Self:
        """Prepare `model`, which is in eval mode and must not change any more."""
        first = model.first_layer
        width = data.width if "mert" in model.inputs else 0
        features, harmony = first.weight[:, :width], first.weight[:, width:]
        fixed = [
            torch.cat([data.sums.new_zeros(len(rows), 0), *model.harmony(data.whole(rows))], dim=1) @ harmony.T
            for rows in torch.arange(len(data.base)).split(_BATCH)  # type: ignore[no-untyped-call]
        ]
        return cls(
            sums=data.sums @ features.T if width else None,
            base=data.base,
            fixed=torch.cat(fixed) + first.bias,
            rest=model.after_first_layer(task),
        )

    @torch.no_grad()
    def __call__(self, rows: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        """Outputs for segments `start` to `stop` of the tracks `rows` [shape=(B, outputs)]."""
        rows, start, stop = (each.to(self.fixed.device, non_blocking=True) for each in (rows, start, stop))
        hidden = self.fixed[rows]
        if self.sums is not None:
            hidden = hidden + span_means(self.sums, self.base[rows], start, stop)
        outputs: Tensor = self.rest(hidden)
        return outputs


def freeze(models: Mapping[Task, EmotionModel], data: EmotionData) -> dict[Task, FrozenTeacher]:
    """A data set's teacher, prepared for each of its tasks."""
    return {task: FrozenTeacher.of(models[task], data, task) for task in data.targets}
