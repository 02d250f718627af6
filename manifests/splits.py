"""Which track trains, validates and tests: by a hash, by a user's lists, or as in another data set.

The hash is of the artist or, where none is known, of the clip, so that a split is the same on every machine and mostly
stays as it is when songs are added. Tracks linked by clip or artist, directly or through others, never part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from m2e.common.errors import DataError, printable
from m2e.manifests.read.text import read_lines
from m2e.manifests.types import SPLITS, Manifest, Split, Track

# How a provenance, "<labels>; splits: <splits>", tells of `hash_splits`.
HASH_SPLITS = "70/15/15 by a hash of clip and artist"
# Names that many artists share.
_NOBODY = {"", "various artists", "various", "unknown artist", "unknown", "n/a"}


def artist_key(artist: str) -> str:
    """The artist's name for comparison, without case and surplus spaces; "" where it names nobody."""
    name = " ".join(artist.casefold().split())
    return "" if name in _NOBODY else name


def hash_split(key: str, train: float = 0.70, validation: float = 0.15) -> Split:
    """The split of a key: `train` and `validation` are the shares of these two, test has the rest."""
    if not (min(train, validation) >= 0 and train + validation <= 1):
        raise ValueError(
            f"shares {train!r} and {validation!r}: train and validation have 0 or more, and at most 1 in all"
        )
    digest = blake2b(key.encode(), digest_size=6).digest()
    position = int.from_bytes(digest, "big") / 2**48
    if position < train:
        return "train"
    return "validation" if position < train + validation else "test"


def hash_splits(tracks: Sequence[Track], train: float = 0.70, validation: float = 0.15) -> tuple[Track, ...]:
    """`tracks` with splits by hash; tracks that share a clip group or an artist, or are linked by others, share one.

    The shares are of groups, so that those of tracks differ a little.
    """
    groups = _Groups()
    for track in tracks:
        clip, artist = f"clip/{track.clip_group}", artist_key(track.artist)
        groups.join(clip, f"artist/{artist}" if artist else clip)
    names: dict[str, str] = {}
    for key in sorted(groups.keys()):  # "artist/..." before "clip/..."
        names.setdefault(groups.find(key), key.removeprefix("clip/"))
    split_of = {group: hash_split(name, train, validation) for group, name in names.items()}
    splits = [split_of[groups.find(f"clip/{track.clip_group}")] for track in tracks]
    return tuple(
        track if track.split == split else replace(track, split=split)
        for track, split in zip(tracks, splits, strict=True)
    )


class _Groups:
    """Disjoint sets of keys (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def keys(self) -> Iterable[str]:
        return self._parent.keys()

    def find(self, key: str) -> str:
        root = key
        while (parent := self._parent.setdefault(root, root)) != root:
            root = parent
        while key != root:
            self._parent[key], key = root, self._parent[key]
        return root

    def join(self, a: str, b: str) -> None:
        self._parent[self.find(a)] = self.find(b)


def read_splits(folder: Path) -> dict[str, Split]:
    """Track id -> split, from train.txt, validation.txt and test.txt in `folder`: one id a line, blank lines skipped.

    Raises:
        DataError: a file is missing, empty or not UTF-8 text; an id stands twice, in one file or in two.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold train.txt, validation.txt and test.txt")
    splits: dict[str, Split] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        for number, line in enumerate(read_lines(path), start=1):
            track_id = line.strip()
            if track_id in splits:
                raise DataError(f"{path}: line {number}: {track_id[:80]!r} stands already in {splits[track_id]}.txt")
            if track_id:
                splits[track_id] = split
    return splits


def apply_splits(manifest: Manifest, folder: Path) -> Manifest:
    """`manifest` with the splits of the lists in `folder` (see `read_splits`) in place of its own.

    Tracks in no list get no split; both these and listed ids that the data set lacks are counted in the notes.

    Raises:
        DataError: as `read_splits`; no listed id is in the data set.
    """
    splits = read_splits(folder)
    tracks = tuple(replace(track, split=splits.get(track.track_id)) for track in manifest.tracks)
    listed = Counter(track.split is not None for track in tracks)
    if not listed[True]:
        raise DataError(
            f"{folder}: none of its {len(splits)} ids, such as {next(iter(splits))[:80]!r}, is in {manifest.name}, "
            f"whose ids are such as {tracks[0].track_id!r}"
        )
    unknown = len(splits) - listed[True]
    name = printable(folder.resolve().name)
    notes = []
    if listed[False]:
        notes.append(f"{listed[False]} of {len(tracks)} tracks are in no list of {name} and so in no split")
    if unknown:
        notes.append(f"{unknown} of the {len(splits)} ids in {name} are not in {manifest.name}")
    return _resplit(manifest, tracks, f"the lists in {name}", notes)


def align_splits(manifest: Manifest, other: Manifest) -> Manifest:
    """`manifest`, where tracks whose clip `other` holds too take its split, so that no clip crosses between the two.

    Where copies of a clip are in several splits of `other`, test goes before validation, and validation before train.

    Raises:
        DataError: the two are one, or share no clip.
    """
    if other.name == manifest.name:
        raise DataError(f"{manifest.name} cannot be aligned with itself")
    split_of: dict[str, Split | None] = {}
    for split in (None, *SPLITS):
        split_of |= {track.clip_group: split for track in other.tracks if track.split == split}
    shared = sum(track.clip_group in split_of for track in manifest.tracks)
    if not shared:
        raise DataError(f"{manifest.name} and {other.name} share no clip: there is nothing to align")
    tracks = tuple(replace(track, split=split_of.get(track.clip_group, track.split)) for track in manifest.tracks)
    own, shares = manifest.provenance.partition("; splits: ")[2], f"{shared} tracks shared with {other.name} as there"
    return _resplit(manifest, tracks, f"{own.removesuffix(f'; {shares}')}; {shares}", [])


def _resplit(manifest: Manifest, tracks: tuple[Track, ...], splits: str, notes: Sequence[str]) -> Manifest:
    labels = manifest.provenance.partition("; splits: ")[0]
    return replace(manifest, tracks=tracks, notes=(*manifest.notes, *notes), provenance=f"{labels}; splits: {splits}")
