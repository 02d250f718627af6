"""labels.h5: ids, splits and labels of a data set; apart from the features, so that they change alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from m2e.cache.folders import LABELS_FILE
from m2e.cache.hdf5 import Schema, Schemas, hdf5_image, inspect
from m2e.cache.types import SPLITS, Labels, Source
from m2e.common.errors import DamagedError, DataError, UnreadableError
from m2e.common.files import write_atomically

_NO_SPLIT = len(SPLITS)
_MOST_BYTES = 1 << 30  # it is read whole; a million tracks take about 300 MB
_AGAIN = "`m2e-cache repair` sets it aside; then m2e-extract, or m2e-cache relabel, writes it again"
_VERSION = 2
_FORMER: Schema = {
    "dataset": ("S", 1),
    "letter": ("S", 1),
    "provenance": ("S", 1),
    "track_ids": ("S", 1),
    "splits": (np.dtype("u1"), 1),
    "tag_names": ("S", 1),
    "tags": (np.dtype("u1"), 2),
    "valence_arousal": (np.dtype("<f4"), 2),
    "clip_group": ("S", 1),
    "artist": ("S", 1),
}
_SCHEMA: Schema = {
    **_FORMER,
    "root": ("S", 1),
    "paths": (np.dtype("<u8"), 1),
    "heard": (np.dtype("<u8"), 1),
    "audio": (np.dtype("u1"), 2),
}
_SCHEMAS: Schemas = {1: _FORMER, _VERSION: _SCHEMA}


def write_labels(folder: Path, labels: Labels) -> None:
    """Replace labels.h5 in a data set's cache folder, whole and at once.

    Raises:
        DataError: the folder cannot be written.
    """
    splits = [SPLITS.index(split) if split else _NO_SPLIT for split in labels.splits]
    source = labels.source
    datasets: dict[str, NDArray[np.generic]] = {
        "dataset": _encode([labels.dataset]),
        "letter": _encode([labels.letter]),
        "provenance": _encode([labels.provenance]),
        "track_ids": _encode(labels.track_ids),
        "splits": np.array(splits, "u1"),
        "tag_names": _encode(labels.tag_names),
        "tags": labels.tags.astype("u1"),
        "valence_arousal": labels.valence_arousal.astype("<f4"),
        "clip_group": _encode(labels.clip_group),
        "artist": _encode(labels.artist),
        "root": _encode([source.root] if source else []),
        "paths": source.paths.astype("<u8") if source else np.zeros(0, "<u8"),
        "heard": source.heard.astype("<u8") if source else np.zeros(0, "<u8"),
        "audio": source.audio.astype("u1") if source else np.zeros((0, 32), "u1"),
    }
    write_atomically(folder / LABELS_FILE, hdf5_image(datasets, _VERSION, {"digest": _digest(datasets, _SCHEMA)}))


def read_labels(folder: Path) -> Labels:
    """Read labels.h5 of a data set's cache folder.

    Raises:
        UnreadableError, NewerError, DamagedError: see there.
        DataError: there is none.
    """
    path = folder / LABELS_FILE
    try:
        with inspect(path, _SCHEMAS, ("digest",), _MOST_BYTES) as contents:
            schema = _SCHEMAS[contents.version]
            values = {name: contents.read(name) for name in schema}
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UnreadableError(f"{path} is a link to {path.readlink()}, which is not there") from error
        raise DataError(
            f"{folder} is no cache of a data set: it has no {LABELS_FILE}. `m2e-extract` makes one"
        ) from error
    except DamagedError as error:
        raise DamagedError(f"{error}. {_AGAIN}") from error
    if not np.array_equal(contents.attributes.get("digest", np.zeros(0)), _digest(values, schema)):
        raise DamagedError(f"{path} is damaged: its digest differs. {_AGAIN}")
    try:
        root = _decode(values["root"]) if "root" in values else ()
        return Labels(
            dataset=_decode(values["dataset"])[0],
            letter=_decode(values["letter"])[0],
            provenance=_decode(values["provenance"])[0],
            track_ids=_decode(values["track_ids"]),
            splits=tuple((*SPLITS, "")[int(split)] for split in values["splits"]),
            tag_names=_decode(values["tag_names"]),
            tags=values["tags"],
            valence_arousal=values["valence_arousal"],
            clip_group=_decode(values["clip_group"]),
            artist=_decode(values["artist"]),
            source=Source(root[0], values["paths"], values["heard"], values["audio"]) if root else None,
        )
    except (ValueError, IndexError) as error:
        raise DamagedError(f"{path} is damaged: {error}. {_AGAIN}") from error


def has_labels(folder: Path) -> bool:
    """Whether a data set's cache folder has labels.h5, be it a link that leads to nothing now."""
    return os.path.lexists(folder / LABELS_FILE)


def _digest(datasets: Mapping[str, NDArray[Any]], schema: Schema) -> NDArray[np.uint64]:
    """XXH3, 128 bits, seed 0, of the datasets' bytes in the order of the schema: its high and its low half."""
    digest = xxhash.xxh3_128()
    for name in schema:
        digest.update(datasets[name].tobytes())
    return np.frombuffer(digest.digest(), ">u8").astype("<u8")


def _encode(texts: tuple[str, ...] | list[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], "S")


def _decode(texts: NDArray[np.bytes_]) -> tuple[str, ...]:
    return tuple(text.decode() for text in texts)
