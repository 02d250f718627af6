"""Which tracks a features folder holds, and reading any of them in one sweep."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.folders import feature_files
from m2e.cache.layout import CHORD, INDEX, Records
from m2e.cache.schema import ExtractionConfig
from m2e.cache.stored import FeatureFile, open_features, read_tracks

_THREADS = 4


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The tracks of a features folder.

    Attributes:
        index: a row a track, sorted by id [shape=(N,), dtype=INDEX].
        files: the files that hold them.
        file: which of `files` each track is read from [shape=(N,)].
        stored_file, stored_row: every record of every file, with identical copies: the file, and the row of `index`
            [shape=(M,)].
    """

    index: NDArray[Any]
    files: tuple[FeatureFile, ...]
    file: NDArray[np.int32]
    stored_file: NDArray[np.int32]
    stored_row: NDArray[np.int64]


class ChangedMeanwhile(Exception):
    """A file of the catalogue is gone: a packer replaced it, and a new scan finds its tracks elsewhere."""


@dataclass(frozen=True)
class Problems:
    """What keeps a folder from being scanned: files that cannot be used, and why; ids of tracks with two records."""

    damaged: dict[Path, str] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)


def scan(features: Path, config: ExtractionConfig, problems: Problems | None = None) -> Catalogue:
    """The tracks kept in a features folder, while others may write and pack there.

    Args:
        features: the folder.
        config: its settings.
        problems: takes in what would raise; damaged files are passed over then, and of two records the first is taken.

    Raises:
        DataError: a file is damaged, or one track has two different records.
    """
    opened: dict[Path, tuple[FeatureFile, NDArray[Any]]] = {}
    found = problems or Problems()
    names = feature_files(features)
    while True:
        for path in names:
            if path in opened or path in found.damaged:
                continue
            try:
                opened[path] = open_features(path, config)
            except FileNotFoundError:
                continue  # the second listing shows what replaced it
            except DataError as error:
                if problems is None:
                    raise
                found.damaged[path] = str(error)
        # A listing is not of one moment: it can miss a pack that appears meanwhile and the shards that it replaces.
        # Two equal listings cannot.
        again = feature_files(features)
        if again == names and opened.keys() | found.damaged.keys() >= set(names):
            break
        names = again
    return _merge(features, [opened.pop(path) for path in names if path in opened], problems)


def _merge(features: Path, parts: list[tuple[FeatureFile, NDArray[Any]]], problems: Problems | None) -> Catalogue:
    files = tuple(file for file, _ in parts)
    tables = [table for _, table in parts]
    parts.clear()
    ends = np.cumsum([0, *(len(table) for table in tables)])
    ids = np.concatenate([np.zeros(0, INDEX["id"]), *(table["id"] for table in tables)])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    row = np.zeros(len(ids), np.int64)
    row[order] = np.cumsum(np.append(False, ids[1:] != ids[:-1]))[: len(ids)]
    n = int(row.max()) + 1 if len(row) else 0
    del ids, order
    index, file, seen = np.empty(n, INDEX), np.zeros(n, np.int32), np.zeros(n, np.bool_)
    for number in range(len(files)):
        # A million tracks: each table goes as soon as it is copied.
        table, tables[number] = tables[number], np.zeros(0, INDEX)
        its = row[ends[number] : ends[number + 1]]
        again = seen[its]
        if again.any():
            differ = (index["digest"][its[again]] != table["digest"][again]).any(axis=1)
            ids_again = [track_id.decode() for track_id in table["id"][again][differ].tolist()]
            if problems is not None:
                problems.ambiguous.update(ids_again)
            elif ids_again:
                other = files[int(file[its[again][differ][0]])].path.name
                raise DataError(
                    f"{features}: track {ids_again[0]!r} has two different records, in {other} and "
                    f"{files[number].path.name}: `m2e-cache repair {features.parent}` takes both out, "
                    "then m2e-extract makes it again"
                )
        index[its[~again]] = table[~again]
        file[its[~again]] = number
        seen[its] = True
    stored = np.repeat(np.arange(len(files), dtype=np.int32), np.diff(ends))
    return Catalogue(index, files, file, stored, row)


def gather(catalogue: Catalogue, rows: NDArray[np.int64]) -> Records:
    """Read the tracks in `rows` of a catalogue, in that order, and check their digests.

    Raises:
        DataError: a record is not what was written, or segments have different widths.
        ChangedMeanwhile: a file is gone; scan again.
    """
    index, numbers = catalogue.index[rows], catalogue.file[rows]
    shapes = {catalogue.files[number].shape for number in np.unique(numbers)}
    if len(shapes) > 1:
        paths = sorted({catalogue.files[number].path for number in np.unique(numbers)})
        raise DataError(f"{paths[0].parent}: embeddings of different widths ({sorted(shapes)}) cannot be one data set")
    shape = next(iter(shapes), (0, 0))
    into = Records(
        index,
        np.empty((int(index["segments"].sum(dtype=np.int64)), *shape), "<f2"),
        np.empty(int(index["chords"].sum(dtype=np.int64)), CHORD),
    )
    segment = np.cumsum(index["segments"], dtype=np.int64) - index["segments"]
    chord = np.cumsum(index["chords"], dtype=np.int64) - index["chords"]
    order = np.lexsort((index["first_segment"], numbers))
    groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []

    def read(group: NDArray[np.int64]) -> None:
        file = catalogue.files[int(numbers[group[0]])]
        try:
            intact = read_tracks(file, index[group], into, segment[group], chord[group])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                raise ChangedMeanwhile from error
            raise DataError(f"cannot read {file.path}: {error.strerror}") from error
        if not intact.all():
            track = index["id"][group[~intact][0]].decode()
            raise DataError(
                f"{file.path}: the record of track {track!r} is damaged. `m2e-cache verify --deep` lists what is, "
                f"`m2e-cache repair {file.path.parent.parent}` sets it aside and says what to do again"
            )

    if len(groups) < 2:
        for group in groups:
            read(group)
    else:  # reading and hashing release the interpreter
        with ThreadPoolExecutor(min(_THREADS, len(groups))) as pool:
            list(pool.map(read, groups))
    return into
