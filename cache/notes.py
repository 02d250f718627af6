"""What there is to say of a track's audio that is no failure: it is silent, clipped, cut and kept all the same, ...

Notes stand beside the feature files, as failures do: JSON lines, one file a writer, read as a union. A line holds the
digest of the audio that was heard, and says nothing of a track whose features are of other audio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from m2e.cache.json_lines import append_object, read_objects
from m2e.common.checks import is_number
from m2e.common.json_files import typed, typed_list

_NAME = "notes"
NoteKind = Literal["cut", "damaged", "silent", "cancels", "clipped", "offset", "streams", "rate", "changes"]
NOTE_KINDS: tuple[NoteKind, ...] = get_args(NoteKind)

_TEXTS: dict[tuple[str, int], str] = {
    ("cut", 1): "it ends after {:.1f} s, without its end",
    ("cut", 2): "{:.1f} of {:.1f} s",
    ("damaged", 2): "{:.1f} s of {:.1f} s could not be decoded",
    ("silent", 0): "nothing in it is above -80 dB of full scale",
    ("cancels", 1): "mixed down, its channels cancel each other: channel {:.0f} is heard alone",
    ("clipped", 1): "{:.0%} of its samples are at its loudest level",
    ("offset", 1): "its samples are {:+.2f} of full scale on average, not 0",
    ("streams", 2): "it has {:.0f} audio streams: number {:.0f} is heard",
    ("rate", 1): "its sample rate is {:.0f} Hz",
    ("changes", 1): "its sample rate or channels change on the way ({:.0f} times)",
}


@dataclass(frozen=True)
class Note:
    """One thing to say of a track's audio.

    Attributes:
        kind: what.
        numbers: what it is measured by: of "cut" the seconds that were heard, and that there should be where that is
            known; of "damaged" the seconds that are lost, and all; of "cancels" the channel that is heard, from 1 on;
            of "clipped" a share; of "offset" the mean, where full scale is 1; of "streams" how many, and which one is
            heard, from 1 on; of "rate" Hz; of "changes" how many.
    """

    kind: NoteKind
    numbers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.numbers, tuple) or (self.kind, len(self.numbers)) not in _TEXTS:
            raise ValueError(f"a note is one of {', '.join(NOTE_KINDS)} with its numbers, not {repr(self.kind)[:80]}")
        if not all(is_number(number, -math.inf, math.inf) for number in self.numbers):
            raise ValueError(f"a note's numbers are finite, not {self.numbers!r}")

    def __str__(self) -> str:
        return f"{self.kind}: {_TEXTS[self.kind, len(self.numbers)].format(*self.numbers)}"

    def as_json(self) -> dict[str, Any]:
        """Plain values: `kind`, `numbers`, and `text` for people."""
        return {"kind": self.kind, "numbers": [round(number, 4) for number in self.numbers], "text": str(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`. Raises ValueError for anything else."""
        kind = typed(values, "kind", str)
        return cls(cast(NoteKind, kind), typed_list(values, "numbers", float))


def are_notes(values: object) -> bool:
    """Whether it is a tuple of notes."""
    return isinstance(values, tuple) and all(isinstance(value, Note) for value in values)


def record_notes(folder: Path, track_id: str, audio_sha256: bytes, notes: Sequence[Note]) -> None:
    """Append to this process's own file in `folder`; durable when it returns.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    values = {"track_id": track_id, "audio_sha256": audio_sha256.hex(), "notes": [note.as_json() for note in notes]}
    append_object(folder, _NAME, values)


def read_notes(folder: Path, heard: Mapping[str, bytes]) -> dict[str, tuple[Note, ...]]:
    """The notes of tracks; broken lines, and such with notes of a newer m2e, are passed over.

    Args:
        folder: with the features.
        heard: of each track that it holds, the digest of the audio that was heard.

    Raises:
        DataError: a file cannot be read, or is no regular one.
    """
    found: dict[str, tuple[Note, ...]] = {}
    for values in read_objects(folder, _NAME):
        try:
            track_id, digest, notes = (
                typed(values, "track_id", str),
                typed(values, "audio_sha256", str),
                typed_list(values, "notes", dict),
            )
            if heard.get(track_id, b"").hex() == digest:
                found[track_id] = tuple(map(Note.from_json, notes))
        except ValueError:
            continue
    return found
