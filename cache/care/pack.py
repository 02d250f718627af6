"""Many shards become few packs, and of a track with several records one stays.

New files are written and checked first, and only then are the old ones removed: at any moment the record that counts
is in at least one file, and a scan that meets others beside it finds the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache.catalogue import Catalogue, ChangedMeanwhile, gather, scan
from m2e.cache.feature_file import read_file
from m2e.cache.folders import SET_ASIDE, read_config
from m2e.cache.layout import Kind, Records, feature_image, feature_name, select
from m2e.cache.lock import pack_lock
from m2e.cache.settings import ExtractionConfig
from m2e.common.errors import DamagedError, DataError, UnreadableError
from m2e.common.files import is_intact, remove_stale_temporaries, write_atomically

PACK_TRACKS = 1024
# Long tracks and wide encoders: a pack is built in memory.
PACK_BYTES = 256 << 20


@dataclass(frozen=True)
class Packed:
    """What `pack` did.

    Attributes:
        tracks: in the folder.
        packs: there now.
        written: packs that are new.
        removed: files that went.
        replaced: tracks whose older record went with them.
        notes: a line each on tracks that had several records for another reason.
    """

    tracks: int
    packs: int
    written: int
    removed: int
    replaced: int
    notes: tuple[str, ...]


def pack(
    features: Path,
    *,
    break_lock: bool = False,
    wait: float = 0.0,
    advance: Callable[[int, int], None] = lambda tracks, total: None,
) -> Packed:
    """Put the shards of a features folder into packs of up to 1,024 tracks in order of their ids.

    The same tracks give the same packs, byte for byte, whatever the order and number of the writers. Of a track with
    several records one stays, see `m2e.cache.catalogue`. Packs that are already as they should be stay; others may
    write shards meanwhile.

    Args:
        features: the folder of one group of settings, such as ``features/deam/features-0123456789abcdef``.
        break_lock, wait: see `pack_lock`.
        advance: called with the number of tracks that were just put into packs, and that of all.

    Raises:
        LockedError: somebody else packs.
        DataError: a file is damaged or cannot be read, or the disk is full. No source of an unfinished pack is removed.
    """
    with pack_lock(features.parent, break_lock, wait):
        remove_stale_temporaries(features)
        remove_stale_temporaries(features.parent)
        config = read_config(features)
        catalogue = scan(features, config)
        bounds = _bounds(catalogue)
        there = _already_packed(catalogue, bounds)
        last = np.full(len(catalogue.files), -1)
        np.maximum.at(last, catalogue.stored_file, catalogue.stored_row)
        waiting = set(range(len(catalogue.files))) - set(there.values())
        # Packs are of generation 0: what says that a record is newer must outlive all that is older.
        newer = {number for number in waiting if catalogue.files[number].generation}
        waiting -= newer
        written = removed = 0
        for start, stop in bounds:
            done = {number for number in waiting if last[number] < stop}
            waiting -= done
            if (start, stop) not in there:
                path = replace(features, config, _gather(catalogue, np.arange(start, stop)), "pack")
                written += 1
                done = {number for number in done if catalogue.files[number].path != path}
            _keep_losers(features, config, catalogue, done)
            _remove(catalogue, sorted(done))
            removed += len(done)
            advance(stop - start, len(catalogue.index))
        _keep_losers(features, config, catalogue, newer)
        _remove(catalogue, sorted(newer, key=lambda number: catalogue.files[number].generation))
        return Packed(
            len(catalogue.index),
            len(bounds),
            written,
            removed + len(newer),
            len(catalogue.replaced),
            tuple(catalogue.several),
        )


def _keep_losers(features: Path, config: ExtractionConfig, catalogue: Catalogue, numbers: set[int]) -> None:
    """Put records of other audio, which nothing but the time of their files has decided against, where a person can
    find them: they are about to be removed."""
    for number in numbers & set(catalogue.stored_file[catalogue.losers].tolist()):
        rows = set(catalogue.stored_row[catalogue.losers[catalogue.stored_file[catalogue.losers] == number]].tolist())
        path = catalogue.files[number].path
        try:
            records, whole = read_file(path, config)
        except OSError as error:
            raise UnreadableError(f"cannot read {path}: {error.strerror}") from error
        chosen = np.flatnonzero(np.isin(records.index["id"], catalogue.index["id"][sorted(rows)]))
        if not whole[chosen].all():
            raise DamagedError(f"{path} is damaged: `m2e-cache repair {features.parent}` sets it aside")
        image = feature_image(select(records, chosen), config)
        write_atomically(features / SET_ASIDE / feature_name("shard", image), image)


def replace(
    features: Path,
    config: ExtractionConfig,
    records: Records,
    kind: Kind,
    generation: int = 0,
    modified: int | None = None,
) -> Path:
    """Commit records, which are sorted by id, as a new file, and read it back; what they came from may go then.

    Args:
        features, config: the folder and its settings.
        records: the tracks.
        kind: of the file.
        generation, modified: of the file, where these are to say the same as those of the one that they came from.
    """
    image = feature_image(records, config, generation)
    path = features / feature_name(kind, image)
    write_atomically(path, image, modified)
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


def _remove(catalogue: Catalogue, numbers: Iterable[int]) -> None:
    for number in numbers:
        path = catalogue.files[number].path
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot remove {path}, whose tracks are elsewhere by now: {error.strerror}") from error
