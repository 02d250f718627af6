"""Worker processes that outlive a command, since most of a short command's time goes into starting them.

`invoke` lends those of one command to the next in the same pytest process. They are m2e's own, started by its own
code; a worker that was at work when its command ended is not kept, nor is one of another environment or folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from m2e.extract.workers.local import LocalWorkers

_MOST = 2
# What idle workers were started in, and they.
_idle: list[tuple[object, Any]] = []


def invoke(command: click.Command, arguments: Sequence[str], **options: Any) -> Result:
    """As click's CliRunner does it."""
    with _lent_workers():
        return CliRunner().invoke(command, arguments, **options)


def _surroundings() -> object:
    return Path.cwd(), {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _answers(pool: Any) -> bool:
    """A process can die after its command has ended, too."""
    try:
        return bool(pool.submit(bool, 1).result())
    except (BrokenExecutor, RuntimeError):
        return False


@contextmanager
def _lent_workers() -> Iterator[None]:
    start, end = LocalWorkers._pool, LocalWorkers.kill

    def lend(self: LocalWorkers, slot: int) -> Any:
        now = _surroundings()
        while slot not in self._pools and _idle:
            where, pool = _idle.pop()
            if where == now and _answers(pool):
                self._pools[slot] = pool
            else:
                pool.shutdown(wait=True)
        return start(self, slot)

    def keep(self: LocalWorkers) -> None:
        for slot in self._free:
            if slot in self._pools and len(_idle) < _MOST:
                _idle.append((_surroundings(), self._pools.pop(slot)))
        end(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWorkers, "_pool", lend)
        patch.setattr(LocalWorkers, "kill", keep)
        yield
