"""Chords and keys: one vocabulary for the recognisers, the cache and the trainer.

Conventions
-----------
- Pitch classes are 0-11 with C = 0; names use sharps.
- A chord is (root 0-11, quality 0-13), qualities in the order of BTC's large vocabulary (``QUALITIES``);
  no chord, "N", is (-1, -1) and a chord outside the vocabulary, "X", is (-2, -2).
- Label syntax is Harte's, as mir_eval reads it ("C:min7"); a major triad is written as its bare root ("C").
- BTC's class number is 14 * root + quality; X is 168 and N is 169 (jayg996/BTC-ISMIR19).
- Times are seconds from the start of the track.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2e.common.checks import is_one_of, is_whole

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
# Each quality's notes, in semitones above the root.
_VOCABULARY = {
    "min": (0, 3, 7),
    "maj": (0, 4, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "min6": (0, 3, 7, 9),
    "maj6": (0, 4, 7, 9),
    "min7": (0, 3, 7, 10),
    "minmaj7": (0, 3, 7, 11),
    "maj7": (0, 4, 7, 11),
    "7": (0, 4, 7, 10),
    "dim7": (0, 3, 6, 9),
    "hdim7": (0, 3, 6, 10),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
}
QUALITIES = tuple(_VOCABULARY)
QUALITY_INTERVALS = tuple(_VOCABULARY.values())
NO_CHORD = -1
UNKNOWN_CHORD = -2
N_CHORD_CLASSES = len(PITCH_CLASSES) * len(QUALITIES) + 2

Mode = Literal["major", "minor"]
MODES: tuple[Mode, ...] = get_args(Mode)


def chord_label(root: int, quality: int) -> str:
    """Harte label of a chord: "C", "A#:min7", "N" or "X"."""
    if root == NO_CHORD:
        return "N"
    if root == UNKNOWN_CHORD:
        return "X"
    name = QUALITIES[quality]
    return PITCH_CLASSES[root] if name == "maj" else f"{PITCH_CLASSES[root]}:{name}"


def parse_chord_label(label: str) -> tuple[int, int]:
    """(root, quality) of a label of this vocabulary; the inverse of `chord_label`.

    Raises:
        ValueError: the label is not one of the 170.
    """
    if label in ("N", "X"):
        return (NO_CHORD, NO_CHORD) if label == "N" else (UNKNOWN_CHORD, UNKNOWN_CHORD)
    root, colon, quality = label.partition(":")
    quality = quality if colon else "maj"
    if root not in PITCH_CLASSES or quality not in QUALITIES:
        raise ValueError(f"chord label {label!r} is not in the vocabulary: N, X, or ROOT[:QUALITY] with {QUALITIES}")
    return PITCH_CLASSES.index(root), QUALITIES.index(quality)


def pitch_classes(root: int, quality: int) -> tuple[int, ...]:
    """Pitch classes that sound, root first; none for N and X."""
    return () if root < 0 else tuple((root + step) % 12 for step in QUALITY_INTERVALS[quality])


def chord_from_class(number: int) -> tuple[int, int]:
    """(root, quality) of BTC's class `number`, 0-169. Raises ValueError for another."""
    if not 0 <= number < N_CHORD_CLASSES:
        raise ValueError(f"chord class {number!r} must be 0 to {N_CHORD_CLASSES - 1}")
    if number >= N_CHORD_CLASSES - 2:
        return (UNKNOWN_CHORD,) * 2 if number == N_CHORD_CLASSES - 2 else (NO_CHORD,) * 2
    return divmod(number, len(QUALITIES))


