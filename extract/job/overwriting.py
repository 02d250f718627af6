"""An --overwrite that is under way, so that one that was interrupted goes on: a file beside the features says of which
generation the records are that it makes."""

from __future__ import annotations

import json
from pathlib import Path

from m2e.cache.layout import HIGHEST_GENERATION
from m2e.cache.writer import check_generation
from m2e.common.errors import DataError
from m2e.common.files import write_atomically
from m2e.common.json_files import read_object, typed
from m2e.extract.job.part import Part


def begun(features: Path, part: Part) -> int | None:
    """The generation of the one that was interrupted; None where there is none.

    Raises:
        DataError: its file cannot be read.
    """
    path = _path(features, part)
    try:
        generation = typed(read_object(path), "generation", int)
        if not 0 < generation <= HIGHEST_GENERATION:
            raise ValueError(f"generation is {generation}, not 1 to {HIGHEST_GENERATION}")
        return generation
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}. Remove it, and --overwrite begins anew") from error


def begin(features: Path, part: Part, generation: int) -> None:
    """Write it down.

    Raises:
        DataError: the folder cannot be written, or there is no such generation.
    """
    check_generation(features.parent, generation)
    write_atomically(_path(features, part), json.dumps({"generation": generation}).encode())


def end(features: Path, part: Part) -> None:
    """All is done again that was to be."""
    path = _path(features, part)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot remove {path}: {error.strerror}") from error


def _path(features: Path, part: Part) -> Path:
    return features / f"overwrite-{part.index}-of-{part.count}.json"
