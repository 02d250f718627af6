"""A data set's audio into its cache: what there is to do, and doing it on whatever workers there are.

Workers seal their own files, a batch at a time: a track that is reported is durable, only its name travels between
processes, and no process is one that must not die. This process plans, and listens.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from m2e.cache import DataError, ExtractionConfig, FeatureWriter, TrackFeatures
from m2e.cache.failures import Failure, record_failure
from m2e.cache.writer import features_folder
from m2e.extract.engine import Engine, Lost, run_tasks
from m2e.extract.plan import Task
from m2e.extract.track import Models, extract_track, load_models

_LONGEST_REASON = 400
_DEATHS = {
    "SIGKILL": "was killed, most often for want of memory",
    "SIGSEGV": "crashed, most often in a decoder that the file misleads",
}


@dataclass(frozen=True)
class Extraction:
    """What a worker does to a batch: features of each track into the data set's cache folder."""

    models: Models
    folder: Path

    def __call__(self, tasks: Iterator[Task]) -> list[str | Failure]:
        """Ids of the tracks that are kept, and the failures, all durable.

        Raises:
            DataError: a model cannot be loaded, the disk is full, or the folder cannot be written.
        """
        load_models(self.models)
        outcomes: list[str | Failure] = []
        with _writer(self.folder, self.models.config) as writer:
            for task in tasks:
                outcome = _attempt(task, self.models)
                if isinstance(outcome, TrackFeatures):
                    try:
                        writer.add(outcome)
                        outcomes.append(task.track_id)
                        continue
                    except ValueError as error:  # values that no cache stores
                        outcome = _failure(task, "features", str(error))
                record_failure(writer.folder, outcome)
                outcomes.append(outcome)
        return outcomes


@lru_cache(maxsize=1)
def _writer(folder: Path, config: ExtractionConfig) -> FeatureWriter:
    """One a process and data set: what it does on its first file need not be done for every batch."""
    return FeatureWriter(folder, config)


def _attempt(task: Task, models: Models) -> TrackFeatures | Failure:
    """A track's features, or why there are none: one broken track never stops a run."""
    try:
        return extract_track(task.track_id, task.path, models)
    except DataError as error:
        return _failure(task, "audio", str(error))
    except Exception as error:  # whatever a codec or a model does with a hostile file
        return _failure(task, "features", f"{type(error).__name__}: {error}")


def _failure(task: Task, stage: str, reason: str) -> Failure:
    line = (reason.strip().splitlines() or ["no message"])[0][:_LONGEST_REASON]
    return Failure(task.track_id, str(task.path), stage, line, task.audio_bytes, task.attempts + 1)


def run(tasks: tuple[Task, ...], models: Models, folder: Path, engine: Engine) -> Generator[str | Failure | Lost[Task]]:
    """Extract tracks into a data set's cache folder.

    Args:
        tasks: from `make_plan`.
        models: what each process loads.
        folder: the data set's cache folder.
        engine: where to run.

    Yields:
        For each track the id where it is kept, or its failure; and `Lost` where a worker died at a track that will be
        tried again. Whatever is given is durable.

    Raises:
        DataError: a model cannot be loaded, the disk is full, or workers cannot live.
    """
    for outcome in run_tasks(Extraction(models, folder), tasks, engine):
        if isinstance(outcome, Lost) and outcome.final:
            how = _DEATHS.get(outcome.death, "ended")
            reason = f"its worker process {how} ({outcome.death}), and again with nothing else running"
            # One attempt more than it has: it was tried twice.
            failure = _failure(outcome.item.tried(), "worker", reason)
            record_failure(features_folder(folder, models.config), failure)
            yield failure
        else:
            yield outcome
