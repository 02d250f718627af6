"""Caches of one data set from several machines become one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.catalogue import Catalogue, scan
from m2e.cache.folders import (
    CONFIG_FILE,
    features_folder,
    one_features_folder,
    read_config,
    write_config,
)
from m2e.cache.hdf5 import MAX_FILE_BYTES
from m2e.cache.json_lines import MOST_BYTES
from m2e.cache.labels import has_labels, read_labels, write_labels
from m2e.cache.lock import pack_lock
from m2e.cache.types import FOREIGN, UNKNOWN, Labels, Source
from m2e.common.checks import NAME_RULE, can_name
from m2e.common.errors import DataError
from m2e.common.files import content_digest, write_atomically
from m2e.common.regular import read_regular


@dataclass(frozen=True)
class Merged:
    """What `merge` did: tracks that were new to the target, tracks there now, files copied."""

    new: int
    tracks: int
    files: int


def merge(
    sources: Sequence[Path],
    into: Path,
    features: str | None = None,
    *,
    break_lock: bool = False,
    advance: Callable[[int], None] = lambda files: None,
) -> Merged:
    """Copy what `sources` hold into the cache `into`, which is made where it does not exist; sources stay.

    All must be of one data set and one group of settings, with the same labels and the same audio for the same tracks.
    Everything is compared before anything is copied. The newest files come first and keep the time of their
    modification, so that wherever it is interrupted no older record of a track counts; run it again then.

    Args:
        sources: data sets' folders, such as ``node1/deam``, ``node2/deam``.
        into: the data set's folder that takes them in.
        features: the beginning of a fingerprint, where a source holds features of several settings.
        break_lock: see `pack_lock`, of the target.
        advance: called with 1 after each feature file of a source.

    Raises:
        LockedError: somebody packs there.
        DataError: a source is damaged or of another data set or other settings, labels differ, a track has records of
            different audio, or the target cannot be written.
    """
    name = into.resolve().name
    if not can_name(name):
        raise DataError(f"{into}: {name[:80]!r} cannot name a data set ({NAME_RULE}): merge into another folder")
    folders = [one_features_folder(source, features) for source in sources]
    config = read_config(folders[0])
    labels = read_labels(sources[0])
    for source, folder in zip(sources[1:], folders[1:], strict=True):
        its = read_config(folder)
        if differs := its.differences(config):
            raise DataError(f"{source} and {sources[0]} were made with different settings: {'; '.join(differs)}")
        if its.fingerprint != config.fingerprint:
            raise DataError(f"{source} and {sources[0]} were made by different versions of m2e: merge those of one")
        labels = _together(labels, read_labels(source), source)
    target = features_folder(into, config)
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make {into}: {error.strerror}") from error
    with pack_lock(into, break_lock):
        if has_labels(into):
            labels = _together(read_labels(into), labels, into)
        if (target / CONFIG_FILE).exists():
            read_config(target)
        before = _audio(scan(target, config))
        after = dict(before)
        catalogues = [scan(folder, config) for folder in folders]
        for folder, catalogue in zip(folders, catalogues, strict=True):
            for track_id, audio in _audio(catalogue).items():
                if after.setdefault(track_id, audio) != audio:
                    raise DataError(
                        f"{folder}: track {track_id.decode()!r} has another record there than elsewhere, of other "
                        "audio: extract it again where its audio is not the right one (m2e-extract --check-audio)"
                    )
        write_labels(into, labels)
        if not (target / CONFIG_FILE).exists():
            write_config(target, config)
        copied = _copy(catalogues, target, advance)
        for folder in folders:
            _copy_notes(folder, target)
    return Merged(len(after) - len(before), len(after), copied)


def _audio(catalogue: Catalogue) -> dict[bytes, bytes]:
    """The digest of each track's audio: of one audio two processors' records may differ in their last bits."""
    index = catalogue.index
    return dict(zip(index["id"].tolist(), (digest.tobytes() for digest in index["audio_sha256"]), strict=True))


def _copy(catalogues: Sequence[Catalogue], target: Path, advance: Callable[[int], None]) -> int:
    """Copy feature files, in the order in which their records count: what is copied last replaces nothing."""
    files = [
        (file.generation, file.path.stat().st_mtime_ns, file.name, file.path)
        for catalogue in catalogues
        for file in catalogue.files
    ]
    copied = 0
    for _, modified, name, path in sorted(files, reverse=True):
        image = read_regular(path, MAX_FILE_BYTES)
        if content_digest(image) != path.stem.partition("-")[2]:
            raise DataError(
                f"{path} is damaged: `m2e-cache repair {path.parent.parent}` sets it aside; then merge again"
            )
        place = target / name
        if not place.exists():
            write_atomically(place, image, modified)
            copied += 1
        elif place.stat().st_mtime_ns < modified:
            os.utime(place, ns=(modified, modified))
        advance(1)
    return copied


def _copy_notes(source: Path, target: Path) -> None:
    """Copy what writers noted; what has the same name is of different machines with the same name."""
    for note in (
        path for name in ("provenance-*.json", "failures-*.jsonl", "notes-*.jsonl") for path in source.glob(name)
    ):
        content = read_regular(note, MOST_BYTES)
        place = target / note.name
        if place.exists() and read_regular(place, MOST_BYTES) != content:
            place = place.with_name(f"{note.stem}-{content_digest(content)}{note.suffix}")
        write_atomically(place, content)


def _together(ours: Labels, theirs: Labels, where: Path) -> Labels:
    """Labels of all tracks of both."""
    for name in ("dataset", "letter", "tag_names"):
        if getattr(ours, name) != getattr(theirs, name):
            raise DataError(
                f"{where} is of another data set: its {name} is {getattr(theirs, name)!r}, not {getattr(ours, name)!r}"
            )
    if ours.source and theirs.source and not ours.is_same(theirs):
        raise DataError(
            f"{where} is of another table called {theirs.dataset}, of {theirs.source.root or 'the data set'}, than "
            f"{ours.source.root or 'the data set'}: their tracks have other paths. Merge caches of one table, whole in "
            "each (--shard I/N extracts parts of it)"
        )
    row = {track_id: i for i, track_id in enumerate(ours.track_ids)}
    new = [i for i, track_id in enumerate(theirs.track_ids) if track_id not in row]
    for i, track_id in enumerate(theirs.track_ids):
        if track_id in row and not _same(ours, row[track_id], theirs, i):
            raise DataError(
                f"{where}: track {track_id!r} has other labels there than elsewhere: bring one of them up to date with "
                "m2e-cache relabel first"
            )

    def both(name: str) -> tuple[str, ...]:
        return getattr(ours, name) + tuple(getattr(theirs, name)[i] for i in new)

    def rows(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(ours, name), getattr(theirs, name)[new]])

    return Labels(
        dataset=ours.dataset,
        letter=ours.letter,
        track_ids=both("track_ids"),
        splits=both("splits"),
        tag_names=ours.tag_names,
        tags=rows("tags"),
        valence_arousal=rows("valence_arousal"),
        clip_group=both("clip_group"),
        artist=both("artist"),
        provenance="; ".join(dict.fromkeys((ours.provenance, theirs.provenance))),
        source=_source(ours, theirs, new),
    )


def _source(ours: Labels, theirs: Labels, new: list[int]) -> Source | None:
    """Which manifest the labels of both are; `new`: the rows of theirs that ours lack.

    Of a track in both the features may come from either: they are as well known as in the one that knows less.
    """
    root = next((its.source.root for its in (ours, theirs) if its.source), None)
    if not root:
        return ours.source or theirs.source
    mine, its = _known(ours), _known(theirs)
    row = {track_id: i for i, track_id in enumerate(ours.track_ids)}
    heard, audio = mine.heard.copy(), mine.audio.copy()
    for i, j in ((row[track_id], j) for j, track_id in enumerate(theirs.track_ids) if track_id in row):
        if heard[i] != its.heard[j] or (audio[i] != its.audio[j]).any():
            heard[i] = FOREIGN if FOREIGN in (heard[i], its.heard[j]) else UNKNOWN
            audio[i] = 0
    return Source(
        root,
        np.append(mine.paths, its.paths[new]),
        np.append(heard, its.heard[new]),
        np.concatenate([audio, its.audio[new]]),
    )


def _known(labels: Labels) -> Source:
    if labels.source and labels.source.root:
        return labels.source
    n = len(labels.track_ids)
    return Source("/", np.full(n, UNKNOWN, "u8"), np.full(n, UNKNOWN, "u8"), np.zeros((n, 32), "u1"))


def _same(ours: Labels, i: int, theirs: Labels, j: int) -> bool:
    texts = all(getattr(ours, name)[i] == getattr(theirs, name)[j] for name in ("splits", "clip_group", "artist"))
    return (
        texts
        and np.array_equal(ours.tags[i], theirs.tags[j])
        and np.array_equal(ours.valence_arousal[i], theirs.valence_arousal[j], equal_nan=True)
    )
