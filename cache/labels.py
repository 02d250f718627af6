"""labels.h5: ids, splits and labels of a data set; apart from the features, so that they change alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.files import Schema, hdf5_image, open_checked, write_atomically
from m2e.cache.schema import SCHEMA_VERSION, SPLITS, Labels

LABELS_FILE = "labels.h5"
_NO_SPLIT = len(SPLITS)
_SCHEMA: Schema = {
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


def write_labels(folder: Path, labels: Labels) -> None:
    """Replace labels.h5 in a data set's cache folder, whole and at once.

    Raises:
        DataError: the folder cannot be written.
    """
    splits = [SPLITS.index(split) if split else _NO_SPLIT for split in labels.splits]
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
    }
    write_atomically(folder / LABELS_FILE, hdf5_image(datasets, {"schema_version": SCHEMA_VERSION}))


def read_labels(folder: Path) -> Labels:
    """Read labels.h5 of a data set's cache folder.

    Raises:
        DataError: there is none, or it is damaged or of a newer version.
    """
    path = folder / LABELS_FILE
    if not path.exists():
        raise DataError(f"{folder} is no cache of a data set: it has no {LABELS_FILE}. `m2e-extract` makes one")
    with open_checked(path, _SCHEMA) as file:
        version = int(file.attrs.get("schema_version", 0))
        if version != SCHEMA_VERSION:
            raise DataError(f"{path} has version {version}; this m2e reads version {SCHEMA_VERSION}: update m2e")
        values = {name: file[name][()] for name in _SCHEMA}
    try:
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
        )
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged: {error}. Running m2e-extract again rewrites it") from error


def _encode(texts: tuple[str, ...] | list[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], "S")


def _decode(texts: NDArray[np.bytes_]) -> tuple[str, ...]:
    return tuple(text.decode() for text in texts)
