"""Tracks that could not be extracted: JSON lines, one file a writer, read as a union."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from m2e.cache.checks import is_whole, unlike
from m2e.cache.errors import DataError
from m2e.cache.json_files import parse_object
from m2e.cache.regular import append_regular, open_regular
from m2e.cache.schema import check_id

MOST_BYTES = 1 << 28  # a million failures
# A line is no longer: paths and reasons are not.
_LONGEST_LINE = 1 << 17


@dataclass(frozen=True)
class Failure:
    """Why a track has no features.

    Attributes:
        track_id: the track.
        path: its audio file.
        stage: "audio" (it cannot be used), "features" (something else went wrong) or "worker" (its process died).
        reason: one line.
        audio_bytes: size of the file that failed; another size is another file, worth another attempt.
        attempts: how often the track was tried, in all runs together.
    """

    track_id: str
    path: str
    stage: str
    reason: str
    audio_bytes: int
    attempts: int = 1

    def __post_init__(self) -> None:
        check_id(self.track_id)
        for name in ("path", "stage", "reason"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(unlike(name, getattr(self, name), "a text"))
        for name, least in (("audio_bytes", 0), ("attempts", 1)):
            if not is_whole(getattr(self, name), least):
                raise ValueError(unlike(name, getattr(self, name), f"a whole number, {least} or more"))


def record_failure(folder: Path, failure: Failure) -> None:
    """Append to this process's own file in `folder`; durable when it returns.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    path = folder / f"failures-{socket.gethostname()}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with append_regular(path) as file:
            # A line of its own even after half a line, which a full disk leaves; empty lines are passed over.
            line = f"\n{json.dumps(asdict(failure))}\n".encode()
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. What was committed before is safe; "
            "make room or permit writing there, then run the same command again"
        ) from error


def read_failures(folder: Path, done: Iterable[str] = ()) -> dict[str, Failure]:
    """The latest attempt at every track of `folder` that failed and is not among `done`; broken lines are passed over.

    A kill can leave half a line at the end of a file: it is a note lost, not a cache lost.

    Raises:
        DataError: a file cannot be read, or is no regular one.
    """
    failures: dict[str, Failure] = {}
    for path in sorted(folder.glob("failures-*.jsonl")):
        for line in _lines(path):
            try:
                failure = Failure(**parse_object(line))
            except (ValueError, TypeError):
                continue
            earlier = failures.get(failure.track_id)
            if earlier is None or failure.attempts >= earlier.attempts:
                failures[failure.track_id] = failure
    for track_id in done if failures else ():
        failures.pop(track_id, None)
    return failures


def _lines(path: Path) -> Iterator[bytes]:
    """A longer line comes in pieces, none of which is a failure."""
    try:
        with io.BufferedReader(open_regular(path, MOST_BYTES)) as file:
            while line := file.readline(_LONGEST_LINE):
                yield line
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
