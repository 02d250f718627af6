"""What an extraction has to do: the manifest, the audio and the cache compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

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
    """

    limit: int | None = None
    part: Part = field(default_factory=Part)
    retry_failed: bool = False
    overwrite: bool = False
    check_audio: bool = False


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
    row = {track_id.decode(): i for i, track_id in enumerate(index["id"].tolist())}
    sizes = index["audio_bytes"].tolist()
    tasks: list[Task] = []
    kept: list[Task] = []
    missing: list[Track] = []
    failed: dict[str, Failure] = {}
    with_audio = 0
    for track in manifest.tracks:
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
        earlier = failures.get(track.track_id)
        task = Task(track.track_id, track.audio_path.absolute(), size, earlier.attempts if earlier else 0)
        if not mine:
            continue
        if track.track_id in row:
            kept.append(task)
        elif earlier and earlier.audio_bytes == size and not (selection.retry_failed or selection.overwrite):
            failed[track.track_id] = earlier
        else:
            tasks.append(task)
    changed = [task.track_id for task in kept if sizes[row[task.track_id]] != task.audio_bytes]
    if selection.check_audio:
        digests = [index["audio_sha256"][row[task.track_id]].tobytes() for task in kept]
        changed = _changed(kept, digests, compared)
    again = set(changed)
    replaced = [task for task in kept if selection.overwrite or task.track_id in again]
    return Plan(
        tasks=(*tasks, *replaced),
        done=tuple(task.track_id for task in kept if not selection.overwrite and task.track_id not in again),
        missing=tuple(missing),
        failed=failed,
        changed=tuple(changed),
        replaced=tuple(task.track_id for task in replaced),
    )


def _changed(tasks: Sequence[Task], digests: Sequence[bytes], compared: Callable[[int, int], None]) -> list[str]:
    """Ids of the tracks whose file has another digest, or can no longer be read."""

    def differs(task: Task, digest: bytes) -> bool:
        try:
            with task.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() != digest
        except OSError:
            return True

    changed: list[str] = []
    pool = ThreadPoolExecutor()  # hashing releases the interpreter
    try:
        for done, (task, another) in enumerate(zip(tasks, pool.map(differs, tasks, digests), strict=True), start=1):
            if another:
                changed.append(task.track_id)
            compared(done, len(tasks))
    finally:
        pool.shutdown(cancel_futures=True)
    return changed
