"""Which tracks a features folder holds, and reading any of them in one sweep."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.feature_file import FeatureFile, open_features, read_tracks
from m2e.cache.folders import feature_names
from m2e.cache.layout import CHORD, INDEX, Records
from m2e.cache.settings import ExtractionConfig
from m2e.common.errors import DamagedError, DataError, UnreadableError

_THREADS = 4


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The tracks of a features folder.

    Attributes:
        index: a row a track, sorted by id [shape=(N,), dtype=INDEX].
        files: the files that hold them.
        file: which of `files` each track is read from [shape=(N,)].
        stored_file, stored_row: every record of every file, with those that are not read: the file, and the row of
            `index` [shape=(M,)].
        replaced: rows of tracks of which an older record is there, too [shape=(R,)].
        rounded: rows of tracks of which another record of the same audio is there, as two kinds of processors make
            them; the one with the lowest digest is read [shape=(R,)].
        disputed: rows of tracks of which records of different audio are there and nothing says which is newer than the
            time of their files, then their names [shape=(R,)].
        losers: numbers of the records (as in `stored_file`) that `disputed` ones have beside those that are read.
    """

    index: NDArray[Any]
    files: tuple[FeatureFile, ...]
    file: NDArray[np.int32]
    stored_file: NDArray[np.int32]
    stored_row: NDArray[np.int64]
    replaced: NDArray[np.int64]
    rounded: NDArray[np.int64]
    disputed: NDArray[np.int64]
    losers: NDArray[np.int64]

    @property
    def generations(self) -> NDArray[np.int64]:
        """The highest of each track's records [shape=(N,)]."""
        found = np.zeros(len(self.index), np.int64)
        of_files = _generations(self.files)
        if of_files.any():
            np.maximum.at(found, self.stored_row, of_files[self.stored_file])
        return found

    def only(self, stays: NDArray[np.bool_]) -> Catalogue:
        """Some rows [shape=(N,)], for reading; `stored_file` and `stored_row` are empty then."""
        if stays.all():
            return self
        row = np.cumsum(stays) - 1
        replaced, rounded, disputed = (row[of[stays[of]]] for of in (self.replaced, self.rounded, self.disputed))
        return replace(
            self,
            index=self.index[stays],
            file=self.file[stays],
            stored_file=self.stored_file[:0],
            stored_row=self.stored_row[:0],
            replaced=replaced,
            rounded=rounded,
            disputed=disputed,
            losers=self.losers[:0],
        )

    @property
    def audio_sha256(self) -> dict[str, bytes]:
        """Digest of each track's audio, 32 bytes."""
        digests = (digest.tobytes() for digest in self.index["audio_sha256"])
        return dict(zip((track_id.decode() for track_id in self.index["id"].tolist()), digests, strict=True))

    @property
    def several(self) -> list[str]:
        """A line on each way in which tracks have several records."""
        about = (
            (
                self.rounded,
                "have records that differ though their audio does not, as of two kinds of processors",
                "one",
            ),
            (self.disputed, "have records of different audio, made at the same time", "the newer"),
        )
        return [
            f"{len(rows)} tracks {what} (first: {self.index['id'][rows[0]].decode()}): {which} of each is read"
            for rows, what, which in about
            if len(rows)
        ]


class ChangedMeanwhile(Exception):
    """A file of the catalogue is gone: a packer replaced it, and a new scan finds its tracks elsewhere."""


def scan(features: Path, config: ExtractionConfig, unusable: dict[Path, DataError] | None = None) -> Catalogue:
    """The tracks kept in a features folder, while others may write and pack there.

    Args:
        features: the folder.
        config: its settings.
        unusable: takes in the files that would raise, and why; they are passed over.

    Raises:
        UnreadableError, NewerError, DamagedError, DataError: see `open_features`; a damaged file is said with the
            command that repairs.
    """
    opened: dict[str, tuple[FeatureFile, NDArray[Any]]] = {}
    passed_over = set[str]()
    names = _names(features)
    while True:
        for name in names:
            if name in opened or name in passed_over:
                continue
            try:
                opened[name] = open_features(features, name, config)
            except FileNotFoundError:
                continue  # the second listing shows what replaced it
            except DataError as error:
                if unusable is None:
                    raise _with_remedy(error, features) from error
                passed_over.add(name)
                unusable[features / name] = error
        # A listing is not of one moment: it can miss a pack that appears meanwhile and the shards that it replaces.
        # Two equal listings cannot.
        again = _names(features)
        if again == names and opened.keys() | passed_over >= set(names):
            break
        names = again
    return _merge([opened.pop(name) for name in names if name in opened])


def _names(features: Path) -> list[str]:
    try:
        return feature_names(features)
    except OSError as error:
        raise UnreadableError(f"cannot read {features}: {error.strerror}") from error


