"""A training in progress on disk, so that a killed one goes on as if nothing had happened: state.safetensors.

One file, replaced as a whole: the tensors of `m2e.train.learning.loop`, and in its header the history as JSON and the
identity of what is trained. Writing takes tens of milliseconds, and short epochs are many: it happens at the first
epoch that ends some seconds after the last writing, and when training is interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from m2e.common.checks import is_whole
from m2e.common.errors import DataError
from m2e.common.files import write_atomically
from m2e.common.json_files import parse_object
from m2e.common.regular import open_regular
from m2e.train.config import TASKS
from m2e.train.learning import distributed
from m2e.train.learning.loop import History, Keeper

STATE_FILE = "state.safetensors"
LARGEST_HISTORY = 1 << 26  # a million epochs
# At least so long between two writings.
SECONDS = 15.0


def read_history(values: Any) -> History:
    """A `History` from plain JSON values.

    Raises:
        ValueError: they are something else.
    """
    try:
        history = History(**values)
        losses = [history.training, *history.validation.values()]
        right = is_whole(history.epochs, 0) and len(history.training) == history.epochs
        right &= all(isinstance(series, list) and len(series) in (0, history.epochs) for series in losses)
        right &= all(isinstance(loss, float) for series in losses for loss in series)
        right &= {*history.validation, *history.best_epoch} <= set(TASKS)
        right &= all(is_whole(epoch, 1, history.epochs) for epoch in history.best_epoch.values())
    except (TypeError, AttributeError) as error:
        raise ValueError(f"no history of a training: {error}") from error
    if not right:
        raise ValueError("no history of a training")
    return history


class StateFile(Keeper):
    """Keeps a training's state in a folder.

    Args:
        identity: of everything that decides the result; a state of anything else is not used.
        on_epoch: told of every epoch, and once of those that were restored.
    """

    def __init__(self, folder: Path, identity: str, on_epoch: Callable[[History], object]) -> None:
        self.path = folder / STATE_FILE
        self.identity, self.on_epoch = identity, on_epoch
        self._written = time.monotonic()
        self._unwritten: bytes | None = None

    def found(self) -> str | None:
        """The identity of the training that is kept in the folder, "" where none is given; None: nothing is kept.

        Raises:
            DataError: what is kept is damaged.
        """
        with self._opened() as file:
            return None if file is None else str((file.metadata() or {}).get("identity", ""))

    def restore(self) -> tuple[dict[str, Tensor], History] | None:
        with self._opened() as file:
            if file is None or (about := file.metadata() or {}).get("identity") != self.identity:
                return None
            history = read_history(parse_object(about["history"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.on_epoch(history)
        return tensors, history

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, None where there is none; what goes wrong within is a DataError."""
        try:
            try:
                open_regular(self.path).close()  # a pipe would be waited for
            except FileNotFoundError:
                yield None
                return
            with safe_open(self.path, framework="pt") as file:
                yield file
        except (OSError, SafetensorError, ValueError, KeyError, DataError) as error:
            raise DataError(f"cannot go on from {self.path}: {error}. Delete it to start this model again") from error

    def keep(self, tensors: Callable[[], dict[str, Tensor]], history: History) -> None:
        about = {"identity": self.identity, "history": json.dumps(asdict(history))}
        self._unwritten = save(tensors(), about)
        self.on_epoch(history)
        if time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._unwritten is not None and distributed.rank() == 0:
            write_atomically(self.path, self._unwritten)
            self._unwritten, self._written = None, time.monotonic()

    def remove(self) -> None:
        """The training has ended, and its result is kept elsewhere."""
        self._unwritten = None
        self.path.unlink(missing_ok=True)
