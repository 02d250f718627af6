"""Tracks that could not be extracted: JSON lines, one file a writer, read as a union."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from m2e.cache.checks import is_whole, unlike
from m2e.cache.json_lines import append_object, read_objects
from m2e.cache.schema import check_id

_NAME = "failures"


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
    append_object(folder, _NAME, asdict(failure))


def read_failures(folder: Path, done: Iterable[str] = ()) -> dict[str, Failure]:
    """The latest attempt at every track of `folder` that failed and is not among `done`; broken lines are passed over.

    Raises:
        DataError: a file cannot be read, or is no regular one.
    """
    failures: dict[str, Failure] = {}
    for values in read_objects(folder, _NAME):
        try:
            failure = Failure(**values)
        except (ValueError, TypeError):
            continue
        earlier = failures.get(failure.track_id)
        if earlier is None or failure.attempts >= earlier.attempts:
            failures[failure.track_id] = failure
    for track_id in done if failures else ():
        failures.pop(track_id, None)
    return failures
