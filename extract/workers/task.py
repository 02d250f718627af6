"""A data set's audio into its cache: what there is to do, and doing it on whatever workers there are.

Workers seal their own files, a batch at a time: a track that is reported is durable, only its name travels between
processes, and no process is one that must not die. This process plans, and listens.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from m2e.cache import ExtractionConfig, FeatureWriter, TrackFeatures
from m2e.cache.failures import Failure, record_failure
from m2e.cache.writer import features_folder
from m2e.extract.audio.unheard import Unheard
from m2e.extract.encoders.batching import DeviceLostError
from m2e.extract.extractor import extractor_of
from m2e.extract.job.plan import Task
from m2e.extract.models import Models
from m2e.extract.workers.attempts import attempt, failure, given_up
from m2e.extract.workers.gpu import Busy, extract_ahead, this_gpu
from m2e.extract.workers.schedule import Engine, Lost, run_tasks

Outcome = str | Failure | Unheard | Lost[Task] | Busy


@dataclass(frozen=True)
class Extraction:
    """What a worker does to a batch: features of each track into the data set's cache folder, as records of a
    generation."""

    models: Models
    folder: Path
    generation: int = 0

    def __call__(self, tasks: Iterator[Task]) -> list[Outcome]:
        """Ids of the tracks that are kept, and what else there is to tell, all durable.

        Raises:
            DataError: a model cannot be loaded, the disk is full, or the folder cannot be written.
        """
        try:
            return self._extract_and_seal(tasks)
        except DeviceLostError:
            # A new process finds a GPU that works, and by trying tracks one by one the run finds which it was.
            os._exit(os.EX_UNAVAILABLE)

    def _extract_and_seal(self, tasks: Iterator[Task]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        spans: list[tuple[float, float]] = []
        # On a way out in the middle, first what there is is sealed.
        with (
            closing(self._extract(tasks, spans)) as found,
            _writer(self.folder, self.models.config, self.generation) as writer,
        ):
            for task, outcome in found:
                if isinstance(outcome, TrackFeatures):
                    try:
                        writer.add(outcome)
                        outcomes.append(task.track_id)
                        continue
                    except ValueError as error:  # values that no cache stores
                        outcome = failure(task, "features", str(error))
                if isinstance(outcome, Failure):
                    record_failure(writer.folder, outcome)
                outcomes.append(outcome)
        if spans:
            outcomes.append(Busy(this_gpu(), tuple(spans)))
        return outcomes

    def _extract(
        self, tasks: Iterator[Task], spans: list[tuple[float, float]]
    ) -> Generator[tuple[Task, TrackFeatures | Failure | Unheard | Lost[Task]]]:
        if self.models.device != "cpu":
            yield from extract_ahead(tasks, self.models, spans)
            return
        extractor = extractor_of(self.models)
        extractor.load()
        for task in tasks:
            yield task, attempt(task, partial(extractor, task.path, task.track_id))


@lru_cache(maxsize=1)
def _writer(folder: Path, config: ExtractionConfig, generation: int) -> FeatureWriter:
    """One a process and data set: what it does on its first file need not be done for every batch."""
    return FeatureWriter(folder, config, generation)


def run(
    tasks: tuple[Task, ...], models: Models, folder: Path, engine: Engine, generation: int = 0
) -> Generator[Outcome]:
    """Extract tracks into a data set's cache folder.

    Args:
        tasks: from `make_plan`.
        models: what each process loads.
        folder: the data set's cache folder.
        engine: where to run.
        generation: of the records, see `m2e.cache.layout`.

    Yields:
        For each track the id where it is kept, or its failure, both durable; `Unheard` where its audio could not be
        read; `Lost` where a worker died at a track that will be tried again; and from workers with a GPU when it was
        `Busy`.

    Raises:
        DataError: a model cannot be loaded, the disk is full, or workers cannot live.
    """
    for outcome in run_tasks(Extraction(models, folder, generation), tasks, engine):
        if isinstance(outcome, Lost) and outcome.final:
            given = given_up(outcome)
            record_failure(features_folder(folder, models.config), given)
            yield given
        else:
            yield outcome
