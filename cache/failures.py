"""Tracks that could not be extracted: JSON lines, one file a writer, read as a union."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from m2e.cache.errors import DataError


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
        texts = (self.track_id, self.path, self.stage, self.reason)
        if not all(type(text) is str for text in texts) or {type(self.audio_bytes), type(self.attempts)} != {int}:
            raise TypeError("a failure holds texts and whole numbers")


def record_failure(folder: Path, failure: Failure) -> None:
    """Append to this process's own file in `folder`; durable when it returns.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    path = folder / f"failures-{socket.gethostname()}-{os.getpid()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            # A line of its own even after half a line, which a full disk leaves; empty lines are passed over.
            file.write("\n" + json.dumps(asdict(failure)) + "\n")
            file.flush()
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
        DataError: a file cannot be read.
    """
    failures: dict[str, Failure] = {}
    for path in sorted(folder.glob("failures-*.jsonl")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        for line in text.splitlines():
            try:
                failure = Failure(**json.loads(line))
            except (ValueError, TypeError):
                continue
            earlier = failures.get(failure.track_id)
            if earlier is None or failure.attempts >= earlier.attempts:
                failures[failure.track_id] = failure
    for track_id in done if failures else ():
        failures.pop(track_id, None)
    return failures
