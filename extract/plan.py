"""What an extraction has to do: the manifest, the audio and the cache compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.checks import is_whole, unlike
from m2e.cache.failures import Failure
from m2e.extract.part import Part
from m2e.manifests.track import Manifest, Track


@dataclass(frozen=True, slots=True)
class Task:
    """A track to extract.

    Attributes:
        track_id: unique in its data set.
        path: its audio file, absolute: a worker may have another current folder.
        audio_bytes: size of that file.
        attempts: how often it was tried before, in vain.
    """

    track_id: str
    path: Path
    audio_bytes: int
    attempts: int = 0

    def tried(self) -> Task:
        """The same after one attempt more."""
        return replace(self, attempts=self.attempts + 1)


@dataclass(frozen=True)
class Selection:
    """Which tracks of a data set to extract.

    Attributes:
        limit: only the first `limit` tracks that have audio, of the whole data set.
        part: of these only the tracks in this part.
        retry_failed: try tracks again that failed before.
        overwrite: do tracks again that the cache holds.
        check_audio: compare the audio's digest, not only its size, with that of the file that was extracted.
        accept_cut: take what there is of files that are cut or damaged, and try those again that failed before.
    """

    limit: int | None = None
    part: Part = field(default_factory=Part)
    retry_failed: bool = False
    overwrite: bool = False
    check_audio: bool = False
    accept_cut: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and not is_whole(self.limit, 1):
            raise ValueError(unlike("limit", self.limit, "a whole number, 1 or more, or None"))
        if not isinstance(self.part, Part):
            raise ValueError(unlike("part", self.part, "a Part"))

    def tries_again(self, failure: Failure) -> bool:
        """Whether a track that failed is tried once more."""
        return self.retry_failed or self.overwrite or (self.accept_cut and failure.stage == "audio")


@dataclass(frozen=True)
class Plan:
    """What an extraction has to do.

    Attributes:
        tasks: the tracks to extract.
        done: ids of tracks whose features the cache holds, and keeps.
        missing: tracks without audio.
        failed: tracks that failed before and whose audio is still the same.
        changed: ids of tracks whose audio is another file than the one in the cache; they are among `tasks`.
        replaced: ids of tracks of `tasks` that the cache holds, whose old records must go first.
    """

    tasks: tuple[Task, ...]
    done: tuple[str, ...]
    missing: tuple[Track, ...]
    failed: dict[str, Failure]
    changed: tuple[str, ...]
    replaced: tuple[str, ...]


def make_plan(
    manifest: Manifest,
    index: NDArray[Any],
    failures: Mapping[str, Failure],
    selection: Selection,
    compared: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Compare the manifest, the audio and the cache.

    Args:
        manifest: the data set.
        index: the tracks in the cache, as `Catalogue.index`.
        failures: the latest failure of tracks that are not in the cache.
        selection: which tracks.
        compared: told how many files, of how many, `check_audio` has read.
    """
    tasks: list[Task] = []
    done: list[Track] = []
    again: list[Task] = []
    changed: list[str] = []
    missing: list[Track] = []
    failed: dict[str, Failure] = {}
    with_audio = 0
    for track, row in zip(manifest.tracks, _rows(manifest.tracks, index), strict=True):
        if with_audio == selection.limit:
            break
        mine = track.track_id in selection.part
        if not mine and selection.limit is None:
            continue
        try:
            size = os.stat(track.audio_path).st_size  # noqa: PTH116 - half the time of Path.stat, on a million tracks
        except OSError:
            if mine:
                missing.append(track)
            continue
        with_audio += 1
        if not mine:
            continue
        earlier = failures.get(track.track_id)
        if row >= 0:
            other = index["audio_bytes"][row] != size
            if other:
                changed.append(track.track_id)
            if other or selection.overwrite:
                again.append(_task(track, size))
            else:
                done.append(track)
        elif earlier and earlier.audio_bytes == size and not selection.tries_again(earlier):
            failed[track.track_id] = earlier
        else:
            tasks.append(_task(track, size, earlier.attempts if earlier else 0))
    if selection.check_audio:
        rows = _rows(done, index)
        others = _changed([track.audio_path for track in done], index["audio_sha256"][rows], compared)
        again += [_task(done[i], int(index["audio_bytes"][rows[i]])) for i in others]
        changed += [done[i].track_id for i in others]
        left_out = set(others)
        done = [track for i, track in enumerate(done) if i not in left_out]
    return Plan(
        tasks=(*tasks, *again),
        done=tuple(track.track_id for track in done),
        missing=tuple(missing),
        failed=failed,
        changed=tuple(changed),
        replaced=tuple(task.track_id for task in again),
    )


def _task(track: Track, size: int, attempts: int = 0) -> Task:
    return Task(track.track_id, track.audio_path.absolute(), size, attempts)


def _rows(tracks: Sequence[Track], index: NDArray[Any]) -> NDArray[np.int64]:
    """Row of each track in the index, -1 where it is not there; without a dictionary of a million ids."""
    if not len(index) or not tracks:
        return np.full(len(tracks), -1)
    longest = max(len(track.track_id.encode()) for track in tracks)
    ids = np.fromiter((track.track_id.encode() for track in tracks), f"S{longest}", len(tracks))
    rows = np.searchsorted(index["id"], ids)
    rows[rows == len(index)] = 0
    return np.where(index["id"][rows] == ids, rows, -1)


def _changed(paths: Sequence[Path], digests: NDArray[np.uint8], compared: Callable[[int, int], None]) -> list[int]:
    """Which files have another digest, or can no longer be read."""

    def differs(path: Path, digest: NDArray[np.uint8]) -> bool:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() != digest.tobytes()
        except OSError:
            return True

    others: list[int] = []
    pool = ThreadPoolExecutor()  # hashing releases the interpreter
    try:
        for i, another in enumerate(pool.map(differs, paths, digests)):
            if another:
                others.append(i)
            compared(i + 1, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return others
