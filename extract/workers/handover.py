"""Prepared tracks from the processes that decode to the one that has the GPU: through files in memory.

A pipe would not do: a process that is killed half-way through sending 20 MB leaves the receiver waiting.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from m2e.cache import ChordSequence, DataError
from m2e.cache.harmony import Key
from m2e.cache.notes import Note
from m2e.common.files import temporary_folder, temporary_name
from m2e.common.temporary import folder_for_temporaries
from m2e.extract.audio.sound import Wave
from m2e.extract.extractor import PreparedTrack

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder below has a random name and is its owner's alone
# Containers often have 64 MB there: too little for one long track.
_ROOM = 2 << 30


class NoRoom(DataError):
    """There is no room for waves."""


@dataclass(frozen=True)
class Handover:
    """A prepared track whose waves and chords are in a file; small enough for a pipe.

    Attributes:
        file: .npy arrays one after the other: the chords' three arrays, then the samples of each segment.
        segments: how many.
        path, key, duration, audio_sha256, audio_bytes, notes: see `PreparedTrack`.
    """

    file: Path
    segments: int
    path: Path
    key: Key | None
    duration: float
    audio_sha256: bytes
    audio_bytes: int
    notes: tuple[Note, ...]

    @classmethod
    def put(cls, track: PreparedTrack, folder: Path) -> Handover:
        """Write a track into `folder`.

        Raises:
            NoRoom: there is no room.
            DataError: a long track's file can no longer be decoded.
        """
        file = folder / temporary_name()
        chords = track.chords
        try:
            with file.open("xb") as out:
                for array in (chords.intervals, chords.root, chords.quality):
                    np.save(out, array, allow_pickle=False)
                for wave in track.segments:
                    np.save(out, wave, allow_pickle=False)
        except (OSError, DataError) as error:
            file.unlink(missing_ok=True)
            if isinstance(error, DataError):
                raise
            raise NoRoom(f"cannot write to {folder}: {error.strerror}; make room there, or set TMPDIR") from error
        return cls(
            file,
            len(track.segments),
            track.path,
            track.key,
            track.duration,
            track.audio_sha256,
            track.audio_bytes,
            track.notes,
        )

    def take(self) -> PreparedTrack:
        """Read the track, its segments one by one when they are wanted; its file has no name any more."""
        file = self.file.open("rb")
        self.file.unlink()
        chords = ChordSequence(*(np.load(file, allow_pickle=False) for _ in range(3)))
        segments = _Handed(file, self.segments)
        return PreparedTrack(
            self.path, segments, chords, self.key, self.duration, self.audio_sha256, self.audio_bytes, self.notes
        )


class _Handed:
    """The segments of a file, to be taken once."""

    def __init__(self, file: BinaryIO, segments: int) -> None:
        self._file, self._segments = file, segments

    def __len__(self) -> int:
        return self._segments

    def __iter__(self) -> Iterator[Wave]:
        with self._file:
            for _ in range(self._segments):
                yield np.load(self._file, allow_pickle=False)

    def __del__(self) -> None:
        self._file.close()


@contextmanager
def handover_folder() -> Iterator[Path]:
    """A new folder for such files: in $TMPDIR where that is set, else in memory where there is room. It is gone after
    the block.

    Raises:
        DataError: it cannot be made.
    """
    in_memory = (
        not os.environ.get("TMPDIR")
        and _IN_MEMORY.is_dir()
        and os.access(_IN_MEMORY, os.W_OK)
        and shutil.disk_usage(_IN_MEMORY).free > _ROOM
    )
    base = _IN_MEMORY if in_memory else folder_for_temporaries()
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(base))
        except DataError as error:
            raise DataError(f"{error}; set TMPDIR") from error
        yield folder
