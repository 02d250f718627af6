"""Feature files on disk: opened, checked, and read a track at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import MODES
from m2e.cache.hdf5 import inspect
from m2e.cache.layout import CHORD, HIGHEST_GENERATION, INDEX, NO_KEY, SCHEMAS, Records, bytes_of, record_digest
from m2e.cache.settings import ExtractionConfig
from m2e.common.errors import DamagedError, DataError
from m2e.common.regular import open_regular

# More than any writer puts into one file; a forged file cannot make a scan take more memory than this.
_MAX_TRACKS = 65_536
_RUN_BYTES = 1 << 19


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """Where the data of a feature file lies.

    Attributes:
        folder, name: the file.
        embeddings, chords: offsets of the two datasets, bytes.
        n_segments, n_chords: their lengths.
        shape: of a segment, (layers, dim).
        generation: see `m2e.cache.layout`.
    """

    folder: Path
    name: str
    embeddings: int
    chords: int
    n_segments: int
    n_chords: int
    shape: tuple[int, int]
    generation: int

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.folder / self.name


def open_features(
    features: Path, name: str, config: ExtractionConfig, damaged: bool = False
) -> tuple[FeatureFile, NDArray[Any]]:
    """What a feature file holds: where its data lies and its index [shape=(T,), dtype=INDEX].

    Args:
        features: the folder.
        name: of the file in it.
        config: the settings of its folder.
        damaged: leave the index unchecked, to see what can be saved; each record has to be checked then.

    Raises:
        FileNotFoundError: the file is gone, as when a packer has just replaced it.
        UnreadableError, NewerError, DamagedError: see there.
        DataError: it is no regular file, was made with other settings than `config`, or has a generation that no m2e
            gives.
    """
    path = features / name
    with inspect(path, SCHEMAS, ("fingerprint", "generation")) as contents:
        fingerprint = _whole(contents.attributes.get("fingerprint"))
        if fingerprint is None:
            raise DamagedError(f"{path} does not say with which settings it was made")
        if fingerprint != int(config.fingerprint, 16):
            raise DataError(
                f"{path} was made with other settings than its folder says: somebody moved it here; move it away"
            )
        generation = _whole(contents.attributes.get("generation", np.zeros((), "u8")))
        if generation is None:
            raise DamagedError(f"{path} has a generation that is no number")
        if not 0 <= generation <= HIGHEST_GENERATION:
            raise DataError(
                f"{path} has generation {generation}, and m2e gives 0 to {HIGHEST_GENERATION}: somebody made it; move "
                "it away, and m2e-extract does again what is in no other file"
            )
        embeddings, chords = contents.blocks["embeddings"], contents.blocks["chords"]
        layers, dim = embeddings.shape[1:]
        if layers != len(config.layers):
            raise DamagedError(f"{path} holds {layers} layers, not {len(config.layers)}")
        if contents.blocks["index"].shape[0] > _MAX_TRACKS:
            raise DamagedError(f"{path} lists more than {_MAX_TRACKS} tracks, which no cache file does")
        index = contents.read("index")
    where, lengths = (embeddings.offset, chords.offset), (embeddings.shape[0], chords.shape[0])
    file = FeatureFile(features, name, *where, *lengths, (layers, dim), generation)
    if not damaged:
        _check_index(file, index)
    return file, index


def _check_index(file: FeatureFile, index: NDArray[Any]) -> None:
    def forged(what: str) -> NoReturn:
        raise DamagedError(f"{file.path}: {what}; it is damaged or forged")

    for count, first, length in (
        ("segments", "first_segment", file.n_segments),
        ("chords", "first_chord", file.n_chords),
    ):
        ends = np.cumsum(index[count].astype("u8"))
        if (index[first] != ends - index[count]).any() or (ends[-1] if len(ends) else 0) != length:
            forged(f"its index does not match its {'embeddings' if count == 'segments' else count}")
    if (index["id"][1:] <= index["id"][:-1]).any() or (index["id"] == b"").any():
        forged("its track ids are not in order")
    try:
        if not b" ".join(index["id"].tolist()).decode().isprintable():
            forged("its track ids hold control characters")
    except UnicodeDecodeError:
        forged("its track ids are not UTF-8")
    tonic, mode = index["key_tonic"], index["key_mode"]
    known = (tonic >= 0) & (tonic < 12) & (mode >= 0) & (mode < len(MODES))
    if not (known | ((tonic == NO_KEY) & (mode == NO_KEY))).all():
        forged("a key in its index is none")
    if not (np.isfinite(index["duration"]) & (index["duration"] >= 0)).all():
        forged("a duration in its index is none")


def _whole(value: NDArray[Any] | None) -> int | None:
    """An attribute that is one whole number."""
    return int(value) if value is not None and not value.shape and value.dtype.kind in "iu" else None


def read_tracks(
    file: FeatureFile, index: NDArray[Any], into: Records, segment: NDArray[np.int64], chord: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Read tracks of one file and check their digests.

    Args:
        file: where from.
        index: the rows of the tracks [shape=(n,), dtype=INDEX].
        into: arrays to fill.
        segment, chord: where each track begins in `into.embeddings` and `into.chords` [shape=(n,)].

    Returns:
        Whether each track is as it was written [shape=(n,)].

    Raises:
        OSError: the file cannot be read; FileNotFoundError, as when a packer has just replaced it.
        DataError: it is no regular file any more.
    """
    width = into.embeddings.itemsize * math.prod(file.shape)
    values = _Pieces(file.embeddings, index["first_segment"], segment, index["segments"], width)
    chords = _Pieces(file.chords, index["first_chord"], chord, index["chords"], CHORD.itemsize)
    values_memory, chords_memory = bytes_of(into.embeddings), bytes_of(into.chords)
    rows, digests = index.tobytes(), index["digest"].tobytes()
    intact = []
    with open_regular(file.path) as raw:
        whole = all(_fill(raw, chords_memory, *run[2:]) for run in chords.runs())
        for first, stop, *place in values.runs():
            filled = _fill(raw, values_memory, *place) and whole
            for i in range(first, stop):
                digest = record_digest(
                    rows[i * INDEX.itemsize : (i + 1) * INDEX.itemsize],
                    values_memory[values.start[i] : values.stop[i]],
                    chords_memory[chords.start[i] : chords.stop[i]],
                )
                intact.append(filled and digest == digests[16 * i : 16 * i + 16])
    return np.array(intact, np.bool_)


