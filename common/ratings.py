"""How two ratings of the same songs in valence and arousal agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Below this many songs a correlation decides nothing.
MIN_SONGS = 20
# Two ratings of one dimension correlate with .9 and more in the field's data sets, of different ones with .6 and less.
CLEAR = 0.8


def correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Pearson's r of each column of `first` with each of `second`, valence before arousal [shape=(2, 2)].

    Args:
        first, second: ratings of the same songs [shape=(songs, 2)].

    Returns:
        None where fewer than 20 songs, or a column that does not vary, tell nothing.
    """
    if len(first) < MIN_SONGS or not (np.ptp(first, axis=0).all() and np.ptp(second, axis=0).all()):
        return None
    table: NDArray[np.float64] = np.corrcoef(first, second, rowvar=False)[:2, 2:]
    return table
