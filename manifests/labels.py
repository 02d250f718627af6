"""A manifest's labels into the cache of its data set; features are not touched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from m2e.cache.console import say
from m2e.cache.errors import DataError, printable
from m2e.cache.folders import LABELS_FILE
from m2e.cache.labels import read_labels, write_labels
from m2e.cache.lock import pack_lock
from m2e.cache.schema import Labels, Source
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
            source=source_of(manifest),
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def source_of(manifest: Manifest) -> Source:
    """Which manifest it is, for the labels that are made of it."""
    if manifest.root is None:
        return Source("", "")
    root = os.fsencode(manifest.root.resolve()).decode(errors="backslashreplace")
    rows = hashlib.blake2b(digest_size=16)
    prefix = f"{manifest.root}{os.sep}"
    for track in manifest.tracks:
        path = str(track.audio_path).removeprefix(prefix)
        rows.update(f"{track.track_id}\0{path}\n".encode(errors="surrogateescape"))
    return Source(printable(root), rows.hexdigest())


def check_same(manifest: Manifest, folder: Path) -> None:
    """Raise DataError where a cache folder is another manifest's of the same name, or its labels cannot be read."""
    if (folder / LABELS_FILE).exists():
        _check_same(source_of(manifest), [track.track_id for track in manifest.tracks], read_labels(folder), folder)


def _check_same(source: Source | None, track_ids: Collection[str], old: Labels, folder: Path) -> None:
    shared = len(set(old.track_ids).intersection(track_ids))
    if old.source is None or source is None:  # an older m2e made it: the rows have to tell
        same = shared == len(old.track_ids) or (source is not None and not source.root and bool(shared))
    else:
        same = old.source.is_same(source) and (bool(shared) or not old.track_ids)
    if same:
        return
    of = f" of {old.source.root}" if old.source and old.source.root else ""
    raise DataError(
        f"{folder} is the cache of another data set called {old.dataset}: it has {len(old.track_ids)} tracks{of}, and "
        f"{shared} of their ids are among your {len(track_ids)}. Give yours another name (--name NAME), or, if it is "
        "to take the other's place, say so (--replace)"
    )


def save_labels(manifest: Manifest, folder: Path, *, replace: bool = False, wait: float = 0.0) -> None:
    """Write the manifest to the cache folder of its data set; say so where other labels or splits stood there.

    Args:
        manifest: the data set.
        folder: of its cache.
        replace: also where that is the cache of another manifest of the same name.
        wait: seconds for another process to let the cache's lock go.

    Raises:
        LockedError: it does not.
        DataError: an id cannot be stored, the folder cannot be written, or is another manifest's.
    """
    labels = manifest_labels(manifest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {folder}: {error.strerror}") from error
    with pack_lock(folder, wait=wait):
        if (folder / LABELS_FILE).exists():
            before = read_labels(folder)
            if not replace:
                _check_same(labels.source, labels.track_ids, before, folder)
            if before.is_equal(labels):
                return
            if before.provenance != labels.provenance:
                say(f"{folder}: labels were: {before.provenance}. They are now: {labels.provenance}", "note")
        write_labels(folder, labels)
