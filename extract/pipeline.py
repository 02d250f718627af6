"""A data set's audio into its cache: what is there, what is left to do, the workers, the shards.

Workers only compute; this process writes. A track's features are some tens of kilobytes, so one writer is never the
bottleneck, and a worker that dies takes nothing with it but the track it was working on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from m2e.cache import DataError, ExtractionConfig, FeatureWriter, TrackFeatures
from m2e.cache.failures import Failure, read_failures, record_failure
from m2e.cache.reader import scan
from m2e.extract.track import Models, extract_track, load_models
from m2e.manifests.track import Manifest, Track


@dataclass(frozen=True)
class Plan:
    """What an extraction has to do.

    Attributes:
        todo: tracks with audio and without features, with the size of each audio file.
        done: ids of tracks that the cache holds.
        missing: ids of tracks without audio.
        failed: tracks that failed before and whose audio is still the same.
        changed: ids of tracks whose audio is another file than the one in the cache.
    """

    todo: tuple[tuple[Track, int], ...]
    done: tuple[str, ...]
    missing: tuple[str, ...]
    failed: dict[str, Failure]
    changed: tuple[str, ...]


def make_plan(
    manifest: Manifest, folder: Path, config: ExtractionConfig, limit: int | None, retry_failed: bool
) -> Plan:
    """Compare the manifest, the audio and the cache.

    Args:
        manifest: the data set.
        folder: the features folder, as `features_folder` names it.
        config: settings of the features.
        limit: only the first `limit` tracks that have audio.
        retry_failed: try tracks again that failed before.

    Raises:
        DataError: a shard of the cache is damaged.
    """
    kept = scan(folder, config)[0]
    stored = {row["id"].decode(): int(row["audio_bytes"]) for row in kept}
    failures = read_failures(folder, done=stored)
    todo: list[tuple[Track, int]] = []
    done: list[str] = []
    missing: list[str] = []
    changed: list[str] = []
    failed: dict[str, Failure] = {}
    for track in manifest.tracks:
        if limit is not None and len(todo) + len(done) + len(failed) >= limit:
            break
        try:
            size = track.audio_path.stat().st_size
        except OSError:
            missing.append(track.track_id)
            continue
        earlier = failures.get(track.track_id)
        if track.track_id in stored:
            done.append(track.track_id)
            if stored[track.track_id] != size:
                changed.append(track.track_id)
        elif earlier and earlier.audio_bytes == size and not retry_failed:
            failed[track.track_id] = earlier
        else:
            todo.append((track, size))
    return Plan(tuple(todo), tuple(done), tuple(missing), failed, tuple(changed))


def _attempt(track_id: str, path: Path, size: int, models: Models) -> TrackFeatures | Failure:
    """A track's features, or why there are none: one broken track never stops a run, an unusable model does."""
    load_models(models)
    try:
        return extract_track(track_id, path, models)
    except DataError as error:
        return Failure(track_id, str(path), "audio", str(error), size)
    except Exception as error:  # whatever a codec or a model does with a hostile file
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        return Failure(track_id, str(path), "features", reason, size)


def _results(plan: Plan, models: Models, jobs: int) -> Generator[TrackFeatures | Failure]:
    """Outcomes as they come; in this process for one job, else in `jobs` processes."""
    if jobs == 1:
        for track, size in plan.todo:
            yield _attempt(track.track_id, track.audio_path, size, models)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    calls = (delayed(_attempt)(track.track_id, track.audio_path, size, models) for track, size in plan.todo)
    try:
        yield from parallel(calls)
    except TerminatedWorkerError as error:
        raise DataError(
            "a worker process was killed, most often for want of memory. What was committed is safe: run the same "
            "command again, with a smaller --jobs"
        ) from error


def run(
    plan: Plan,
    models: Models,
    writer: FeatureWriter,
    jobs: int,
    report: Callable[[TrackFeatures | Failure], None],
) -> None:
    """Extract what the plan has to do into `writer`, which is sealed by its own `with` block.

    Args:
        plan: from `make_plan`.
        models: what each process loads.
        writer: receives the features, and failures in its folder.
        jobs: processes.
        report: called after each track.

    Raises:
        DataError: a model cannot be loaded, the disk is full, or a worker was killed.
    """
    with closing(_results(plan, models, jobs)) as results:
        for result in results:
            if isinstance(result, Failure):
                record_failure(writer.folder, result)
            else:
                writer.add(result)
            report(result)
