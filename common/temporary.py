"""Where temporary files go, and one that is gone in the end whatever happens to the disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from m2e.common.errors import DataError


def folder_for_temporaries() -> Path:
    """$TMPDIR where it is set, and nowhere else then: Python itself would quietly take another.

    Raises:
        DataError: there is none that can be written to.
    """
    named = os.environ.get("TMPDIR")
    if not named:
        try:
            return Path(tempfile.gettempdir())
        except FileNotFoundError as error:
            raise DataError("there is no folder for temporary files: set TMPDIR to one") from error
    folder = Path(named).absolute()
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"TMPDIR is {named}, which is no folder that can be written to: set it to one")
    return folder


@contextlib.contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """A new file, open for writing, for the length of the block; its path is its `name`.

    Raises:
        OSError: there is no room.
        DataError: as `folder_for_temporaries`.
    """
    descriptor, name = tempfile.mkstemp(prefix="m2e-", dir=folder_for_temporaries())
    file = open(name, "wb", opener=lambda path, flags: descriptor)  # noqa: SIM115 - a Path takes no opener
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # what a full disk did not take, it does not take now
            file.close()
        Path(name).unlink(missing_ok=True)
