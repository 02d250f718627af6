"""Audio that is not there, or cannot be read, when its turn comes: that says nothing about what it holds."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from m2e.common.errors import DataError

# What a path that leads to nothing says; all else says nothing about the file.
NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class UnheardError(DataError):
    """An audio file cannot be read now, or changes meanwhile; another time it may be good.

    Attributes:
        missing: there is no such file.
    """

    def __init__(self, path: Path, reason: object, missing: bool = False) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Unheard:
    """A track whose audio could not be read when its turn came. It has not failed, and the next run tries it.

    Attributes:
        track_id: the track.
        reason: one line.
        missing: there is no such file.
    """

    track_id: str
    reason: str
    missing: bool