class _Pieces:
    """What each track has of a dataset: where it is in the file, and where it goes in memory, in bytes."""

    def __init__(
        self, offset: int, first: NDArray[Any], target: NDArray[np.int64], count: NDArray[Any], width: int
    ) -> None:
        self._source = offset + first.astype(np.int64) * width
        self._size = count.astype(np.int64) * width
        self._target = target * width
        self.start: list[int] = self._target.tolist()
        self.stop: list[int] = (self._target + self._size).tolist()

    def runs(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Pieces that are neighbours in the file and in memory: first, stop, place in the file, bytes in memory."""
        if not len(self._size):
            return
        end = self._source + self._size
        apart = (self._source[1:] != end[:-1]) | (self._target[1:] != (self._target + self._size)[:-1])
        # What was just read is still in the processor's cache when its digest is taken.
        far = np.diff(np.cumsum(self._size) // _RUN_BYTES) > 0
        first = np.flatnonzero(np.append(True, apart | far))
        stop = np.append(first[1:], len(self._size))
        places = (self._source[first], self._target[first], (self._target + self._size)[stop - 1])
        yield from zip(first.tolist(), stop.tolist(), *(place.tolist() for place in places), strict=True)


def _fill(raw: io.FileIO, memory: memoryview, source: int, start: int, stop: int) -> bool:
    """Read into a part of memory; whether the file was long enough."""
    raw.seek(source)
    return raw.readinto(memory[start:stop]) == stop - start


def read_file(path: Path, config: ExtractionConfig) -> tuple[Records, NDArray[np.bool_]]:
    """All tracks of a feature file, and whether each is as it was written; raises as `open_features` and OSError."""
    file, index = open_features(path.parent, path.name, config)
    records = Records(index, np.empty((file.n_segments, *file.shape), "<f2"), np.empty(file.n_chords, CHORD))
    starts = (index[first].astype(np.int64) for first in ("first_segment", "first_chord"))
    return records, read_tracks(file, index, records, *starts)
