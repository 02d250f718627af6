"""Which test songs were seen in training: the same clip in two data sets, or an artist on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m2e.manifests.splits import artist_key
from m2e.manifests.types import SPLITS, Manifest, Split, Track


@dataclass(frozen=True)
class Leak:
    """How many test tracks of one data set are among the tracks of a split of another, or of its own.

    Attributes:
        tested: name of the data set whose test set it is.
        seen: name of the data set whose split it is.
        split: of `seen`.
        same: test tracks whose clip is there under the same id.
        duplicates: further test tracks whose clip is there under another id only.
        artists: test tracks whose artist is there; None between data sets, whose names differ, and where a data set
            names no artists.
    """

    tested: str
    seen: str
    split: Split
    same: int
    duplicates: int
    artists: int | None


def find_leaks(manifests: Sequence[Manifest]) -> list[Leak]:
    """One `Leak` for every ordered pair of data sets and every split, and for each set's own train and validation."""
    return [
        _leak(tested, seen, split)
        for tested in manifests
        for seen in manifests
        for split in SPLITS
        if not (tested is seen and split == "test")
    ]


def _leak(tested: Manifest, seen: Manifest, split: Split) -> Leak:
    tests = _of(tested, "test")
    others = _of(seen, split)
    clips = {(track.clip_group, track.track_id) for track in others}
    groups = {track.clip_group for track in others}
    same = sum((track.clip_group, track.track_id) in clips for track in tests)
    artists = {artist_key(track.artist) for track in others} - {""}
    return Leak(
        tested=tested.name,
        seen=seen.name,
        split=split,
        same=same,
        duplicates=sum(track.clip_group in groups for track in tests) - same,
        artists=sum(artist_key(track.artist) in artists for track in tests) if tested is seen and artists else None,
    )


def _of(manifest: Manifest, split: Split) -> list[Track]:
    return [track for track in manifest.tracks if track.split == split]
