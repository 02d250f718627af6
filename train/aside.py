"""What another training left under the names that this one writes: it is renamed, and stays as it is."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from m2e.common.console import say
from m2e.common.errors import DataError


def set_aside(folder: Path) -> None:
    """Rename a folder to NAME-before-1 beside it, or -2 ..., and say so.

    Raises:
        DataError: it cannot be renamed.
    """
    place = _free(folder.with_name(f"{folder.name}-before"))
    try:
        folder.rename(place)
    except FileNotFoundError:  # another process was first
        return
    except OSError as error:
        raise DataError(
            f"{folder} holds another training, and cannot be renamed to {place}: {error.strerror}. Choose another --out"
        ) from error
    say(f"{folder} holds another training: it is now {place}", "note")


def set_files_aside(folder: Path, names: Iterable[str]) -> None:
    """Move those of these files that are there into before-1 in their folder, or before-2 ..., and say so.

    Raises:
        DataError: they cannot be moved.
    """
    there = [name for name in names if os.path.lexists(folder / name)]
    if not there:
        return
    place = _free(folder / "before")
    try:
        place.mkdir()
        for name in there:
            (folder / name).rename(place / name)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}: {place}") from error
    say(f"{', '.join(there)} of another run in {folder}: now in {place}", "note")


def _free(path: Path) -> Path:
    places = (path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(place for place in places if not os.path.lexists(place))
