"""The layout of a feature file, from tracks to bytes and back.

A feature file ("shard") is immutable and named by its own digest. Its root holds, in this order:

- embeddings [S, L, D] float16: segments of all tracks, a track's in time order;
- chords [C]: start and end in seconds, root and quality as in m2e.cache.harmony;
- index [T]: a row a track, sorted by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.files import Schema, hdf5_image, open_checked
from m2e.cache.harmony import MODES, ChordSequence, Key, Mode
from m2e.cache.schema import MAX_ID_BYTES, SCHEMA_VERSION, ExtractionConfig, TrackFeatures

CHORD = np.dtype([("start", "<f4"), ("end", "<f4"), ("root", "i1"), ("quality", "i1")])
INDEX = np.dtype(
    [
        ("id", f"S{MAX_ID_BYTES}"),
        ("audio_sha256", "u1", (32,)),
        ("audio_bytes", "<u8"),
        ("first_segment", "<u8"),
        ("segments", "<u4"),
        ("first_chord", "<u8"),
        ("chords", "<u4"),
        ("duration", "<f8"),
        ("key_tonic", "i1"),
        ("key_mode", "i1"),
        ("digest", "u1", (16,)),
    ]
)
_NO_KEY = -1
_SCHEMA: Schema = {"embeddings": (np.dtype("<f2"), 3), "chords": (CHORD, 1), "index": (INDEX, 1)}


def shard_image(tracks: Sequence[TrackFeatures], config: ExtractionConfig) -> bytes:
    """The bytes of a shard with these tracks; the order in which they come does not matter."""
    tracks = sorted(tracks, key=lambda track: track.track_id.encode())
    index = np.zeros(len(tracks), INDEX)
    chords = [_chord_rows(track.chords) for track in tracks]
    embeddings = [track.embeddings.astype("<f2") for track in tracks]
    for row, track, values, played in zip(index, tracks, embeddings, chords, strict=True):
        row["id"] = track.track_id.encode()
        row["audio_sha256"] = np.frombuffer(track.audio_sha256, "u1")
        row["audio_bytes"] = track.audio_bytes
        row["segments"] = len(values)
        row["chords"] = len(played)
        row["duration"] = track.duration
        row["key_tonic"] = track.key.tonic if track.key else _NO_KEY
        row["key_mode"] = MODES.index(track.key.mode) if track.key else _NO_KEY
        row["digest"] = _digest(row, values, played)
    for count, first in (("segments", "first_segment"), ("chords", "first_chord")):
        index[first] = np.cumsum(index[count].astype("u8")) - index[count]
    return hdf5_image(
        {"embeddings": np.concatenate(embeddings), "chords": np.concatenate(chords), "index": index},
        {
            "schema_version": SCHEMA_VERSION,
            "layers": np.array(config.layers, "<i8"),
            "sample_rate": config.sample_rate,
            "segment_seconds": config.segment_seconds,
            "fingerprint": np.uint64(int(config.fingerprint, 16)),
        },
    )


def shard_name(image: bytes) -> str:
    """File name of a shard: the digest of its bytes."""
    return f"shard-{hashlib.blake2b(image, digest_size=6).hexdigest()}.h5"


def is_intact(path: Path) -> bool:
    """Whether a shard still has the digest in its name; reads the whole file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=6)).hexdigest()
    return path.stem.partition("-")[2] == digest


def _mode(number: int) -> Mode:
    if number not in range(len(MODES)):
        raise ValueError(f"key mode {number} is neither 0 (major) nor 1 (minor)")
    return MODES[number]


def _chord_rows(chords: ChordSequence) -> NDArray[Any]:
    rows = np.zeros(len(chords), CHORD)
    rows["start"], rows["end"] = chords.intervals.T
    rows["root"], rows["quality"] = chords.root, chords.quality
    return rows


def _digest(row: Any, embeddings: NDArray[np.float16], chords: NDArray[Any]) -> NDArray[np.uint8]:
    """Of everything a record says, without where in the file it stands."""
    digest = hashlib.blake2b(digest_size=16)
    for name in INDEX.names or ():
        if name not in ("first_segment", "first_chord", "digest"):
            digest.update(row[name].tobytes())
    digest.update(np.ascontiguousarray(embeddings).tobytes())
    digest.update(chords.tobytes())
    return np.frombuffer(digest.digest(), "u1")


def read_index(path: Path, config: ExtractionConfig) -> NDArray[Any]:
    """The index of a shard [shape=(T,), dtype=INDEX], checked against the data that it points to.

    Raises:
        DataError: the file is damaged, or was made with other settings than `config`.
    """
    with open_checked(path, _SCHEMA) as file:
        version = int(file.attrs.get("schema_version", 0))
        if version != SCHEMA_VERSION:
            raise DataError(f"{path} has version {version}; this m2e reads version {SCHEMA_VERSION}: update m2e")
        if int(file.attrs.get("fingerprint", 0)) != int(config.fingerprint, 16):
            raise DataError(f"{path} was made with other settings than its folder says: move it away and extract again")
        index: NDArray[Any] = file["index"][()]
        for count, first, data in (("segments", "first_segment", "embeddings"), ("chords", "first_chord", "chords")):
            ends = np.cumsum(index[count].astype("u8"))
            if (index[first] != ends - index[count]).any() or (ends[-1] if len(ends) else 0) != len(file[data]):
                raise DataError(f"{path}: its index does not match its {data}; the file is damaged or forged")
        if file["embeddings"].shape[1] != len(config.layers):
            raise DataError(f"{path} holds {file['embeddings'].shape[1]} layers, not {len(config.layers)}")
    return index


@dataclass(frozen=True, eq=False)
class Records:
    """Some tracks of a shard as they are stored; row i of `index` describes `embeddings[i]` and `chords[i]`."""

    index: NDArray[Any]
    embeddings: list[NDArray[np.float16]]
    chords: list[ChordSequence]
    keys: list[Key | None]


def read_records(path: Path, rows: Sequence[int]) -> Records:
    """Read the tracks in `rows` of a shard's index, in that order, and check their digests.

    Raises:
        DataError: a record is not what was written.
    """
    with open_checked(path, _SCHEMA) as file:
        index = file["index"][()]
        # One sweep is faster than slices unless only a few of many tracks are wanted.
        whole = len(rows) * 4 > len(index)
        source: NDArray[np.float16] | h5py.Dataset = file["embeddings"][()] if whole else file["embeddings"]
        played = file["chords"][()]
        records = Records(index[list(rows)], [], [], [])
        for row in records.index:
            first, chord = int(row["first_segment"]), int(row["first_chord"])
            values = np.asarray(source[first : first + int(row["segments"])])
            chords = played[chord : chord + int(row["chords"])]
            if _digest(row, values, chords).tobytes() != row["digest"].tobytes():
                raise DataError(
                    f"{path}: the record of track {row['id'].decode(errors='replace')!r} is damaged. "
                    "`m2e-cache verify` lists what is; move such files away and run m2e-extract again"
                )
            records.embeddings.append(values)
            times = np.stack([chords["start"], chords["end"]], axis=1)
            tonic, mode = int(row["key_tonic"]), int(row["key_mode"])
            try:
                records.chords.append(ChordSequence(times, chords["root"], chords["quality"]))
                records.keys.append(None if (tonic, mode) == (_NO_KEY, _NO_KEY) else Key(tonic, _mode(mode)))
            except ValueError as error:  # the digest fits, so somebody forged the file
                raise DataError(f"{path}: track {row['id'].decode(errors='replace')!r}: {error}") from error
        return records
