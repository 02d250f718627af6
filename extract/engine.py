"""Many items on many workers, any of which may die: what is handed out, and what becomes of what a dead one held.

Every way to run in parallel stands behind `run_tasks`. It hands out batches to an `Engine`, which knows how workers
are started and how their death shows (`m2e.extract.workers` for the processes of this machine), and it decides the
rest: how large a batch is, what is done again, and which item is to blame.

A batch is sealed by the function before it returns, so what has returned is durable and results stay small. When a
worker dies, its batch alone is done again, but for the item that it was working on: that one is a suspect, tried once
more when everything else is done and nothing else runs, and given up if its worker dies again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from m2e.cache.errors import DataError

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
        begun: how many of them, from the first, the worker began; where it died, 0 if it was at none (it loaded, or
            sealed).
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
    function: Function[Item, Outcome], items: Sequence[Item], engine: Engine
) -> Generator[Outcome | Lost[Item]]:
    """Do all `items`, in roughly their order, and give each one's outcome once it is durable.

    Leaving the generator early leaves batches with the engine's workers: close the engine, which lets them seal.

    Args:
        function: see `Function`; picklable.
        items: small, picklable and hashable, each once.
        engine: where to run.

    Raises:
        DataError: workers die before they begin anything; or as `function`.
    """
    waiting, suspects = deque(items), list[Item]()
    suspected: set[Item] = set()
    running = done = deaths_at_start = 0
    while waiting or running or suspects:
        while waiting and running < engine.width:
            # Small at first, so that news comes soon, and at the end, so that all workers end together.
            size = max(1, min(LARGEST_BATCH, done // (2 * engine.width), len(waiting) // (2 * engine.width)))
            engine.submit(function, [waiting.popleft() for _ in range(size)])
            running += 1
        if not running:
            engine.submit(function, [suspects.pop()])
            running = 1
        back: Returned[Item, Outcome] = engine.collect()
        running -= 1
        if back.outcomes is not None:
            deaths_at_start = 0
            done += back.begun
            waiting.extendleft(reversed(back.batch[back.begun :]))
            yield from back.outcomes
            continue
        culprit = back.batch[back.begun - 1] if back.begun else None
        again = [item for item in back.batch if item is not culprit]
        suspects += [item for item in again if item in suspected]
        waiting.extendleft(reversed([item for item in again if item not in suspected]))
        if culprit is None:
            deaths_at_start += 1
            if deaths_at_start >= _DEATHS_AT_START * engine.width:
                raise DataError(
                    f"worker processes die before they begin ({back.death}), most often for want of memory. What was "
                    "committed is safe: run the same command again with a smaller --jobs"
                )
        else:
            final = culprit in suspected
            if not final:
                suspected.add(culprit)
                suspects.append(culprit)
            yield Lost(culprit, back.death, final)
