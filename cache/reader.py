"""Reading caches: one data set's folder, its tracks one by one or in bulk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from m2e.cache.catalogue import ChangedMeanwhile, gather
from m2e.cache.catalogue import scan as scan
from m2e.cache.failures import Failure, read_failures
from m2e.cache.folders import one_features_folder, read_config
from m2e.cache.harmony import MODES, ChordSequence, Key
from m2e.cache.labels import read_labels
from m2e.cache.layout import unsound
from m2e.cache.notes import Note, read_notes
from m2e.cache.settings import ExtractionConfig
from m2e.cache.types import Labels
from m2e.common.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame

_TRIES = 20
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of many tracks in bulk.

    Track i has segments ``first[i]`` to ``first[i + 1]`` and chords ``first_chord[i]`` to ``first_chord[i + 1]``.

    Attributes:
        track_ids: the N tracks.
        embeddings: all segments, track after track, each in time order [shape=(S, layers, dim)].
        first: where each track's segments begin, and the end [shape=(N + 1,)].
        chord_records: absolute chords of all tracks: start and end in seconds, root, quality [shape=(C,),
            dtype=m2e.cache.layout.CHORD].
        first_chord: where each track's chords begin, and the end [shape=(N + 1,)].
        key_tonic: 0-11, -1 where no key was found [shape=(N,)].
        key_mode: 0 major, 1 minor, -1 where no key was found [shape=(N,)].
        audio_sha256: digest of each audio file, 32 bytes.
    """

    track_ids: tuple[str, ...]
    embeddings: NDArray[np.float16]
    first: NDArray[np.int64]
    chord_records: NDArray[Any]
    first_chord: NDArray[np.int64]
    key_tonic: NDArray[np.int8]
    key_mode: NDArray[np.int8]
    audio_sha256: list[bytes]

    @cached_property
    def chords(self) -> list[ChordSequence]:
        """Absolute chords, one sequence a track; made on first use."""
        parts = np.split(self.chord_records, self.first_chord[1:-1]) if self.track_ids else []
        return [
            ChordSequence(np.stack([part["start"], part["end"]], axis=1), part["root"], part["quality"])
            for part in parts
        ]

    @cached_property
    def keys(self) -> list[Key | None]:
        """None where no key was found; made on first use."""
        pairs = zip(self.key_tonic.tolist(), self.key_mode.tolist(), strict=True)
        return [Key(tonic, MODES[mode]) if tonic >= 0 else None for tonic, mode in pairs]


