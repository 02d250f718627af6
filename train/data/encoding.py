"""Chords and key of a track to the integers that the model embeds (paper III-A2, released code's numbering).

Conventions
-----------
- Chords are first transposed to C major or A minor by the track's key; without a key nothing moves and the mode is
  major.
- Root ids: N 0, C 1 ... B 12, X 13 (or N's, with ``x_chord = n``). Quality ids stand in `QUALITY_IDS`; N and X have 0.
- minmaj7 has no id in the released numbering (its code crashes there) and counts as min.
- `PADDING` follows a track's last chord where padding is masked; it is no chord, not N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import MODES, QUALITIES, ChordSequence, Key

N_ID = 0
X_ID = 13
PADDING = 14
N_ROOT_IDS = 14
N_QUALITY_IDS = 14
# Aligned with m2e.cache.harmony.QUALITIES:
# min maj dim aug min6 maj6 min7 minmaj7 maj7 7 dim7 hdim7 sus2 sus4
QUALITY_IDS = (5, 1, 2, 7, 12, 9, 4, 5, 13, 11, 8, 10, 6, 3)
assert len(QUALITY_IDS) == len(QUALITIES)

_MINOR = MODES.index("minor")
_A = 9

# X and N stand last, where their roots and qualities -2 and -1 find them.
_ROOTS = np.array([*range(1, 13), X_ID, N_ID], np.uint8)
_QUALITIES = np.array([*QUALITY_IDS, 0, 0], np.uint8)


@dataclass(frozen=True, eq=False)
class EncodedHarmony:
    """`root` and `quality` ids of each chord [shape=(n,)]; `mode` 0 for major, 1 for minor."""

    root: NDArray[np.uint8]
    quality: NDArray[np.uint8]
    mode: int


def encode_harmony(chords: ChordSequence, key: Key | None, x_chord: str) -> EncodedHarmony:
    """Ids of absolute `chords` in `key`; `x_chord` is "own" or "n"."""
    tonic, mode = (key.tonic, MODES.index(key.mode)) if key else (-1, -1)
    root, quality = encode_chords(
        chords.root, chords.quality, np.array(tonic, np.int8), np.array(mode, np.int8), x_chord
    )
    return EncodedHarmony(root, quality, int(mode == _MINOR))


def encode_chords(
    root: NDArray[np.int8], quality: NDArray[np.int8], tonic: NDArray[np.int8], mode: NDArray[np.int8], x_chord: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Ids of roots and qualities of any number of absolute chords.

    Args:
        root, quality: as in `m2e.cache.ChordSequence` [shape=(n,)].
        tonic, mode: of the key of each chord's track, -1 where it has none [shape=(n,) or ()].
        x_chord: "own" or "n".
    """
    shift = np.where(tonic < 0, 0, np.where(mode == _MINOR, _A, 0) - tonic)
    ids = _ROOTS[np.where(root >= 0, (root + shift) % 12, root)]
    if x_chord == "n":
        ids[ids == X_ID] = N_ID
    return ids, _QUALITIES[quality]
