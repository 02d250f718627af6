"""How long a track may take in a worker process: far longer than any that is well.

A decoder that hangs in native code hears no signal and may hold the interpreter. Python's faulthandler has a thread of
its own that ends the process when the time is up; the engine then finds the track as it finds one that crashes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
from functools import cache
from io import FileIO
from pathlib import Path

# A decoder takes at least a MB/s, and the slowest encoder, on a slow core that three processes share, 6 s for 1 s of
# audio; what is on the way to them may be slow as well.
_LEAST_SECONDS = 900.0
_SECONDS_A_MEGABYTE = 10.0
_SECONDS_A_SECOND = 20.0


# How such an end shows to who started the process.
DEATH = "EXIT(1)"


class _Process:
    """This one."""

    is_worker = False


def watch() -> None:
    """From now on limits count in this process, a worker that may end."""
    _Process.is_worker = True


def allow_decoding(path: Path) -> None:
    """A file of such a size may take so long from now on."""
    _allow(_LEAST_SECONDS)  # to tell its size may take for ever, too
    with contextlib.suppress(OSError):  # whoever reads it says so
        _allow(_LEAST_SECONDS + _SECONDS_A_MEGABYTE * path.stat().st_size / 1e6)


def allow_embedding(seconds: float) -> None:
    """A track of this length may take so long from now on, with what is still to be decoded."""
    _allow(_LEAST_SECONDS + _SECONDS_A_SECOND * seconds)


def rest() -> None:
    """Nothing is being done for a track."""
    if _Process.is_worker:
        faulthandler.cancel_dump_traceback_later()


def _allow(seconds: float) -> None:
    if _Process.is_worker:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())


@cache
def _nowhere() -> FileIO:
    return FileIO(os.devnull, "w")
