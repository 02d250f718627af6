"""Whether a static label file has valence and arousal exchanged: it is compared with the dynamic annotations.

In DEAM's published file the songs 2-1000 are exchanged. Listeners who rated a clip also moved a slider while it played,
and a song's mean over time correlates with its rating of the same dimension (r above .9) far more than with the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m2e.common.errors import DataError
from m2e.common.ratings import CLEAR, correlations
from m2e.manifests.read.text import number, read_cells
from m2e.manifests.types import ValenceArousal

# In DEAM's files the right pairs correlate with .91 to .98, the others with -.10 to .59.
_MARGIN = 0.1


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
    def exchanged(self) -> bool | None:
        """Whether valence and arousal are exchanged; None where the correlations do not tell clearly."""
        as_named = self.valence_valence, self.arousal_arousal
        exchanged = self.valence_arousal, self.arousal_valence
        for winner, loser, verdict in ((exchanged, as_named, True), (as_named, exchanged, False)):
            if min(winner) >= CLEAR and min(winner) - max(loser) >= _MARGIN:
                return verdict
        return None

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
    table = correlations(labels, dynamic)
    return None if table is None else SwapCheck(len(songs), *(float(r) for r in table.ravel()))


def dynamic_means(path: Path) -> dict[str, float]:
    """Song id -> mean over time, from a file of dynamic annotations: song_id, then a sample a column, empty at the end.

    Samples are on -1 to 1.

    Raises:
        DataError: as `read_cells`; no header, a cell that is no such number, a song that stands twice.
    """
    rows = enumerate(read_cells(path), start=1)
    _, header = next(rows)
    if not header or header[0].strip() != "song_id":
        raise DataError(f"{path}: its header does not begin with song_id")
    means: dict[str, float] = {}
    for row, cells in rows:
        if not cells:
            continue
        song_id, *samples = (cell.strip() for cell in cells)
        values = np.array([number(sample, -1, 1) for sample in samples if sample], float)  # None becomes NaN
        if np.isnan(values).any():
            raise DataError(f"{path}: row {row}: holds a sample that is not a number from -1 to 1")
        if song_id in means:
            raise DataError(f"{path}: row {row}: song_id {song_id[:80]!r} stands twice")
        if values.size:
            means[song_id] = float(values.mean())
    return means
