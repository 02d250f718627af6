"""JSON lines beside the feature files: one file a writer, appended to and read as a union."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m2e.common.errors import DataError
from m2e.common.json_files import parse_object
from m2e.common.regular import append_regular, open_regular

MOST_BYTES = 1 << 28  # a million lines
# A line is no longer: paths and reasons are not.
_LONGEST_LINE = 1 << 17


def append_object(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    """Append a line to this process's own file of this name in `folder`; durable when it returns.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    path = folder / f"{name}-{socket.gethostname()}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with append_regular(path) as file:
            # A line of its own even after half a line, which a full disk leaves; empty lines are passed over.
            line = f"\n{json.dumps(values)}\n".encode()
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. What was committed before is safe; "
            "make room or permit writing there, then run the same command again"
        ) from error


def read_objects(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The lines of all files of this name in `folder`; broken ones are passed over.

    A kill can leave half a line at the end of a file: it is a note lost, not a cache lost.

    Raises:
        DataError: a file cannot be read, or is no regular one.
    """
    for path in sorted(folder.glob(f"{name}-*.jsonl")):
        try:
            with io.BufferedReader(open_regular(path, MOST_BYTES)) as file:
                # A longer line comes in pieces, none of which is an object.
                while line := file.readline(_LONGEST_LINE):
                    try:
                        yield parse_object(line)
                    except ValueError:
                        continue
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
