"""Reading caches: one data set's folder, its tracks one by one or in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.harmony import ChordSequence, Key
from m2e.cache.labels import read_labels
from m2e.cache.schema import ExtractionConfig, Labels
from m2e.cache.shards import INDEX, Records, read_index, read_records
from m2e.cache.writer import CONFIG_FILE


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of many tracks in bulk; track i has segments ``first[i]`` to ``first[i + 1]``.

    Attributes:
        track_ids: the N tracks.
        embeddings: all segments, track after track, each in time order [shape=(S, layers, dim)].
        first: where each track's segments begin, and the end [shape=(N + 1,)].
        chords: absolute chords, one sequence a track.
        keys: None where no key was found.
        audio_sha256: digest of each audio file, 32 bytes.
    """

    track_ids: tuple[str, ...]
    embeddings: NDArray[np.float16]
    first: NDArray[np.int64]
    chords: list[ChordSequence]
    keys: list[Key | None]
    audio_sha256: list[bytes]


def scan(folder: Path, config: ExtractionConfig) -> tuple[NDArray[Any], list[tuple[Path, int]]]:
    """The tracks kept in a features folder: index rows [dtype=INDEX], sorted by id, and where each one is stored.

    Raises:
        DataError: a shard is damaged, or one track has two different records.
    """
    tables, places = [np.zeros(0, INDEX)], []
    for path in sorted(folder.glob("shard-*.h5")):
        table = read_index(path, config)
        tables.append(table)
        places += [(path, row) for row in range(len(table))]
    rows = np.concatenate(tables)
    order = np.argsort(rows["id"], kind="stable")
    kept: list[int] = []
    for i in order:
        if kept and rows["id"][kept[-1]] == rows["id"][i]:
            if (rows["digest"][kept[-1]] != rows["digest"][i]).any():
                raise DataError(
                    f"{folder}: track {rows['id'][i].decode()!r} has two different records, in "
                    f"{places[kept[-1]][0].name} and {places[i][0].name}: delete one of the files and extract again"
                )
            continue
        kept.append(int(i))
    return rows[kept], [places[i] for i in kept]


class FeatureCache:
    """One data set's cache, read-only. It keeps no file open, so it can be pickled into workers.

    Use `FeatureCache.open`; a `with` block is possible and frees nothing but the tables.
    """

    def __init__(self, folder: Path, features: Path, config: ExtractionConfig, labels: Labels) -> None:
        self.folder = folder
        self.config = config
        self.labels = labels
        self._index, self._places = scan(features, config)
        self.track_ids: tuple[str, ...] = tuple(track_id.decode() for track_id in self._index["id"])
        self._row = {track_id: row for row, track_id in enumerate(self.track_ids)}

    @classmethod
    def open(cls, folder: Path | str, features: str | None = None) -> Self:
        """Open the cache of one data set, such as ``features/deam``.

        Args:
            folder: the data set's folder.
            features: the beginning of a fingerprint, where the folder holds features of several settings.

        Raises:
            DataError: it is no cache, holds several settings and `features` does not choose one, or is damaged.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"there is no cache at {folder}: `m2e-extract` makes one")
        labels = read_labels(folder)
        found = sorted(folder.glob("features-*/" + CONFIG_FILE))
        chosen = [path for path in found if path.parent.name.startswith(f"features-{features or ''}")]
        names = ", ".join(path.parent.name.removeprefix("features-") for path in found)
        if not chosen:
            asked = f" that begin with {features!r} (there are: {names})" if found else ""
            raise DataError(f"{folder} has labels but no features{asked}: run m2e-extract for {labels.dataset}")
        if len(chosen) > 1:
            configs = [ExtractionConfig.from_json(path.read_text(encoding="utf-8")) for path in chosen[:2]]
            differs = "; ".join(configs[0].differences(configs[1]))
            raise DataError(
                f"{folder} holds features of several settings ({names}; the first two differ in {differs}): "
                "choose one with --features"
            )
        config = ExtractionConfig.from_json(chosen[0].read_text(encoding="utf-8"))
        if chosen[0].parent.name != f"features-{config.fingerprint}":
            raise DataError(f"{chosen[0]} does not match its folder's name: it was edited, or made by another version")
        return cls(folder, chosen[0].parent, config, labels)

    @property
    def layers(self) -> tuple[int, ...]:
        """Which hidden states are stored, ascending."""
        return self.config.layers

    @property
    def splits(self) -> tuple[str, ...]:
        """Split of each track of `track_ids`; "" for one in no split, or no longer in the manifest."""
        split = dict(zip(self.labels.track_ids, self.labels.splits, strict=True))
        return tuple(split.get(track_id, "") for track_id in self.track_ids)

    @property
    def n_segments(self) -> int:
        """Segments of all tracks together."""
        return int(self._index["segments"].sum())

    @property
    def hours(self) -> float:
        """Length of the audio behind the features."""
        return float(self._index["duration"].sum()) / 3600

    def embeddings(self, track_id: str) -> NDArray[np.float32]:
        """Embeddings of a track, segments in time order [shape=(segments, layers, dim)].

        Raises:
            KeyError: the track has no features.
        """
        return self._read(track_id).embeddings[0].astype(np.float32)

    def chords(self, track_id: str) -> ChordSequence:
        """Absolute chords of a track. Raises KeyError as `embeddings` does."""
        return self._read(track_id).chords[0]

    def key(self, track_id: str) -> Key | None:
        """Key of a track, None where none was found. Raises KeyError as `embeddings` does."""
        return self._read(track_id).keys[0]

    def _read(self, track_id: str) -> Records:
        path, row = self._places[self._row[track_id]]
        return read_records(path, [row])

    def load(self, track_ids: Sequence[str] | None = None) -> FeatureTable:
        """Load many tracks at once, all by default, each file in one sweep.

        Raises:
            KeyError: a track has no features.
            DataError: a record is damaged.
        """
        ids = self.track_ids if track_ids is None else tuple(track_ids)
        rows = [self._row[track_id] for track_id in ids]
        by_file: dict[Path, list[int]] = {}
        for position, row in enumerate(rows):
            by_file.setdefault(self._places[row][0], []).append(position)
        first = np.concatenate([[0], np.cumsum(self._index["segments"][rows].astype(np.int64))])
        chords: list[ChordSequence | None] = [None] * len(ids)
        keys: list[Key | None] = [None] * len(ids)
        embeddings: NDArray[np.float16] = np.zeros((0, len(self.layers), 0), np.float16)
        for path, positions in by_file.items():
            records = read_records(path, [self._places[rows[position]][1] for position in positions])
            if not embeddings.size:
                embeddings = np.zeros((int(first[-1]), *records.embeddings[0].shape[1:]), np.float16)
            for i, position in enumerate(positions):
                if records.embeddings[i].shape[1:] != embeddings.shape[1:]:
                    raise DataError(f"{path}: embeddings of another width than elsewhere in {self.folder}")
                embeddings[first[position] : first[position + 1]] = records.embeddings[i]
                chords[position], keys[position] = records.chords[i], records.keys[i]
        return FeatureTable(
            track_ids=ids,
            embeddings=embeddings,
            first=first,
            chords=[sequence for sequence in chords if sequence is not None],
            keys=keys,
            audio_sha256=[digest.tobytes() for digest in self._index["audio_sha256"][rows]],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
