"""The layout of a feature file, from tracks to bytes and back. docs/cache-format.md describes it for other readers.

A feature file is immutable and named by its own digest: ``shard-<digest>.h5`` as a writer sealed it, or
``pack-<digest>.h5`` when shards were put together. Its root holds, in this order:

- embeddings [S, L, D] float16: segments of all tracks, a track's in time order;
- chords [C]: start and end in seconds, root and quality as in m2e.cache.harmony;
- index [T]: a row a track, sorted by id.

Where two files hold a track, the record of the higher generation counts: a root attribute, 0 where it is missing, which
a writer sets when it does tracks again. Packing begins at 0 again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from m2e.cache.harmony import MODES, unsound_chords
from m2e.cache.hdf5 import Schemas, hdf5_image
from m2e.cache.settings import ExtractionConfig
from m2e.cache.types import MAX_ID_BYTES, TrackFeatures
from m2e.common.files import content_digest

Kind = Literal["shard", "pack"]
CHORD = np.dtype([("start", "<f4"), ("end", "<f4"), ("root", "i1"), ("quality", "i1")])
INDEX = np.dtype(
    [
        ("id", f"S{MAX_ID_BYTES}"),
        ("audio_sha256", "u1", (32,)),
        ("audio_bytes", "<u8"),
        ("segments", "<u4"),
        ("chords", "<u4"),
        ("duration", "<f8"),
        ("key_tonic", "i1"),
        ("key_mode", "i1"),
        # A record's digest covers the fields above, which say the same wherever the record stands.
        ("digest", "u1", (16,)),
        ("first_segment", "<u8"),
        ("first_chord", "<u8"),
    ]
)
_DIGESTED_BYTES = INDEX.fields["digest"][1] if INDEX.fields else 0
NO_KEY = -1
# More often no track is done again.
HIGHEST_GENERATION = 1 << 32
VERSION = 1
SCHEMAS: Schemas = {VERSION: {"embeddings": (np.dtype("<f2"), 3), "chords": (CHORD, 1), "index": (INDEX, 1)}}


@dataclass(frozen=True, eq=False)
class Records:
    """Tracks as they are stored: rows of `index` [dtype=INDEX], their segments and chords one after the other."""

    index: NDArray[Any]
    embeddings: NDArray[np.float16]
    chords: NDArray[Any]


def to_record(track: TrackFeatures) -> Records:
    """A track as it is stored.

    Raises:
        ValueError: its embeddings do not fit float16.
    """
    index = np.zeros(1, INDEX)
    index["id"] = track.track_id.encode()
    index["audio_sha256"] = np.frombuffer(track.audio_sha256, "u1")
    index["audio_bytes"] = track.audio_bytes
    index["segments"] = len(track.embeddings)
    index["chords"] = len(track.chords)
    index["duration"] = track.duration
    index["key_tonic"] = track.key.tonic if track.key else NO_KEY
    index["key_mode"] = MODES.index(track.key.mode) if track.key else NO_KEY
    chords = np.zeros(len(track.chords), CHORD)
    chords["start"], chords["end"] = track.chords.intervals.T
    chords["root"], chords["quality"] = track.chords.root, track.chords.quality
    with np.errstate(over="ignore"):  # the next lines say it
        embeddings = np.ascontiguousarray(track.embeddings, "<f2")
    if not np.isfinite(embeddings).all():
        raise ValueError(f"track {track.track_id!r}: embeddings hold values that float16 cannot")
    digest = record_digest(index.tobytes(), bytes_of(embeddings), bytes_of(chords))
    index["digest"] = np.frombuffer(digest, "u1")
    return Records(index, embeddings, chords)


def record_digest(row: bytes, embeddings: memoryview, chords: memoryview) -> bytes:
    """XXH3, 128 bits, seed 0, big-endian: of a row of the index up to its digest, the embeddings and the chords."""
    digest = xxhash.xxh3_128(row[:_DIGESTED_BYTES])
    digest.update(embeddings)
    digest.update(chords)
    return digest.digest()


def join(parts: Iterable[Records]) -> Records:
    """The tracks of all parts, of which there is at least one, sorted by id.

    Raises:
        ValueError: segments of different widths.
    """
    ordered = sorted(parts, key=lambda part: part.index["id"][0])
    return Records(
        np.concatenate([part.index for part in ordered]),
        np.concatenate([part.embeddings for part in ordered]),
        np.concatenate([part.chords for part in ordered]),
    )


def select(records: Records, rows: NDArray[np.int64]) -> Records:
    """The tracks in `rows`, ascending, of a file's records."""
    segment, chord = (
        np.concatenate([np.arange(first, first + count) for first, count in zip(*pair, strict=True)] or [rows[:0]])
        for pair in (
            (records.index["first_segment"][rows].tolist(), records.index["segments"][rows].tolist()),
            (records.index["first_chord"][rows].tolist(), records.index["chords"][rows].tolist()),
        )
    )
    return Records(records.index[rows], records.embeddings[segment], records.chords[chord])


def feature_image(records: Records, config: ExtractionConfig, generation: int = 0) -> bytes:
    """The bytes of a feature file with these tracks, which are sorted by id.

    Args:
        generation: higher than that of every file whose record of one of the tracks this one replaces.
    """
    index = records.index.copy()
    for count, first in (("segments", "first_segment"), ("chords", "first_chord")):
        index[first] = np.cumsum(index[count].astype("u8")) - index[count]
    return hdf5_image(
        {"embeddings": records.embeddings, "chords": records.chords, "index": index},
        VERSION,
        {
            "layers": np.array(config.layers, "<i8"),
            "sample_rate": config.sample_rate,
            "segment_seconds": config.segment_seconds,
            "fingerprint": np.uint64(int(config.fingerprint, 16)),
            **({"generation": np.uint64(generation)} if generation else {}),
        },
    )


def feature_name(kind: Kind, image: bytes) -> str:
    """File name of a feature file."""
    return f"{kind}-{content_digest(image)}.h5"


def unsound(records: Records) -> NDArray[np.bool_]:
    """Which of the chords cannot be [shape=(C,)], see `m2e.cache.harmony.unsound_chords`."""
    chords = records.chords
    first = np.cumsum(records.index["chords"], dtype=np.int64) - records.index["chords"]
    return unsound_chords(chords["start"], chords["end"], chords["root"], chords["quality"], first)


def bytes_of(values: NDArray[Any]) -> memoryview:
    """The memory of a contiguous array."""
    return memoryview(values.reshape(-1).view(np.uint8).data)
