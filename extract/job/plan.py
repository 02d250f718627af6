"""What an extraction has to do: the manifest, the audio and the cache compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.failures import Failure
from m2e.common.checks import is_whole, unlike
from m2e.extract.audio.unheard import NOT_THERE, Unheard
from m2e.extract.job.part import Part
from m2e.manifests.store import Standing
from m2e.manifests.types import Manifest, Track

# Of the tracks in the cache: if more of their audio is another, that is a question.
_MOST_CHANGED = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """A track to extract.

    Attributes:
        track_id: unique in its data set.
        path: its audio file, absolute: a worker may have another current folder.
        audio_bytes: size of that file.
        attempts: how often it was tried before, in vain.
        keeps: see `Failure`.
    """

    track_id: str
    path: Path
    audio_bytes: int
    attempts: int = 0
    keeps: str = ""

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
        overwrite: do tracks again that the cache holds; one that was interrupted goes on.
        accept_changes: also where so much audio is another that something else may be wrong.
        check_audio: compare the audio's digest, not only its size, with that of the file that was extracted.
        accept_cut: take what there is of files that are cut or damaged, and try those again that failed before.
    """

    limit: int | None = None
    part: Part = field(default_factory=Part)
    retry_failed: bool = False
    overwrite: bool = False
    check_audio: bool = False
    accept_changes: bool = False
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
        unheard: how many of these have no audio now, or none that can be read.
        missing: tracks without features whose audio is not there.
        unreadable: tracks without features whose audio may be there and cannot be looked at, and why.
        failed: tracks that failed before and whose audio is still the same; some may have older features, and are
            among `done`.
        settled: failures of tracks whose former audio, of which the cache holds features, is back.
        retried: failures of tracks of `tasks`, which were tried before.
        changed: ids of tracks whose audio is another file than the one in the cache; they are among `tasks`.
        compared: how many tracks the cache holds whose audio was looked at.
        again: ids of tracks of `tasks` that the cache holds; what it holds stays until there is something newer.
        generation: of the records to come, see `m2e.cache.layout`.
        confirmed: tracks of the manifest under whose ids the cache keeps nothing that is of other audio, as far as
            anybody can tell who has compared it [shape=(N,)].
        doubtful: how many tracks in the cache may be of other audio, which could not be compared.
    """

    tasks: tuple[Task, ...]
    done: tuple[str, ...]
    unheard: int
    missing: tuple[Track, ...]
    unreadable: tuple[tuple[Track, str], ...]
    failed: dict[str, Failure]
    settled: tuple[Failure, ...]
    retried: dict[str, Failure]
    changed: tuple[str, ...]
    compared: int
    again: frozenset[str]
    generation: int
    confirmed: NDArray[np.bool_]
    doubtful: int

    @property
    def is_suspicious(self) -> bool:
        """Whether so much audio is another that something else may be wrong, such as the folder."""
        return len(self.changed) > max(1, _MOST_CHANGED * self.compared)

    def after(self, unheard: Sequence[Unheard], tracks: Iterable[Track]) -> Plan:
        """What is left of it once the tasks are done, but for `unheard` ones, which count as those found before.

        Args:
            unheard: those whose audio could not be read.
            tracks: of the manifest.
        """
        found = {its.track_id: its for its in unheard if its.track_id not in self.again}
        left = [(track, found[track.track_id]) for track in tracks if track.track_id in found] if found else []
        return replace(
            self,
            tasks=(),  # a million take 100 MB, of which packing can make use
            unheard=self.unheard + len(unheard) - len(found),
            missing=(*self.missing, *(track for track, its in left if its.missing)),
            unreadable=(*self.unreadable, *((track, its.reason) for track, its in left if not its.missing)),
        )


def make_plan(
    manifest: Manifest,
    index: NDArray[Any],
    generations: NDArray[np.int64],
    failures: Mapping[str, Failure],
    selection: Selection,
    standing: Standing,
    begun: int | None = None,
    compared: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Compare the manifest, the audio and the cache.

    Args:
        manifest: the data set.
        index, generations: the tracks in the cache, as in `Catalogue`.
        failures: the last of each track, see `read_failures`.
        selection: which tracks.
        standing: how far what is in the cache is the manifest's.
        begun: the generation of an --overwrite that was interrupted.
        compared: told how many files, of how many, have been compared by their digests.
    """
    tasks: list[Task] = []
    done: list[int] = []
    changed: list[tuple[int, int]] = []
    unchanged: list[tuple[int, int]] = []  # and yet tried again
    older: list[int] = []  # whose newer audio failed
    settled: list[Failure] = []
    retried: dict[str, Failure] = {}
    kept: list[int] = []  # their audio cannot be compared
    missing: list[Track] = []
    unreadable: list[tuple[Track, str]] = []
    failed: dict[str, Failure] = {}
    seen = 0
    tracks = manifest.tracks
    rows = _rows(tracks, index)
    foreign = standing.foreign
    confirmed = (rows < 0) | ~standing.unsure

    def task(number: int, size: int) -> Task:
        track, row = tracks[number], rows[number]
        attempts = failures[track.track_id].attempts if track.track_id in failures else 0
        keeps = index["audio_sha256"][row].tobytes().hex() if row >= 0 else ""
        return Task(track.track_id, track.audio_path.absolute(), size, attempts, keeps)

    for number, (track, row) in enumerate(zip(tracks, rows, strict=True)):
        if seen == selection.limit:
            break
        mine = track.track_id in selection.part
        if not mine and selection.limit is None:
            continue
        try:
            size = os.stat(track.audio_path).st_size  # noqa: PTH116 - half the time of Path.stat, on a million tracks
        except OSError as error:
            known = row >= 0 and not foreign[number]
            seen += known
            if mine and known:
                kept.append(number)
            elif mine and error.errno in NOT_THERE:
                missing.append(track)
            elif mine:
                unreadable.append((track, error.strerror or type(error).__name__))
            continue
        seen += 1
        if not mine:
            continue
        earlier = failures.get(track.track_id)
        fits = row >= 0 and index["audio_bytes"][row] == size
        if earlier and not earlier.stands(index["audio_sha256"][row].tobytes() if row >= 0 else None):
            earlier = None
        if earlier and fits and confirmed[number] and earlier.audio_bytes != size:
            settled.append(earlier)
            earlier = None
        if earlier and earlier.audio_bytes == size and not selection.tries_again(earlier):
            failed[track.track_id] = earlier
            older += [number] if row >= 0 and not foreign[number] else []
            continue
        if earlier:
            retried[track.track_id] = earlier
        if row < 0:
            tasks.append(task(number, size))
        elif not fits:
            changed.append((number, size))
        elif earlier:
            unchanged.append((number, size))
        else:
            done.append(number)
    asked = [number for number in done if selection.check_audio or not confirmed[number]]
    if asked:
        found = _compare([tracks[i].audio_path for i in asked], index["audio_sha256"][rows[asked]], compared)
        verdict = dict(zip(asked, found, strict=True))
        changed += [(i, int(index["audio_bytes"][rows[i]])) for i, another in verdict.items() if another]
        for i, another in verdict.items():
            if another is None and foreign[i]:
                unreadable.append((tracks[i], "cannot be read"))
            elif another is None:
                kept.append(i)
            elif not another:
                confirmed[i] = True
        done = [number for number in done if number not in verdict or verdict[number] is False]
    again = [*changed, *unchanged]
    generation = 1 + max((int(generations[rows[i]]) for i, _ in again), default=-1)
    if selection.overwrite:
        places = rows[done]
        generation = max(generation, 1 + int(generations[places].max(initial=-1)) if begun is None else begun)
        redo = generations[places] < generation
        again += [(i, int(index["audio_bytes"][rows[i]])) for i, old in zip(done, redo, strict=True) if old]
        done = [i for i, old in zip(done, redo, strict=True) if not old]
    return Plan(
        tasks=(*tasks, *(task(i, size) for i, size in again)),
        done=tuple(tracks[i].track_id for i in (*done, *kept, *older)),
        unheard=len(kept),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        failed=failed,
        settled=tuple(settled),
        retried=retried,
        changed=tuple(tracks[i].track_id for i, _ in changed),
        compared=len(done) + len(again),
        again=frozenset(tracks[i].track_id for i, _ in again),
        generation=generation if again else 0,
        confirmed=confirmed,
        doubtful=int(standing.unsure[kept].sum()),
    )


def _rows(tracks: Sequence[Track], index: NDArray[Any]) -> NDArray[np.int64]:
    """Row of each track in the index, -1 where it is not there; without a dictionary of a million ids."""
    if not len(index) or not tracks:
        return np.full(len(tracks), -1)
    longest = max(len(track.track_id.encode()) for track in tracks)
    ids = np.fromiter((track.track_id.encode() for track in tracks), f"S{longest}", len(tracks))
    rows = np.searchsorted(index["id"], ids)
    rows[rows == len(index)] = 0
    return np.where(index["id"][rows] == ids, rows, -1)


def _compare(
    paths: Sequence[Path], digests: NDArray[np.uint8], compared: Callable[[int, int], None]
) -> list[bool | None]:
    """Whether each file has another digest; None where it cannot be read: of those nobody knows."""

    def differs(path: Path, digest: NDArray[np.uint8]) -> bool | None:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() != digest.tobytes()
        except OSError:
            return None

    found: list[bool | None] = []
    pool = ThreadPoolExecutor()  # hashing releases the interpreter
    try:
        for another in pool.map(differs, paths, digests):
            found.append(another)
            compared(len(found), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return found
