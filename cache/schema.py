"""What a cache holds, and under which settings it was made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.harmony import ChordSequence, Key

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Precision = Literal["float32", "tf32", "bf16", "int8"]
ResamplerName = Literal["sinc_hann", "soxr_hq"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# Raised only when the features themselves change for the same settings.
FEATURE_VERSION = 1
MAX_ID_BYTES = 64


@dataclass(frozen=True)
class ExtractionConfig:
    """Everything that changes a feature. Two caches with equal fingerprints can be mixed.

    Attributes:
        encoder: registry name or folder name of the encoder.
        encoder_revision: 40-hex revision, or "sha256:..." of a local checkpoint.
        layers: indices k of the stored hidden states h[k], ascending (h[0] is the input of block 1).
        sample_rate: of the encoder, Hz.
        segment_seconds: length of a segment; segments follow each other without overlap.
        tail: what happens to the remainder after the last full segment.
        min_tail_seconds: the shortest remainder that ``tail = keep`` keeps.
        resampler: how audio reaches `sample_rate`.
        chords: name of the chord recogniser.
        chords_revision: its weights' digest; empty when it has none.
        precision: of the encoder's matrix products.
    """

    encoder: str
    encoder_revision: str
    layers: tuple[int, ...] = (5, 6, 7)
    sample_rate: int = 24_000
    segment_seconds: float = 30.0
    tail: Literal["drop", "keep"] = "drop"
    min_tail_seconds: float = 5.0
    resampler: ResamplerName = "sinc_hann"
    chords: str = "btc"
    chords_revision: str = ""
    precision: Precision = "float32"
    feature_version: int = FEATURE_VERSION

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a hash over all fields."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    def to_json(self) -> str:
        """Readable and canonical: the same settings give the same text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: not JSON, or fields are missing or unknown.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            known = {field.name for field in fields(cls)}
            if unknown := sorted(values.keys() - known):
                raise ValueError(f"it has {', '.join(unknown)}, of a newer m2e: update m2e")
            if missing := sorted(known - values.keys()):
                raise ValueError(f"it lacks {', '.join(missing)}, as made by an older m2e: extract again")
            return cls(**{**values, "layers": tuple(int(layer) for layer in values["layers"])})
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"these extraction settings cannot be read: {error}") from error

    def differences(self, other: ExtractionConfig) -> list[str]:
        """One "field: ours, not theirs" a field that differs."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [f"{name}: {mine!r}, not {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True, eq=False)
class TrackFeatures:
    """All features of one track.

    Attributes:
        track_id: unique in its data set; at most 64 bytes in UTF-8.
        embeddings: time means of the stored hidden states, segments in time order [shape=(segments, layers, dim)].
        chords: absolute, not normalised by key.
        key: None when no pitched chord was heard.
        duration: of the decoded audio, seconds.
        audio_sha256: digest of the audio file, 32 bytes.
        audio_bytes: size of the audio file.
    """

    track_id: str
    embeddings: NDArray[np.float32]
    chords: ChordSequence
    key: Key | None
    duration: float
    audio_sha256: bytes
    audio_bytes: int

    def __post_init__(self) -> None:
        check_id(self.track_id)
        if self.embeddings.ndim != 3 or 0 in self.embeddings.shape:
            raise ValueError(
                f"track {self.track_id!r}: embeddings have shape {self.embeddings.shape}, "
                "not (segments, layers, dim) with at least one of each"
            )
        if not np.isfinite(self.embeddings).all() or np.abs(self.embeddings).max() > 6e4:
            raise ValueError(f"track {self.track_id!r}: embeddings hold values that float16 cannot (NaN, inf or > 6e4)")
        if len(self.audio_sha256) != 32 or self.audio_bytes < 0 or not 0 <= self.duration < np.inf:
            raise ValueError(f"track {self.track_id!r}: no such duration, size or digest of an audio file exists")


def check_id(track_id: str) -> None:
    """Raise ValueError unless `track_id` can be stored: 1-64 bytes of UTF-8, no control characters."""
    if not track_id or len(track_id.encode()) > MAX_ID_BYTES or not track_id.isprintable():
        raise ValueError(f"track id {track_id!r} must be 1-{MAX_ID_BYTES} bytes of UTF-8 without control characters")


@dataclass(frozen=True, eq=False)
class Labels:
    """The manifest of a data set as arrays; row i of every array is track `track_ids[i]`.

    Attributes:
        dataset: name of the data set, such as "mtg-jamendo".
        letter: its letter in the paper's tables (J, D, E, P), or "".
        track_ids: every track of the manifest, with features or without.
        splits: "train", "validation", "test", or "" for a track in none of them.
        tag_names: the T tags in column order; empty when the set has none.
        tags: 0 or 1 [shape=(N, T)].
        valence_arousal: on 1-9, NaN where absent [shape=(N, 2)].
        clip_group: tracks with equal groups hold the same clip, across data sets too.
        artist: "" where unknown.
        provenance: a sentence on where labels and splits come from, for reports.
    """

    dataset: str
    letter: str
    track_ids: tuple[str, ...]
    splits: tuple[str, ...]
    tag_names: tuple[str, ...]
    tags: NDArray[np.uint8]
    valence_arousal: NDArray[np.float32]
    clip_group: tuple[str, ...]
    artist: tuple[str, ...]
    provenance: str

    def __post_init__(self) -> None:
        n = len(self.track_ids)
        shapes = {
            "splits": (len(self.splits) == n),
            "tags": self.tags.shape == (n, len(self.tag_names)),
            "valence_arousal": self.valence_arousal.shape == (n, 2),
            "clip_group": len(self.clip_group) == n,
            "artist": len(self.artist) == n,
        }
        wrong = [name for name, right in shapes.items() if not right]
        if wrong:
            raise ValueError(f"labels of {self.dataset!r}: {', '.join(wrong)} do not match {n} tracks")
        if len(set(self.track_ids)) != n:
            raise ValueError(f"labels of {self.dataset!r}: track ids are not unique")
        for track_id in self.track_ids:
            check_id(track_id)
        if set(self.splits) - {*SPLITS, ""}:
            raise ValueError(f"labels of {self.dataset!r}: splits must be among {SPLITS} or empty")