def _with_remedy(error: DataError, features: Path) -> DataError:
    if not isinstance(error, DamagedError):
        return error
    return DamagedError(
        f"{error}. `m2e-cache repair {features.parent}` sets damaged files aside, saves what is good in them and says "
        "what to do again"
    )


def _merge(parts: list[tuple[FeatureFile, NDArray[Any]]]) -> Catalogue:
    """Sort the rows of some files by id, and take each track once."""
    files = tuple(file for file, _ in parts)
    sizes = [len(table) for _, table in parts]
    rows = np.empty(sum(sizes), INDEX)
    ends = np.cumsum(sizes, dtype=np.int64)
    while parts:  # from the end, so that each can go when it is copied
        end = ends[len(parts) - 1]
        _, table = parts.pop()
        rows[end - len(table) : end] = table
    stored_file = np.repeat(np.arange(len(files), dtype=np.int32), sizes)
    order = np.argsort(rows["id"], kind="stable")
    new = np.ones(len(rows), np.bool_)
    ids = rows["id"][order]
    new[1:] = ids[1:] != ids[:-1]
    chosen = order[new]
    row = np.empty(len(rows), np.int64)
    row[order] = np.cumsum(new) - 1
    copies = order[~new]
    rivals = chosen[row[copies]]
    generation = _generations(files)
    differ = (rows["digest"][copies] != rows["digest"][rivals]).any(axis=1)
    differ |= generation[stored_file[copies]] != generation[stored_file[rivals]]
    several = _choose(files, rows, stored_file, row, chosen, np.unique(row[copies[differ]]))
    # Those of packs are in order, and once each.
    rows = rows if len(copies) == 0 and (np.diff(chosen) == 1).all() else rows[chosen]
    return Catalogue(rows, files, stored_file[chosen], stored_file, row, *several)


def _choose(
    files: tuple[FeatureFile, ...],
    rows: NDArray[Any],
    stored_file: NDArray[np.int32],
    row: NDArray[np.int64],
    chosen: NDArray[np.int64],
    contested: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Put into `chosen`, for the tracks in `contested`, the record that counts; `replaced`, `rounded`, `disputed` and
    `losers` of the catalogue."""
    if not len(contested):
        return contested, contested, contested, contested
    among = np.zeros(len(chosen), np.bool_)
    among[contested] = True
    members = np.flatnonzero(among[row])
    generation = _generations(files)[stored_file[members]]
    digest = np.ascontiguousarray(rows["digest"][members]).view(">u8")
    order = np.lexsort((digest[:, 1], digest[:, 0], -generation, row[members]))
    members, generation, digest = members[order], generation[order], digest[order]
    starts = np.flatnonzero(np.diff(row[members], prepend=-1))  # the first of each track is the one that counts
    chosen[contested] = members[starts]
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(members)))
    newest = generation == generation[starts][group]
    audio = rows["audio_sha256"][members]
    foreign = newest & (audio != audio[starts][group]).any(axis=1)
    other = newest & (digest != digest[starts][group]).any(axis=1)
    disputed = np.unique(group[foreign])
    times: dict[int, int] = {}
    losers: list[int] = []
    ends = np.append(starts[1:], len(members))
    for i in disputed.tolist():
        peers = members[starts[i] : ends[i]][newest[starts[i] : ends[i]]]
        # Files are in the order of their names.
        written = [(_written(files, number, times), number) for number in stored_file[peers].tolist()]
        winner = peers[written.index(max(written))]
        chosen[contested[i]] = winner
        losers += peers[(rows["audio_sha256"][peers] != rows["audio_sha256"][winner]).any(axis=1)].tolist()
    rounded = np.setdiff1d(group[other], disputed)
    replaced = np.unique(group[~newest])
    return contested[replaced], contested[rounded], contested[disputed], np.array(losers, np.int64)


def _generations(files: tuple[FeatureFile, ...]) -> NDArray[np.int64]:
    return np.array([file.generation for file in files], np.int64)


def _written(files: tuple[FeatureFile, ...], number: int, times: dict[int, int]) -> int:
    """When a file was, in nanoseconds; long ago for one that is gone."""
    if number not in times:
        try:
            times[number] = files[number].path.stat().st_mtime_ns
        except OSError:
            times[number] = 0
    return times[number]


def gather(catalogue: Catalogue, rows: NDArray[np.int64]) -> Records:
    """Read the tracks in `rows` of a catalogue, in that order, and check their digests.

    Raises:
        UnreadableError: a file cannot be read.
        DamagedError: a record is not what was written.
        DataError: segments have different widths.
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
            raise UnreadableError(f"cannot read {file.path}: {error.strerror}") from error
        if not intact.all():
            track = index["id"][group[~intact][0]].decode()
            raise DamagedError(
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
