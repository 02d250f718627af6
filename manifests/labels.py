"""A manifest's labels into the cache of its data set; features are not touched."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from m2e.cache.console import say
from m2e.cache.errors import DataError
from m2e.cache.labels import read_labels, write_labels
from m2e.cache.schema import Labels
from m2e.manifests.track import Manifest

# A row of labels.h5 is as wide as its longest, and all rows are read at once.
_LONGEST = 500
_MOST_TAGS = 1000


def manifest_labels(manifest: Manifest) -> Labels:
    """The manifest as arrays, for labels.h5.

    Raises:
        DataError: an id, a text or the number of tags cannot be stored.
    """
    tracks = manifest.tracks
    if len(manifest.tag_names) > _MOST_TAGS:
        raise DataError(f"{manifest.name}: has {len(manifest.tag_names):,} tags, over {_MOST_TAGS:,}")
    for track in tracks:
        if len(track.clip_group) + len(track.artist) > _LONGEST:
            raise DataError(
                f"{manifest.name}: track {track.track_id!r}: clip_group and artist have over {_LONGEST} characters"
            )
    tags = np.zeros((len(tracks), len(manifest.tag_names)), np.uint8)
    column = {name: i for i, name in enumerate(manifest.tag_names)}
    valence_arousal = np.full((len(tracks), 2), np.nan, np.float32)
    for row, track in enumerate(tracks):
        for tag in track.tags or ():
            tags[row, column[tag]] = 1
        if track.valence_arousal:
            valence_arousal[row] = track.valence_arousal.valence, track.valence_arousal.arousal
    try:
        return Labels(
            dataset=manifest.name,
            letter=manifest.letter,
            track_ids=tuple(track.track_id for track in tracks),
            splits=tuple(track.split or "" for track in tracks),
            tag_names=manifest.tag_names,
            tags=tags,
            valence_arousal=valence_arousal,
            clip_group=tuple(track.clip_group for track in tracks),
            artist=tuple(track.artist for track in tracks),
            provenance=manifest.provenance,
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def save_labels(manifest: Manifest, folder: Path) -> None:
    """Write the manifest to the cache folder of its data set; say so where other labels or splits stood there.

    Raises:
        DataError: an id cannot be stored, or the folder cannot be written.
    """
    labels = manifest_labels(manifest)
    with suppress(DataError):  # none there yet, or damaged
        before = read_labels(folder).provenance
        if before != labels.provenance:
            say(f"{folder}: labels were: {before}. They are now: {labels.provenance}", "note")
    write_labels(folder, labels)
