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

from m2e.cache.harmony import QUALITIES, ChordSequence, Key

N_ID = 0
X_ID = 13
PADDING = 14
N_ROOT_IDS = 14
N_QUALITY_IDS = 14
# Aligned with m2e.cache.harmony.QUALITIES:
# min maj dim aug min6 maj6 min7 minmaj7 maj7 7 dim7 hdim7 sus2 sus4
QUALITY_IDS = (5, 1, 2, 7, 12, 9, 4, 5, 13, 11, 8, 10, 6, 3)
assert len(QUALITY_IDS) == len(QUALITIES)

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
    relative = chords.normalise(key)
    root = _ROOTS[relative.root]
    if x_chord == "n":
        root[root == X_ID] = N_ID
    return EncodedHarmony(root, _QUALITIES[relative.quality], int(key is not None and key.mode == "minor"))
