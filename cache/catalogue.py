"""Which tracks a features folder holds, and reading any of them in one sweep."""

from __future__ import annotations

import errno
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.folders import feature_names
from m2e.cache.layout import CHORD, INDEX, Records
from m2e.cache.schema import ExtractionConfig
from m2e.cache.stored import FeatureFile, open_features, read_tracks

_THREADS = 4
_PIECE_BYTES = 16
_ID_STEP = 16  # bytes


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The tracks of a features folder.

    Attributes:
        index: a row a track, sorted by id [shape=(N,), the fields of INDEX, ids not wider than they need to be].
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
    opened: dict[str, tuple[FeatureFile, slice]] = {}
    rows = _GrowingTable()
    found = problems or Problems()
    damaged = set[str]()
    names = feature_names(features)
    while True:
        for name in names:
            if name in opened or name in damaged:
                continue
            try:
                file, table = open_features(features, name, config)
                opened[name] = file, rows.append(table)
            except FileNotFoundError:
                continue  # the second listing shows what replaced it
            except DataError as error:
                if problems is None:
                    raise
                damaged.add(name)
                found.damaged[features / name] = str(error)
        # A listing is not of one moment: it can miss a pack that appears meanwhile and the shards that it replaces.
        # Two equal listings cannot.
        again = feature_names(features)
        if again == names and opened.keys() | damaged >= set(names):
            break
        names = again
    parts = [opened[name] for name in names if name in opened]
    del opened, names, again  # thousands of names, while the next takes most memory
    return _merge(features, parts, rows.taken, problems)


class _GrowingTable:
    """Rows of many files in one piece of memory: a million in small pieces would take twice as much.

    Its ids are hardly wider than the longest, which makes a row a third smaller for most data sets.
    """

    def __init__(self) -> None:
        self._rows, self._n = np.empty(1024, _index_dtype(1)), 0

    def append(self, table: NDArray[Any]) -> slice:
        """Where the rows are from now on."""
        longest = int(np.char.str_len(table["id"]).max(initial=0))
        if longest > self._rows.dtype["id"].itemsize:
            self._rows = self._rows.astype(_index_dtype(longest))
        where = slice(self._n, self._n + len(table))
        if where.stop > len(self._rows):
            self._rows.resize(where.stop * 33 // 32, refcheck=False)  # nobody else has it yet
        self._rows[where] = table
        self._n = where.stop
        return where

    @property
    def taken(self) -> NDArray[Any]:
        return self._rows[: self._n]


def _index_dtype(longest_id: int) -> np.dtype[Any]:
    width = -(-longest_id // _ID_STEP) * _ID_STEP
    return np.dtype([("id", f"S{width}"), *((name, INDEX[name]) for name in INDEX.names or () if name != "id")])


def _merge(
    features: Path, parts: list[tuple[FeatureFile, slice]], rows: NDArray[Any], problems: Problems | None
) -> Catalogue:
    """Sort the rows of some files by id, in their own memory, and take each track once."""
    files = tuple(file for file, _ in parts)
    sizes = [where.stop - where.start for _, where in parts]
    if sum(sizes) != len(rows) or any(a.start > b.start for (_, a), (_, b) in itertools.pairwise(parts)):
        # A packer replaced some files while they were read.
        rows = np.concatenate([rows[:0], *(rows[where] for _, where in parts)])
    stored_file = np.repeat(np.arange(len(files), dtype=np.int32), sizes)
    order = np.argsort(rows["id"], kind="stable")
    new = np.ones(len(rows), np.bool_)
    ids = rows["id"][order]
    new[1:] = ids[1:] != ids[:-1]
    del ids
    first = order[new]
    row = np.empty(len(rows), np.int64)
    place = np.cumsum(new, dtype=np.int64)
    place -= 1
    row[order] = place
    copies = order[~new]
    del order, new, place
    differ = copies[(rows["digest"][copies] != rows["digest"][first[row[copies]]]).any(axis=1)]
    if problems is not None:
        problems.ambiguous.update(track_id.decode() for track_id in rows["id"][differ].tolist())
    elif len(differ):
        one, other = (files[stored_file[number]].path.name for number in (first[row[differ[0]]], differ[0]))
        raise DataError(
            f"{features}: track {rows['id'][differ[0]].decode()!r} has two different records, in {one} and {other}: "
            f"`m2e-cache repair {features.parent}` takes both out, then m2e-extract makes it again"
        )
    bytes_of_rows = rows.view("u1").reshape(len(rows), rows.itemsize)
    for column in range(0, rows.itemsize, _PIECE_BYTES):  # a piece of all rows at a time: a second index is too much
        piece = bytes_of_rows[:, column : column + _PIECE_BYTES]
        piece[: len(first)] = piece[first]
    return Catalogue(rows[: len(first)], files, stored_file[first], stored_file, row)


def gather(catalogue: Catalogue, rows: NDArray[np.int64]) -> Records:
    """Read the tracks in `rows` of a catalogue, in that order, and check their digests.

    Raises:
        DataError: a record is not what was written, or segments have different widths.
        ChangedMeanwhile: a file is gone; scan again.
    """
    index, numbers = catalogue.index[rows].astype(INDEX), catalogue.file[rows]
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
