"""Steps of a training on a GPU as CUDA graphs: one launch a step, where one by one there are some 500.

A graph repeats the very operations that it has recorded, on the same memory. So there is one for every shape of a step:
how many tracks of each data set, and to how many chords they are padded. Which tracks and spans a step takes stands in
a table on the device, and in which of its rows a step finds them is counted there, too: the host only launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from m2e.train.data.tensors import EmotionData
from m2e.train.learning.schedule import Batch, Schedule

# Chords are padded so that with their CLS they are a multiple of it: few shapes, and sizes that attention likes.
_MULTIPLE = 64

# A step on batches that are on the device, chords padded to a length.
Learn = Callable[[Sequence[Batch | None], int], None]
Shape = tuple[tuple[int, ...], int]


class StepGraphs:
    """The steps of one training. On a CPU they are done one by one, from the same table.

    Args:
        learn: does a step; all that it reads and changes stays where it is.
        sets: that the steps take batches of; their device is the graphs'.
        masked: whether padding is, so that there may be any amount of it.
    """

    def __init__(self, learn: Learn, sets: Sequence[EmotionData], masked: bool) -> None:
        self._learn, self._sets, self._masked = learn, sets, masked
        device = sets[0].device
        self._table = torch.empty(0, dtype=torch.long, device=device)
        self._row = torch.zeros(1, dtype=torch.long, device=device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._graphs: dict[Shape, torch.cuda.CUDAGraph | None] = {}

    def epoch(self, schedule: Schedule) -> None:
        """Do all steps; returns before a GPU has done them."""
        table = torch.stack([schedule.rows, schedule.start, schedule.stop], dim=1)  # (steps, 3, sets, batch)
        if self._table.shape != table.shape:
            self._table = self._table.new_empty(table.shape)
        self._table.copy_(table)
        self._row.zero_()
        if self._stream is None:
            for shape in self._shapes(schedule):
                self._step(shape)
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for shape in self._shapes(schedule):
                self._launch(shape, self._stream)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _shapes(self, schedule: Schedule) -> list[Shape]:
        sizes = torch.tensor(schedule.sizes)
        there = torch.arange(schedule.rows.shape[2]) < sizes[:, :, None]
        counts = [data.n_chords[schedule.rows[:, i]] for i, data in enumerate(self._sets)]
        longest = torch.stack(counts, dim=1).where(there, 0).amax(dim=(1, 2))
        if self._masked:
            widest = max(data.root.shape[1] for data in self._sets)
            longest = ((longest // _MULTIPLE + 1) * _MULTIPLE - 1).clamp(max=widest)
        return [(tuple(size), length) for size, length in zip(schedule.sizes, longest.tolist(), strict=True)]

    def _launch(self, shape: Shape, stream: torch.cuda.Stream) -> None:
        """The first step of a shape as it is: libraries set themselves up in it. The second is recorded."""
        if shape not in self._graphs:
            self._graphs[shape] = None
            self._step(shape)
            return
        graph = self._graphs[shape]
        if graph is None:
            # Nothing outlives a step in the memory that graphs work in, so that they can share it.
            pool = next((each.pool() for each in self._graphs.values() if each), None)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool, stream):
                self._step(shape)
            self._graphs[shape] = graph
        graph.replay()

    def _step(self, shape: Shape) -> None:
        sizes, longest = shape
        rows, start, stop = self._table.index_select(0, self._row)[0]
        batches = [
            Batch(rows[i, :size], start[i, :size], stop[i, :size]) if size else None for i, size in enumerate(sizes)
        ]
        self._learn(batches, longest)
        self._row += 1
