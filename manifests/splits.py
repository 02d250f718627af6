"""Which track trains, validates and tests: by a hash of its clip, or by a user's lists.

The hash depends on the clip alone, so that a split is the same on every machine, stays as it is when songs are added,
and keeps two copies of a clip on one side.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests.files import read_text
from m2e.manifests.track import SPLITS, Manifest, Split

# How a provenance, "<labels>; splits: <splits>", tells of `hash_split`.
HASH_SPLITS = "70/15/15 by a hash of the clip"


def hash_split(clip_group: str, train: float = 0.70, validation: float = 0.15) -> Split:
    """The split of a clip: `train` and `validation` are the shares of these two, test has the rest."""
    digest = blake2b(clip_group.encode(), digest_size=6).digest()
    position = int.from_bytes(digest, "big") / 2**48
    if position < train:
        return "train"
    return "validation" if position < train + validation else "test"


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
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            track_id = line.strip()
            if track_id in splits:
                raise DataError(f"{path}: line {number}: {track_id!r} stands already in {splits[track_id]}.txt")
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
            f"{folder}: none of its {len(splits)} ids, such as {next(iter(splits))!r}, is in {manifest.name}, "
            f"whose ids are such as {tracks[0].track_id!r}"
        )
    unknown = len(splits) - listed[True]
    notes = list(manifest.notes)
    if listed[False]:
        notes.append(f"{listed[False]} of {len(tracks)} tracks are in no list of {folder.name} and so in no split")
    if unknown:
        notes.append(f"{unknown} of the {len(splits)} ids in {folder.name} are not in {manifest.name}")
    labels = manifest.provenance.partition("; splits: ")[0]
    provenance = f"{labels}; splits: the lists in {folder.name}"
    return replace(manifest, tracks=tracks, notes=tuple(notes), provenance=provenance)
