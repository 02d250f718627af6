"""Tracks that could not be extracted: JSON lines, one file a writer, read as a union."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """Why a track has no features.

    Attributes:
        track_id: the track.
        path: its audio file.
        stage: "audio" (it cannot be used) or "features" (something else went wrong).
        reason: one line.
        audio_bytes: size of the file that failed; another size is another file, worth another attempt.
    """

    track_id: str
    path: str
    stage: str
    reason: str
    audio_bytes: int


def record_failure(folder: Path, failure: Failure) -> None:
    """Append to this process's own file in `folder`; durable when it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"failures-{socket.gethostname()}-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(failure)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_failures(folder: Path, done: Iterable[str] = ()) -> dict[str, Failure]:
    """The latest failure of every track of `folder` that is not among `done`; broken lines are passed over.

    A kill can leave half a line at the end of a file: it is a note lost, not a cache lost.
    """
    finished = set(done)
    failures: dict[str, Failure] = {}
    for path in sorted(folder.glob("failures-*.jsonl"), key=lambda file: file.stat().st_mtime):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                failure = Failure(**json.loads(line))
            except (ValueError, TypeError):
                continue
            if failure.track_id not in finished:
                failures[failure.track_id] = failure
    return failures
