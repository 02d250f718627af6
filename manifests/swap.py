"""Whether a static label file has valence and arousal exchanged: it is compared with the dynamic annotations.

In DEAM's published file the songs 2-1000 are exchanged. Listeners who rated a clip also moved a slider while it played,
and a song's mean over time correlates with its rating of the same dimension (r above .9) far more than with the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.manifests.files import read_cells
from m2e.manifests.track import ValenceArousal

# Below this many songs a correlation decides nothing.
MIN_SONGS = 20


@dataclass(frozen=True)
class SwapCheck:
    """Pearson correlations of static labels with the time means of dynamic annotations, over the songs that have both.

    Attributes:
        songs: how many.
        valence_valence: static valence with dynamic valence, and so on.
    """

    songs: int
    valence_valence: float
    valence_arousal: float
    arousal_valence: float
    arousal_arousal: float

    @property
    def exchanged(self) -> bool:
        """Whether the labels agree better with the dynamic annotations when the two columns are exchanged."""
        return self.valence_arousal + self.arousal_valence > self.valence_valence + self.arousal_arousal

    @property
    def figures(self) -> tuple[tuple[str, float], ...]:
        """The figures under names for people."""
        return (
            ("songs compared", self.songs),
            ("r of static valence with dynamic valence", self.valence_valence),
            ("r of static valence with dynamic arousal", self.valence_arousal),
            ("r of static arousal with dynamic valence", self.arousal_valence),
            ("r of static arousal with dynamic arousal", self.arousal_arousal),
        )


def swap_check(
    static: Mapping[str, ValenceArousal], valence: Mapping[str, float], arousal: Mapping[str, float]
) -> SwapCheck | None:
    """Compare static labels with the means of dynamic ones, by song id.

    Returns:
        None where fewer than 20 songs have all of them, or one of the columns does not vary.
    """
    songs = [song_id for song_id in static if song_id in valence and song_id in arousal]
    labels = np.array([(static[i].valence, static[i].arousal) for i in songs]).reshape(-1, 2)
    dynamic = np.array([(valence[i], arousal[i]) for i in songs]).reshape(-1, 2)
    if len(songs) < MIN_SONGS or not (np.ptp(labels, axis=0).all() and np.ptp(dynamic, axis=0).all()):
        return None
    table: NDArray[np.float64] = np.corrcoef(labels, dynamic, rowvar=False)[:2, 2:]
    return SwapCheck(len(songs), *(float(r) for r in table.ravel()))


def dynamic_means(path: Path) -> dict[str, float]:
    """Song id -> mean over time, from a file of dynamic annotations: song_id, then a sample a column, empty at the end.

    Raises:
        DataError: as `read_cells`; no header, or a cell that is no finite number.
    """
    rows = enumerate(read_cells(path), start=1)
    _, header = next(rows)
    if not header or header[0].strip() != "song_id":
        raise DataError(f"{path}: its header does not begin with song_id")
    means = {}
    for number, cells in rows:
        try:
            samples = np.array([float(cell) for cell in cells[1:] if cell.strip()])
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {' '.join(str(error).split())}") from error
        if not np.isfinite(samples).all():
            raise DataError(f"{path}: row {number}: holds a value that is no finite number")
        if samples.size:
            means[cells[0].strip()] = float(samples.mean())
    return means