class FeatureCache:
    """One data set's cache, read-only. It keeps no file open, so it can be pickled into workers.

    Use `FeatureCache.open`; a `with` block is possible and frees nothing but the tables. A packer may replace files
    meanwhile: the cache then finds their tracks again.
    """

    def __init__(self, folder: Path, features: Path, config: ExtractionConfig, labels: Labels) -> None:
        self.folder = folder
        self.config = config
        self.labels = labels
        self._features = features
        self._scan()
        self.track_ids: tuple[str, ...] = tuple(track_id.decode() for track_id in self._catalogue.index["id"].tolist())

    def _scan(self) -> None:
        found = scan(self._features, self.config)
        self._catalogue = found.only(self.labels.theirs(found.index["id"], found.index["audio_sha256"]))
        self.__dict__.pop("_row", None)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {track_id.decode(): row for row, track_id in enumerate(self._catalogue.index["id"].tolist())}

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
        chosen = one_features_folder(folder, features)
        return cls(folder, chosen, read_config(chosen), labels)

    @property
    def layers(self) -> tuple[int, ...]:
        """Which hidden states are stored, ascending."""
        return self.config.layers

    @property
    def several(self) -> list[str]:
        """A line on each way in which tracks have several records, of which one is read."""
        return self._catalogue.several

    @property
    def splits(self) -> tuple[str, ...]:
        """Split of each track of `track_ids`; "" for one in no split, or no longer in the manifest."""
        split = dict(zip(self.labels.track_ids, self.labels.splits, strict=True))
        return tuple(split.get(track_id, "") for track_id in self.track_ids)

    @property
    def n_segments(self) -> int:
        """Segments of all tracks together."""
        return int(self._catalogue.index["segments"].sum(dtype=np.int64))

    @property
    def durations(self) -> NDArray[np.float64]:
        """Seconds of audio of each track of `track_ids` [shape=(N,)]."""
        return self._catalogue.index["duration"].astype(np.float64)

    @property
    def hours(self) -> float:
        """Length of the audio behind the features."""
        return float(self._catalogue.index["duration"].sum()) / 3600

    @property
    def notes(self) -> dict[str, tuple[Note, ...]]:
        """What there is to say of the audio of tracks, where there is anything. Raises DataError as `read_notes`."""
        return read_notes(self._features, self._catalogue.audio_sha256)

    @property
    def failures(self) -> dict[str, Failure]:
        """Why tracks have no features, or none of their newer audio. Raises DataError as `read_failures`."""
        return read_failures(self._features, self._catalogue.audio_sha256)

    def to_frame(self) -> DataFrame:
        """What is known of each track but its features, as a pandas table, one row a track of `track_ids`.

        Its index is track_id; its columns are duration (seconds), segments, chords (how many), tonic (0-11, C is 0) and
        mode (missing where no key was found), then, missing for a track that is no longer in the manifest, split,
        clip_group, artist, valence and arousal (1-9, NaN where unlabelled), and each tag.
        """
        import pandas as pd

        index, labels = self._catalogue.index, self.labels
        tracks = pd.Index(self.track_ids, name="track_id")
        found = index["key_tonic"] >= 0
        facts = pd.DataFrame(
            {
                "duration": index["duration"],
                "segments": index["segments"].astype(np.int64),
                "chords": index["chords"].astype(np.int64),
                "tonic": pd.array(np.where(found, index["key_tonic"], 0), "Int8"),
                "mode": [MODES[mode] if there else None for mode, there in zip(index["key_mode"], found, strict=True)],
            },
            tracks,
        )
        facts.loc[~found, "tonic"] = pd.NA
        told = pd.DataFrame(
            {
                "split": labels.splits,
                "clip_group": labels.clip_group,
                "artist": labels.artist,
                "valence": labels.valence_arousal[:, 0],
                "arousal": labels.valence_arousal[:, 1],
            },
            labels.track_ids,
        )
        tags = pd.DataFrame(labels.tags.astype(bool), labels.track_ids, labels.tag_names)
        return facts.join(told).join(tags)

    def embeddings(self, track_id: str) -> NDArray[np.float32]:
        """Embeddings of a track, segments in time order [shape=(segments, layers, dim)].

        Raises:
            KeyError: the track has no features.
            DataError: its record is damaged.
        """
        return self.load((track_id,)).embeddings.astype(np.float32)

    def chords(self, track_id: str) -> ChordSequence:
        """Absolute chords of a track. Raises KeyError as `embeddings` does."""
        return self.load((track_id,)).chords[0]

    def key(self, track_id: str) -> Key | None:
        """Key of a track, None where none was found. Raises KeyError as `embeddings` does."""
        return self.load((track_id,)).keys[0]

    def load(self, track_ids: Sequence[str] | None = None) -> FeatureTable:
        """Load many tracks at once, all by default, each file in one sweep; digests are checked on the way.

        Raises:
            KeyError: a track has no features.
            DataError: a record is damaged.
        """
        ids = self.track_ids if track_ids is None else tuple(track_ids)
        records = self._steadily(lambda: gather(self._catalogue, self._rows(ids)))
        first, first_chord = (
            np.append(0, np.cumsum(records.index[count], dtype=np.int64)) for count in ("segments", "chords")
        )
        forged = unsound(records)
        if forged.any():  # under a digest that fits
            row = int(np.searchsorted(first_chord, np.argmax(forged), side="right")) - 1
            raise DataError(f"{self.folder}: track {ids[row]!r} has chords that cannot be; its file was forged")
        return FeatureTable(
            track_ids=ids,
            embeddings=records.embeddings,
            first=first,
            chord_records=records.chords,
            first_chord=first_chord,
            key_tonic=records.index["key_tonic"].copy(),
            key_mode=records.index["key_mode"].copy(),
            audio_sha256=[digest.tobytes() for digest in records.index["audio_sha256"]],
        )

    def _rows(self, ids: tuple[str, ...]) -> NDArray[np.int64]:
        return np.array([self._row[track_id] for track_id in ids], np.int64)

    def _steadily(self, read: Callable[[], _T]) -> _T:
        """What `read` gives, with a new scan where a packer has replaced files meanwhile."""
        for _ in range(_TRIES):
            try:
                return read()
            except ChangedMeanwhile:
                self._scan()
        raise DataError(f"{self._features} changes all the time: wait until nobody packs or rewrites it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
