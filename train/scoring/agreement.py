"""Whether data sets that hold the same clips agree on their labels.

In DEAM's published file valence and arousal are exchanged for the clips that EmoMusic holds too: a model that is
trained on both as distributed learns that the same sound is two things.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from m2e.common.ratings import CLEAR, correlations
from m2e.train.data.tensors import EmotionData


def exchanged_labels(sets: Sequence[EmotionData]) -> list[str]:
    """A line on each pair of data sets whose labels of shared clips agree only with valence and arousal exchanged."""
    lines = []
    for one, other in combinations(sets, 2):
        pairs = _shared_points(one, other)
        table = correlations(pairs[:, :2], pairs[:, 2:])
        if table is None:
            continue
        as_named, exchanged = table.diagonal().min(), table[:, ::-1].diagonal().min()
        if exchanged >= CLEAR and exchanged > as_named:
            lines.append(
                f"the labels of {len(pairs)} clips that {one.name} and {other.name} share agree only with valence and "
                f"arousal exchanged (r {exchanged:.2f}, else {as_named:.2f}): see --deam-labels of m2e-cache relabel"
            )
    return lines


def _shared_points(one: EmotionData, other: EmotionData) -> NDArray[np.float64]:
    """Valence and arousal in `one`, then in `other`, of each clip that both have labels of [shape=(clips, 4)]."""
    first, second = _points(one), _points(other)
    return np.array([(*first[clip], *second[clip]) for clip in first if clip in second]).reshape(-1, 4)


def _points(data: EmotionData) -> dict[str, tuple[float, float]]:
    if "valence_arousal" not in data.targets:
        return {}
    labels = data.targets["valence_arousal"].tolist()
    return {clip: (v, a) for clip, (v, a) in zip(data.clip_group, labels, strict=True) if clip and v == v and a == a}
