"""Tracks that could not be extracted: JSON lines, one file a writer, read as a union."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from m2e.cache.json_lines import append_object, read_objects
from m2e.cache.types import check_id
from m2e.common.checks import is_whole, unlike

_NAME = "failures"
SETTLED = "settled"


@dataclass(frozen=True)
class Failure:
    """Why a track has no features, or no newer ones.

    Attributes:
        track_id: the track.
        path: its audio file.
        stage: "audio" (it cannot be used), "features" (something else went wrong) or "worker" (its process died);
            "settled" ends the failures that were recorded before: the cache has the features.
        reason: one line.
        audio_bytes: size of the file that failed; another size is another file, worth another attempt.
        attempts: how often the track was tried, in all runs together.
        keeps: SHA-256 in hex of the audio whose features the cache holds and kept; "" where it held none. The failure
            stands as long as these are there.
        modified: when the audio file was, in nanoseconds since 1970; 0 where an older m2e did not say.
    """

    track_id: str
    path: str
    stage: str
    reason: str
    audio_bytes: int
    attempts: int = 1
    keeps: str = ""
    modified: int = 0

    def __post_init__(self) -> None:
        check_id(self.track_id)
        for name in ("path", "stage", "reason", "keeps"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(unlike(name, getattr(self, name), "a text"))
        for name, least in (("audio_bytes", 0), ("attempts", 1), ("modified", 0)):
            if not is_whole(getattr(self, name), least):
                raise ValueError(unlike(name, getattr(self, name), f"a whole number, {least} or more"))

    @property
    def order(self) -> tuple[int, bool]:
        """The highest of a track's is the last."""
        return self.attempts, self.stage == SETTLED

    def is_of(self, path: Path, size: int, modified: int) -> bool:
        """Whether it was this very file, which was modified then (in nanoseconds), that failed."""
        return (self.audio_bytes, self.path) == (size, str(path.absolute())) and self.modified in (0, modified)

    def stands(self, audio_sha256: bytes | None) -> bool:
        """Whether nothing newer is there, where the cache has features of audio with this digest; None for none."""
        return self.stage != SETTLED and (audio_sha256 is None or self.keeps == audio_sha256.hex())


def record_failure(folder: Path, failure: Failure) -> None:
    """Append to this process's own file in `folder`; durable when it returns.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    append_object(folder, _NAME, asdict(failure))


def settle_failure(folder: Path, failure: Failure) -> None:
    """Record that a failure, and those before it, stand no longer: the cache has the features.

    Raises:
        DataError: as `record_failure`.
    """
    record_failure(folder, replace(failure, stage=SETTLED))


def read_failures(folder: Path, kept: Mapping[str, bytes] | None = None) -> dict[str, Failure]:
    """The latest attempt at every track of `folder` that failed; broken lines are passed over.

    Args:
        folder: the features folder.
        kept: the tracks whose features are there, and the digest of the audio of each; failures that stand no longer
            are left out. None: the last of each track is wanted, be it settled.

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
        if earlier is None or failure.order >= earlier.order:
            failures[failure.track_id] = failure
    return {
        track_id: failure
        for track_id, failure in failures.items()
        if kept is None or failure.stands(kept.get(track_id))
    }
