"""A manifest's labels into the cache of its data set; features are not touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from m2e.cache.folders import LABELS_FILE
from m2e.cache.labels import has_labels, read_labels, write_labels
from m2e.cache.lock import pack_lock
from m2e.cache.types import FOREIGN, UNKNOWN, Labels, Source
from m2e.common.console import say
from m2e.common.errors import DataError, printable
from m2e.manifests.types import Manifest

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
    """Which manifest it is, for the labels that are made of it; all features are taken for its tracks'."""
    if manifest.root is None:
        return Source("", np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros((0, 32), np.uint8))
    root = str(manifest.root.resolve())
    prefix = f"{manifest.root}{os.sep}"
    paths = [str(track.audio_path).removeprefix(prefix) for track in manifest.tracks]
    place = os.fsencode(root).decode(errors="backslashreplace")
    heard = _digests(os.path.join(root, path) for path in paths)  # noqa: PTH118
    return Source(printable(place), _digests(paths), heard, np.zeros((len(paths), 32), np.uint8))


def _digests(paths: Iterable[str]) -> NDArray[np.uint64]:
    digests = np.fromiter((xxhash.xxh3_64_intdigest(os.fsencode(path)) for path in paths), np.uint64)
    return np.maximum(digests, np.uint64(UNKNOWN + 1))


def _check_same(new: Labels, old: Labels, folder: Path) -> None:
    if old.is_same(new):
        return
    of = f" of {old.source.root}" if old.source and old.source.root else ""
    ids = len(set(old.track_ids).intersection(new.track_ids))
    raise DataError(
        f"{folder} is the cache of another data set called {old.dataset}: it has {len(old.track_ids)} tracks{of}, and "
        f"{ids} of their ids are among your {len(new.track_ids)}, with other paths perhaps. Give yours another name "
        "(--name NAME), or, if it is to take the other's place, say so (--replace)"
    )


@dataclass(frozen=True, eq=False)
class Standing:
    """How far the features that a cache keeps are a manifest's, track by track.

    Attributes:
        heard, audio: see `Source`, as far as the cache knows.
        here: what `heard` is of the manifest's own audio [shape=(N,)].
        labelled: there are labels.
        moved: they are of the same manifest in another folder.
    """

    heard: NDArray[np.uint64]
    audio: NDArray[np.uint8]
    here: NDArray[np.uint64]
    labelled: bool = True
    moved: bool = False

    @property
    def foreign(self) -> NDArray[np.bool_]:
        """Whose features are another table's, unless their audio is the same."""
        return self.heard == FOREIGN

    def fits(self, audio: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether features of audio with these digests [shape=(N, 32)] are known to be of the manifest's."""
        return (self.heard == self.here) & (~self.audio.any(axis=1) | (self.audio == audio).all(axis=1))

    @classmethod
    def of(cls, labels: Labels, old: Labels | None, replace: bool = False) -> Standing:
        """Of a manifest's fresh labels, where a cache has `old` ones.

        Args:
            replace: where those are none of this manifest's, or there are none, the features are another's.
        """
        same, n = old.is_same(labels) if old else not replace, len(labels.track_ids)
        audio = np.zeros((n, 32), np.uint8)
        if labels.source is None or not labels.source.root:  # a registered data set, which its name tells from others
            here = np.full(n, UNKNOWN + 1, np.uint64)
            return cls(here if same else np.full(n, FOREIGN, np.uint64), audio, here, old is not None)
        heard = np.full(n, UNKNOWN if same else FOREIGN, np.uint64)
        if same and old and old.source and old.source.root:
            row = {track_id: i for i, track_id in enumerate(old.track_ids)}
            places = np.array([row.get(track_id, -1) for track_id in labels.track_ids], np.int64)
            heard = np.where(places >= 0, old.source.heard[places], heard)
            audio = np.where(places[:, None] >= 0, old.source.audio[places], audio)
        moved = bool(old and old.source and old.source.root != labels.source.root)
        return cls(heard, audio, labels.source.heard, old is not None, moved)

    def learned(self, confirmed: NDArray[np.bool_], audio: NDArray[np.uint8], doubted: NDArray[np.bool_]) -> Standing:
        """With what was found out.

        Args:
            confirmed: whose features are of the manifest's audio, whose digest is in `audio`; zeros where it has none.
            doubted: whose audio is another now: until new features are sealed, the former ones count.
        """
        heard = np.where(doubted & ~self.foreign, np.uint64(UNKNOWN), np.where(confirmed, self.here, self.heard))
        known = audio.any(axis=1) & confirmed
        kept = np.where(doubted[:, None], np.uint8(0), np.where(known[:, None], audio, self.audio))
        return replace_fields(self, heard=heard, audio=kept)


Learn = Callable[[Standing], Standing]


def standing(manifest: Manifest, folder: Path, replace: bool = False) -> Standing:
    """How far the features in a data set's cache folder are this manifest's; `replace` as in `Standing.of`.

    Raises:
        DataError: the folder is another manifest's of the same name, which it is not to replace, or cannot be read.
    """
    labels = manifest_labels(manifest)
    return Standing.of(labels, _before(labels, folder, replace), replace)


def save_labels(
    manifest: Manifest,
    folder: Path,
    learn: Learn = lambda known: known,
    *,
    replace: bool = False,
    wait: float = 0.0,
) -> None:
    """Write the manifest to the cache folder of its data set; say so where other labels or splits stood there.

    Args:
        manifest: the data set.
        folder: of its cache.
        learn: adds what was found out to how far the features that are kept are the manifest's.
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
    before = _before(labels, folder, replace)
    if before and before.is_equal(with_standing(labels, before, learn, replace)):
        return
    with pack_lock(folder, wait=wait):
        before = _before(labels, folder, replace)
        labels = with_standing(labels, before, learn, replace)
        if before and not replace and (gone := set(before.track_ids).difference(labels.track_ids)):
            say(
                f"{folder}: {len(gone)} of the {len(before.track_ids)} tracks that {LABELS_FILE} listed are not in the "
                f"table any more (first: {min(gone)}): they go from it, and their features stay",
                "note",
            )
        if before and before.provenance != labels.provenance:
            say(f"{folder}: labels were: {before.provenance}. They are now: {labels.provenance}", "note")
        if not before or not before.is_equal(labels):
            write_labels(folder, labels)


def _before(labels: Labels, folder: Path, replace: bool) -> Labels | None:
    """The labels that a cache has, which are of the same manifest unless it is to `replace` another."""
    before = read_labels(folder) if has_labels(folder) else None
    if before and not replace:
        _check_same(labels, before, folder)
    return before


def with_standing(
    labels: Labels, before: Labels | None, learn: Learn = lambda known: known, replace: bool = False
) -> Labels:
    """Fresh labels with what was known of the features that are kept, and what is learned, see `save_labels`."""
    if not labels.source or not labels.source.root:
        return labels
    known = learn(Standing.of(labels, before, replace))
    return replace_fields(labels, source=replace_fields(labels.source, heard=known.heard, audio=known.audio))
