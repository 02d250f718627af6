"""Many items on many workers, any of which may die: what is handed out, and what becomes of what a dead one held.

Every way to run in parallel stands behind `run_tasks`. It hands out batches to an `Engine`, which knows how workers are
started and how their death shows (`m2e.extract.workers.local` for the processes of this machine), and it decides the
rest: how large a batch is, what is done again, and which item is to blame.

A batch is sealed by the function before it returns, so what has returned is durable and results stay small. When a
worker dies, its batch alone is done again, but for the item that it took last: that one is a suspect, tried once more
when everything else is done and nothing else runs, and given up if its worker dies again. What it had taken before is
handed out one by one, since a function may take items before it works on them (`m2e.extract.workers.gpu`): who was to
blame shows then.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import Generic, Protocol, TypeVar

from m2e.common.errors import DataError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# What a worker does to a batch. It takes items from the iterator one by one, which tells the engine where it is, may
# be given fewer than there are, and returns when all that it took is durable. An exception stops the run. What it
# returns must fit into a pipe, 64 KiB: a worker killed half-way through sending more would leave the receiver waiting.
Function = Callable[[Iterator[Item]], Sequence[Outcome]]

# A batch is at most what one sealed file should hold, in tracks and in time: a death costs no more than that.
LARGEST_BATCH = 64
BATCH_SECONDS = 30.0
# Workers that die before they begin anything, one after the other, as a multiple of the workers.
_DEATHS_AT_START = 3


@dataclass(frozen=True)
class Returned(Generic[Item, Outcome]):
    """A batch whose worker has finished with it, or has died.

    Attributes:
        batch: the items handed out.
        begun: how many of them, from the first, the worker took.
        outcomes: what the function returned for those; None when the worker died.
        death: how it died, such as "SIGKILL"; "" when it did not.
    """

    batch: Sequence[Item]
    begun: int
    outcomes: Sequence[Outcome] | None
    death: str = ""


@dataclass(frozen=True)
class Lost(Generic[Item]):
    """A worker died at this item.

    Attributes:
        item: what it was working on.
        death: how it died, such as "SIGKILL".
        final: whether this was the second time, alone, and the item is given up.
    """

    item: Item
    death: str
    final: bool


class Engine(Protocol):
    """Workers, each with at most one batch."""

    @property
    def width(self) -> int:
        """How many batches it works on at once; may change during a run."""

    def submit(self, function: Function[Item, Outcome], batch: Sequence[Item]) -> None:
        """Hand a batch to a free worker; there must be one."""

    def collect(self) -> Returned[Item, Outcome]:
        """Wait for any batch to come back. Raises what the function raised."""


def run_tasks(
    function: Function[Item, Outcome], items: Iterable[Item], engine: Engine, largest_batch: int = LARGEST_BATCH
) -> Generator[Outcome | Lost[Item]]:
    """Do all `items`, in roughly their order, and give each one's outcome once it is durable.

    Leaving the generator early leaves batches with the engine's workers: close the engine, which lets them seal.

    Args:
        function: see `Function`; picklable.
        items: small, picklable and hashable, each once; taken as they are needed.
        engine: where to run.
        largest_batch: items.

    Raises:
        DataError: workers die before they begin anything; or as `function`.
    """
    again, alone, suspects, source = deque[Item](), deque[Item](), list[Item](), iter(items)
    left = length_hint(items, sys.maxsize)
    suspected: set[Item] = set()
    running = done = deaths_at_start = 0

    def take() -> list[Item]:
        if alone:
            return [alone.popleft()]
        # Small at first, so that news comes soon, and at the end, so that all workers end together.
        size = max(1, min(largest_batch, done // (2 * engine.width), left // (2 * engine.width)))
        batch = [again.popleft() for _ in range(min(size, len(again)))]
        return batch + list(islice(source, size - len(batch)))

    def put_back(items: Sequence[Item], queue: deque[Item]) -> None:
        nonlocal left
        left += len(items)
        queue.extendleft(reversed(items))

    while True:
        while running < engine.width and (batch := take()):
            engine.submit(function, batch)
            left -= len(batch)
            running += 1
        if not running:
            if not suspects:
                return
            engine.submit(function, [suspects.pop()])
            running = 1
        back: Returned[Item, Outcome] = engine.collect()
        running -= 1
        if back.outcomes is not None:
            deaths_at_start = 0
            done += back.begun
            put_back(back.batch[back.begun :], again)
            yield from back.outcomes
            continue
        put_back(back.batch[back.begun :], again)
        if not back.begun:
            deaths_at_start += 1
            if deaths_at_start >= _DEATHS_AT_START * engine.width:
                raise DataError(
                    f"worker processes die before they begin ({back.death}), most often for want of memory. What was "
                    "committed is safe: run the same command again with fewer of them on a machine (--jobs; with a "
                    "scheduler, fewer workers)"
                )
        else:
            *others, culprit = back.batch[: back.begun]
            put_back(others, alone)
            final = culprit in suspected
            if not final:
                suspected.add(culprit)
                suspects.append(culprit)
            yield Lost(culprit, back.death, final)
