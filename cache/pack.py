"""Replacing feature files: many shards become few packs, and tracks are taken out.

Both hold pack.lock, write and check the new files first, and only then remove the old: at any moment every track is
in at least one file, and a scan that meets it twice takes it once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache.catalogue import Catalogue, ChangedMeanwhile, gather, scan
from m2e.cache.errors import DataError
from m2e.cache.files import is_intact, remove_stale_temporaries, write_atomically
from m2e.cache.folders import read_config
from m2e.cache.layout import INDEX, Kind, Records, feature_image, feature_name
from m2e.cache.lock import pack_lock
from m2e.cache.schema import ExtractionConfig
from m2e.cache.stored import read_file

PACK_TRACKS = 1024
# Long tracks and wide encoders: a pack is built in memory.
PACK_BYTES = 256 << 20


@dataclass(frozen=True)
class Packed:
    """What `pack` did: tracks in the folder, packs there now, packs newly written, files removed."""

    tracks: int
    packs: int
    written: int
    removed: int


def pack(
    features: Path, *, break_lock: bool = False, advance: Callable[[int, int], None] = lambda tracks, total: None
) -> Packed:
    """Put the shards of a features folder into packs of up to 1,024 tracks in order of their ids.

    The same tracks give the same packs, byte for byte, whatever the order and number of the writers. Identical
    copies of a track collapse. Packs that are already as they should be stay; others may write shards meanwhile.

    Args:
        features: the folder of one group of settings, such as ``features/deam/features-0123456789abcdef``.
        break_lock: take pack.lock whoever holds it.
        advance: called with the number of tracks that were just put into packs, and that of all.

    Raises:
        DataError: somebody else packs, a file is damaged, a track has two different records, or the disk is full.
            No source of an unfinished pack is removed.
    """
    with pack_lock(features.parent, break_lock):
        remove_stale_temporaries(features)
        remove_stale_temporaries(features.parent)
        config = read_config(features)
        catalogue = scan(features, config)
        bounds = _bounds(catalogue)
        there = _already_packed(catalogue, bounds)
        last = np.full(len(catalogue.files), -1)
        np.maximum.at(last, catalogue.stored_file, catalogue.stored_row)
        waiting = set(range(len(catalogue.files))) - set(there.values())
        written = removed = 0
        for start, stop in bounds:
            done = {number for number in waiting if last[number] < stop}
            waiting -= done
            if (start, stop) not in there:
                path = replace(features, config, _gather(catalogue, np.arange(start, stop)), "pack")
                written += 1
                done = {number for number in done if catalogue.files[number].path != path}
            _remove(catalogue, done)
            removed += len(done)
            advance(stop - start, len(catalogue.index))
        return Packed(len(catalogue.index), len(bounds), written, removed)


def forget(features: Path, track_ids: Collection[str], *, break_lock: bool = False) -> int:
    """Take tracks out of a features folder: the files that hold them are written again without them.

    Args:
        features: the folder of one group of settings; one that does not exist holds none of the tracks.
        track_ids: what to take out; ids that are not there are passed over.
        break_lock: take pack.lock whoever holds it.

    Returns:
        How many tracks were there.

    Raises:
        DataError: somebody packs, a file is damaged, or the disk is full.
    """
    if not track_ids or not features.is_dir():
        return 0
    with pack_lock(features.parent, break_lock):
        config = read_config(features)
        return forget_locked(features, config, scan(features, config), track_ids)


def forget_locked(features: Path, config: ExtractionConfig, catalogue: Catalogue, track_ids: Collection[str]) -> int:
    """`forget`, for a caller that holds pack.lock and has scanned."""
    wanted = np.array([track_id.encode() for track_id in track_ids], INDEX["id"])
    unwanted = np.isin(catalogue.index["id"], wanted)
    numbers = np.unique(catalogue.stored_file[unwanted[catalogue.stored_row]]).tolist()
    for number in numbers:
        # A track with a copy elsewhere is read, and kept, there.
        left = np.flatnonzero((catalogue.file == number) & ~unwanted)
        if len(left):
            kind: Kind = "pack" if catalogue.files[number].path.name.startswith("pack-") else "shard"
            replace(features, config, _gather(catalogue, left), kind)
        _remove(catalogue, {number})
    return int(unwanted.sum())


def replace(features: Path, config: ExtractionConfig, records: Records, kind: Kind) -> Path:
    """Commit records, which are sorted by id, as a new file, and read it back; what they came from may go then."""
    image = feature_image(records, config)
    path = features / feature_name(kind, image)
    write_atomically(path, image)
    try:
        back, whole = read_file(path, config)
        if whole.all() and (back.index["digest"] == records.index["digest"]).all() and is_intact(path):
            return path
    except OSError as error:
        raise DataError(f"cannot read {path} back: {error.strerror}. Its sources stay") from error
    raise DataError(f"{path} is not what was written to it: the disk is failing. Its sources stay")


def _gather(catalogue: Catalogue, rows: NDArray[np.int64]) -> Records:
    try:
        return gather(catalogue, rows)
    except ChangedMeanwhile as error:
        raise DataError("somebody else removes files here, in spite of pack.lock: run the command again") from error


def _bounds(catalogue: Catalogue) -> list[tuple[int, int]]:
    """Rows of the catalogue that make a pack each, which depend on the tracks alone."""
    size = np.array([2 * file.shape[0] * file.shape[1] for file in catalogue.files], np.int64)
    end = np.cumsum(catalogue.index["segments"] * size[catalogue.file])
    bounds, start, held = [], 0, 0
    while start < len(end):
        fits = int(np.searchsorted(end, held + PACK_BYTES, "right"))
        stop = min(max(fits, start + 1), start + PACK_TRACKS, len(end))
        bounds.append((start, stop))
        start, held = stop, int(end[stop - 1])
    return bounds


def _already_packed(catalogue: Catalogue, bounds: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Which packs are there already, and the numbers of their files; not those with copies, which are read again."""
    copies = np.bincount(catalogue.stored_row, minlength=len(catalogue.index))
    wanted, there = set(bounds), {}
    starts = np.flatnonzero(np.diff(catalogue.stored_file, prepend=-1))
    for number, rows in zip(
        catalogue.stored_file[starts].tolist(), np.split(catalogue.stored_row, starts)[1:], strict=True
    ):
        span = (int(rows[0]), int(rows[-1]) + 1)  # the rows of a file ascend
        whole = len(rows) == span[1] - span[0] and (copies[span[0] : span[1]] == 1).all()
        if whole and span in wanted and catalogue.files[number].path.name.startswith("pack-"):
            there[span] = number
    return there


def _remove(catalogue: Catalogue, numbers: set[int]) -> None:
    for number in numbers:
        path = catalogue.files[number].path
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot remove {path}, whose tracks are elsewhere by now: {error.strerror}") from error
