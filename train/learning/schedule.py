"""Which tracks and spans every step of an epoch takes, drawn for the whole epoch at once (paper IV-B).

A step takes a batch of each data set, each set in random order. A shorter set's pass ends within the epoch: it then has
no batches left (``exhausted = stop``) or starts another pass (``cycle``). The last batch of a pass holds what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from m2e.train.config import TrainConfig
from m2e.train.learning.spans import spans_from


@dataclass(frozen=True, eq=False)
class Batch:
    """Tracks of one data set in one step, and the segments `start` to `stop` of each [shape=(B,) each]."""

    rows: Tensor
    start: Tensor
    stop: Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps of an epoch.

    Attributes:
        rows, start, stop: of each batch, as in `Batch`; what lies beyond a batch's size means nothing
            [shape=(steps, sets, batch size) each].
        sizes: tracks of each batch, 0 for a set that has run dry [shape=(steps, sets)].
    """

    rows: Tensor
    start: Tensor
    stop: Tensor
    sizes: list[list[int]]

    def __len__(self) -> int:
        return len(self.sizes)

    def step(self, number: int) -> list[Batch | None]:
        """A batch for each data set, None for one that has run dry."""
        return [
            Batch(*(values[number, i, :size] for values in (self.rows, self.start, self.stop))) if size else None
            for i, size in enumerate(self.sizes[number])
        ]


def draw_schedule(
    splits: Sequence[Tensor], n_segments: Sequence[Tensor], config: TrainConfig, generator: torch.Generator
) -> Schedule:
    """One pass over the longest split.

    Args:
        splits: rows of each data set's train tracks [shape=(n,) each], not empty.
        n_segments: of all tracks of each data set [shape=(N,) each].
        config: batch size, law of the spans, and what becomes of shorter sets.
        generator: of the CPU.
    """
    size = config.batch_size
    passes = [-(-len(split) // size) for split in splits]
    steps = max(passes)
    rows = torch.full((steps, len(splits), size), -1)
    uniform = torch.empty(steps, len(splits), 2, size, dtype=torch.float64)
    starts = {step for n in passes for step in (range(0, steps, n) if config.exhausted == "cycle" else [0])}
    for begin, end in pairwise(sorted({*starts, steps})):
        for i, (split, n) in enumerate(zip(splits, passes, strict=True)):
            if begin % n == 0 and (begin == 0 or config.exhausted == "cycle"):
                shuffled = split.new_full((n * size,), -1)
                shuffled[: len(split)] = split[torch.randperm(len(split), generator=generator)]
                rows[begin : begin + n, i] = shuffled.view(n, size)[: steps - begin]
        # Two numbers a track: a batch's first ones, then its second ones.
        there = (rows[begin:end] >= 0)[:, :, None].expand(-1, -1, 2, -1)
        drawn = torch.rand(int(there.sum()), dtype=torch.float64, generator=generator)
        uniform[begin:end].masked_scatter_(there, drawn)
    there = rows >= 0
    rows = rows.where(there, 0)
    segments = torch.stack([n_segments[i][rows[:, i]] for i in range(len(splits))], dim=1)
    start, stop = spans_from(uniform[:, :, 0], uniform[:, :, 1], segments, config.span)
    return Schedule(rows, start, stop, there.sum(dim=2).tolist())