def unsound_chords(
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    root: NDArray[np.int8],
    quality: NDArray[np.int8],
    first: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which chords cannot be [shape=(n,)].

    Args:
        start, end: seconds; finite, from 0 on, ending after they start, and within a track not overlapping.
        root, quality: of this vocabulary.
        first: where each track begins.
    """
    unsound = ~((start >= 0) & (end > start) & np.isfinite(end))
    overlap = np.append(False, start[1:] < end[:-1] - 1e-4)[: len(start)]
    overlap[first[first < len(start)]] = False
    known = (root >= 0) & (root <= 11) & (quality >= 0) & (quality < len(QUALITIES))
    silent = (root == quality) & ((root == NO_CHORD) | (root == UNKNOWN_CHORD))
    return unsound | overlap | ~(known | silent)


def _small_numbers(values: ArrayLike, name: str) -> NDArray[np.int8]:
    """As int8 [shape=(n,)]. Raises ValueError where that would change a value."""
    given = np.asarray(values)
    small = given.astype(np.int8)
    if given.ndim != 1 or (given.size and (given.dtype.kind not in "iu" or (small != given).any())):
        raise ValueError(f"chord sequence: {name} must hold whole numbers from -2 on [shape=(n,)]")
    return small


@dataclass(frozen=True)
class Key:
    """A key: `tonic` is a pitch class 0-11."""

    tonic: int
    mode: Mode

    def __post_init__(self) -> None:
        if not is_whole(self.tonic, 0, 11) or not is_one_of(self.mode, MODES):
            raise ValueError(f"key ({self.tonic!r}, {self.mode!r}): tonic must be 0-11 and mode 'major' or 'minor'")

    def __str__(self) -> str:
        return f"{PITCH_CLASSES[self.tonic]} {self.mode}"


@dataclass(frozen=True, eq=False)
class ChordSequence:
    """The chords of a track in time order.

    Attributes:
        intervals: start and end of each chord in seconds [shape=(n, 2)], neither negative nor overlapping.
        root: 0-11, or -1 for N, -2 for X [shape=(n,)].
        quality: index into QUALITIES, or -1 for N, -2 for X [shape=(n,)].
    """

    intervals: NDArray[np.float32]
    root: NDArray[np.int8]
    quality: NDArray[np.int8]

    def __post_init__(self) -> None:
        intervals = np.asarray(self.intervals, np.float32)
        if intervals.size and (intervals.ndim != 2 or intervals.shape[1] != 2):
            raise ValueError(f"chord sequence: intervals have shape {intervals.shape}, not (n, 2)")
        object.__setattr__(self, "intervals", intervals.reshape(-1, 2))
        for name in ("root", "quality"):
            object.__setattr__(self, name, _small_numbers(getattr(self, name), name))
        if not len(self.intervals) == len(self.root) == len(self.quality):
            raise ValueError(
                f"chord sequence: {len(self.intervals)} intervals, {len(self.root)} roots and "
                f"{len(self.quality)} qualities must be equally many"
            )
        start, end = self.intervals.T
        unsound = unsound_chords(start, end, self.root, self.quality, np.array([0]))
        if unsound.any():
            i = int(np.argmax(unsound))
            raise ValueError(
                f"chord sequence: chord {i}, {start[i]:g} to {end[i]:g} s, root {self.root[i]}, quality "
                f"{self.quality[i]}: times must be finite, from 0 on, end after they start and not overlap; roots are "
                "0-11 and qualities 0-13, or both -1 (N), or both -2 (X)"
            )

    def __len__(self) -> int:
        return len(self.root)

    @classmethod
    def from_labels(cls, intervals: ArrayLike, labels: list[str]) -> ChordSequence:
        """Build a sequence from Harte labels of this vocabulary."""
        chords = np.array([parse_chord_label(label) for label in labels], np.int8).reshape(-1, 2)
        return cls(np.asarray(intervals, np.float32), chords[:, 0], chords[:, 1])

    @classmethod
    def from_frames(cls, chords: list[tuple[int, int]], frame_seconds: float, duration: float) -> ChordSequence:
        """Merge equal neighbours among frames of `frame_seconds` each; nothing lasts beyond `duration` seconds."""
        values = np.array(chords, np.int8).reshape(-1, 2)
        # Each chord's first frame, and the end of all.
        first = np.flatnonzero([i == 0 or chords[i] != chords[i - 1] for i in range(len(chords))])
        start = first * frame_seconds
        end = np.minimum(np.append(start, len(chords) * frame_seconds)[1:], duration)
        intervals = np.stack([start, end], axis=1).astype(np.float32)
        heard = intervals[:, 1] > intervals[:, 0]
        return cls(intervals[heard], values[first[heard], 0], values[first[heard], 1])

    @property
    def labels(self) -> list[str]:
        """Harte labels, one a chord."""
        return [chord_label(int(r), int(q)) for r, q in zip(self.root, self.quality, strict=True)]

    def transpose(self, semitones: int) -> ChordSequence:
        """The same chords `semitones` higher; N and X stay."""
        root = np.where(self.root >= 0, (self.root.astype(int) + semitones) % 12, self.root)
        return ChordSequence(self.intervals, root.astype(np.int8), self.quality)

    def normalise(self, key: Key | None) -> ChordSequence:
        """Transpose to C major or A minor (paper III-A2); without a key nothing moves."""
        if key is None:
            return self
        return self.transpose(-key.tonic if key.mode == "major" else 9 - key.tonic)
