"""Test clips that were also trained on, in the same data set or in another.

Two tracks hold the same clip if their `clip_group` is the same (the manifests know that EmoMusic's clips are DEAM's,
and that some of DEAM's songs are there twice), or if their audio files are the same to the byte. Ids say nothing: 572
songs of PMEmo have ids of DEAM's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2e.train.data.tensors import EmotionData


@dataclass(frozen=True)
class Leak:
    """Clips that two splits share.

    Attributes:
        tested, trained: names of the data sets whose test and train splits they are.
        tracks: how many test tracks are concerned.
        of: how many there are.
    """

    tested: str
    trained: str
    tracks: int
    of: int

    def __str__(self) -> str:
        return f"{self.tracks} of {self.of} test tracks of {self.tested} are in the train split of {self.trained}"


def find_leaks(tested: Sequence[EmotionData], trained: Sequence[EmotionData]) -> list[Leak]:
    """Every pair of a test split and a train split that share clips; a data set may share with itself."""
    found = [
        Leak(data.name, other.name, int(leaked(data, [other]).sum()), len(data.splits["test"]))
        for data in tested
        for other in trained
    ]
    return [leak for leak in found if leak.tracks]


def leaked(data: EmotionData, trained: Sequence[EmotionData]) -> NDArray[np.bool_]:
    """Which test tracks of `data` are in the train split of any of the data sets `trained` [shape=(N,)]."""
    seen = {clip for other in trained for row in other.splits["train"].tolist() for clip in _clips(other, row)}
    return np.array([not seen.isdisjoint(_clips(data, row)) for row in data.splits["test"].tolist()], bool)


def _clips(data: EmotionData, row: int) -> set[str | bytes]:
    clips: set[str | bytes] = {data.clip_group[row], data.audio_sha256[row]}
    return clips - {""}
