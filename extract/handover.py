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

import numpy as np

from m2e.cache import ChordSequence, DataError
from m2e.cache.files import temporary_folder, temporary_name
from m2e.cache.harmony import Key
from m2e.cache.temporary import folder_for_temporaries
from m2e.extract.track import PreparedTrack

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder below has a random name and is its owner's alone
# Containers often have 64 MB there: too little for one long track.
_ROOM = 2 << 30


@dataclass(frozen=True)
class Handover:
    """A prepared track whose waves and chords are in a file; small enough for a pipe.

    Attributes:
        file: .npy arrays one after the other: lengths of the segments, their samples, and the chords' three arrays.
        path, key, duration, audio_sha256, audio_bytes: see `PreparedTrack`.
    """

    file: Path
    path: Path
    key: Key | None
    duration: float
    audio_sha256: bytes
    audio_bytes: int

    @classmethod
    def put(cls, track: PreparedTrack, folder: Path) -> Handover:
        """Write a track into `folder`. Raises DataError when there is no room."""
        file = folder / temporary_name()
        lengths = np.array([len(segment) for segment in track.segments])
        arrays = (lengths, *track.segments, track.chords.intervals, track.chords.root, track.chords.quality)
        try:
            with file.open("xb") as out:
                for array in arrays:
                    np.save(out, array, allow_pickle=False)
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror}; make room there, or set TMPDIR") from error
        return cls(file, track.path, track.key, track.duration, track.audio_sha256, track.audio_bytes)

    def take(self) -> PreparedTrack:
        """Read the track; its file is gone afterwards."""
        with self.file.open("rb") as file:
            self.file.unlink()
            lengths = np.load(file, allow_pickle=False)
            segments = [np.load(file, allow_pickle=False) for _ in lengths]
            chords = ChordSequence(*(np.load(file, allow_pickle=False) for _ in range(3)))
        return PreparedTrack(self.path, segments, chords, self.key, self.duration, self.audio_sha256, self.audio_bytes)


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
