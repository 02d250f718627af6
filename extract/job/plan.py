"""What an extraction has to do: the manifest, the audio and the cache compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
        keeps, modified: see `Failure`.
    """

    track_id: str
    path: Path
    audio_bytes: int
    attempts: int = 0
    keeps: str = ""
    modified: int = 0

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
        audio: the digest of the audio of confirmed tracks that the cache holds, else zeros [shape=(N, 32)].
        doubted: tracks whose audio is another by now than that of what is kept [shape=(N,)].
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
    audio: NDArray[np.uint8]
    doubted: NDArray[np.bool_]
    doubtful: int

    def is_suspicious(self, moved: bool) -> bool:
        """Whether so much audio is another that something else may be wrong, such as the folder; `moved`: that
        is another than before."""
        return len(self.changed) > max(0 if moved else 1, _MOST_CHANGED * self.compared)

    def learn(self, known: Standing) -> Standing:
        """How far the features that are kept are the manifest's, with what was found out."""
        return known.learned(self.confirmed, self.audio, self.doubted)

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

    def sealed(self, done: Collection[str], tracks: Sequence[Track], index: NDArray[Any]) -> Plan:
        """The same when the tracks `done` of the manifest's `tracks` are in the cache, whose tracks are `index`."""
        anew = np.fromiter((track.track_id in done for track in tracks), np.bool_, len(tracks))
        rows = _rows(tracks, index)
        anew &= rows >= 0
        audio = self.audio.copy()
        audio[anew] = index["audio_sha256"][rows[anew]]
        return replace(self, confirmed=self.confirmed | anew, audio=audio, doubted=self.doubted & ~anew)


def make_plan(
    manifest: Manifest,
    index: NDArray[Any],
    generations: NDArray[np.int64],
    failures: Mapping[str, Failure],
    selection: Selection,
    standing: Standing,
    elsewhere: NDArray[np.bool_],
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
        elsewhere: tracks of the manifest under whose ids there are features of other settings [shape=(N,)].
        begun: the generation of an --overwrite that was interrupted.
        compared: told how many files, of how many, have been compared by their digests.
    """
    tasks: list[Task] = []
    done: list[int] = []
    changed: list[tuple[int, int]] = []
    unchanged: list[tuple[int, int]] = []  # and yet tried again
    older: list[int] = []  # whose newer audio failed
    back: dict[int, Failure] = {}  # whose former audio is there again, by its size
    retried: dict[str, Failure] = {}
    kept: list[int] = []  # their audio cannot be compared
    missing: list[Track] = []
    unreadable: list[tuple[Track, str]] = []
    failed: dict[str, Failure] = {}
    seen = 0
    tracks = manifest.tracks
    modified = np.zeros(len(tracks), np.int64)
    rows = _rows(tracks, index)
    foreign = standing.foreign
    stored = np.zeros((len(tracks), 32), np.uint8)
    stored[rows >= 0] = index["audio_sha256"][rows[rows >= 0]]
    confirmed = np.where(rows < 0, standing.heard == standing.here, standing.fits(stored))
    confirmed |= (rows < 0) & ~elsewhere
    unsure = ~confirmed

    def task(number: int, size: int) -> Task:
        track, row = tracks[number], rows[number]
        attempts = failures[track.track_id].attempts if track.track_id in failures else 0
        keeps = index["audio_sha256"][row].tobytes().hex() if row >= 0 else ""
        return Task(track.track_id, track.audio_path.absolute(), size, attempts, keeps, int(modified[number]))

    for number, (track, row) in enumerate(zip(tracks, rows, strict=True)):
        if seen == selection.limit:
            break
        mine = track.track_id in selection.part
        if not mine and selection.limit is None:
            continue
        try:
            about = os.stat(track.audio_path)  # noqa: PTH116 - half the time of Path.stat, on a million tracks
            size, modified[number] = about.st_size, about.st_mtime_ns
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
        if earlier and fits and earlier.audio_bytes != size:
            back[number] = earlier
            earlier = None
        same = earlier is not None and earlier.is_of(track.audio_path, size, int(modified[number]))
        if earlier and same and not selection.tries_again(earlier):
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
    settled = tuple(earlier for number, earlier in back.items() if confirmed[number])
    doubted = np.zeros(len(tracks), np.bool_)
    doubted[[i for i, _ in changed]] = True
    confirmed &= ~doubted
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
        settled=settled,
        retried=retried,
        changed=tuple(tracks[i].track_id for i, _ in changed if not foreign[i]),
        compared=len(done) + len(again),
        again=frozenset(tracks[i].track_id for i, _ in again),
        generation=generation if again else 0,
        confirmed=confirmed,
        audio=np.where(confirmed[:, None], stored, np.uint8(0)),
        doubted=doubted,
        doubtful=int(unsure[kept].sum()),
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
