"""Extraction where there is a GPU: other processes decode ahead of it, so that it need not wait.

Whoever has the GPU takes prepared tracks from its own decoders, collects segments of several tracks into batches, and
hands the next batch over before the last is back. Several such processes share a GPU (`m2e.extract.workers.choose`):
while one seals its tracks and fills up again, the other computes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache import TrackFeatures
from m2e.cache.failures import Failure
from m2e.common.cores import cpu_count
from m2e.extract.audio.sound import SizedWaves
from m2e.extract.audio.unheard import Unheard
from m2e.extract.encoders.batching import embed_tracks
from m2e.extract.extractor import Extractor, PreparedTrack, extractor_of
from m2e.extract.job.plan import Task
from m2e.extract.models import Models
from m2e.extract.workers.attempts import attempt
from m2e.extract.workers.handover import Handover, handover_folder
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import Lost, run_tasks

# Processes that share a GPU, and the decoders of its machine.
SHARING = 2
# More decoders prepare more than a GPU takes, at 0.1 s of a core for a segment of 30 s; and each takes memory.
_MOST_DECODERS = 32


@dataclass(frozen=True)
class Busy:
    """When a GPU was computing, one process says.

    Attributes:
        gpu: names it among those of all machines.
        spans: beginnings and ends in seconds of time.monotonic, which all processes of a machine share.
    """

    gpu: str
    spans: tuple[tuple[float, float], ...]


def this_gpu() -> str:
    """A name of the GPU that this process computes on, which no other GPU of any machine has."""
    import torch

    if not torch.cuda.is_available():
        return socket.gethostname()
    return f"{socket.gethostname()} {torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


@dataclass(frozen=True)
class _Preparation:
    """What a decoder does to a track."""

    models: Models
    folder: Path

    def __call__(self, tasks: Iterator[Task]) -> list[tuple[Task, Handover | Failure | Unheard]]:
        extractor = extractor_of(self.models)
        extractor.recogniser  # noqa: B018 - one that cannot be loaded ends the run, not a track
        return [(task, attempt(task, partial(self._prepare, extractor, task))) for task in tasks]

    def _prepare(self, extractor: Extractor, task: Task) -> Handover:
        return Handover.put(extractor.prepare(task.path), self.folder)


def extract_ahead(
    tasks: Iterator[Task], models: Models, spans: list[tuple[float, float]]
) -> Iterator[tuple[Task, TrackFeatures | Failure | Unheard | Lost[Task]]]:
    """Each track's features, or why there are none, in the order in which they are done.

    Args:
        tasks: taken one by one.
        models: the encoder's is loaded here, the chord recogniser in the decoders.
        spans: when the GPU was busy is added here, see `Busy`.

    Yields:
        `Lost` where a decoder died at a track; unless that is final, the track comes once more.

    Raises:
        DataError: a model cannot be loaded, there is no room for waves, or decoders cannot live.
        DeviceLostError: the GPU failed.
    """
    encoder = extractor_of(models).encoder
    decoders = _start_decoders(-(-(models.decoders or min(_MOST_DECODERS, cpu_count())) // SHARING))
    with handover_folder() as folder:
        try:
            found = run_tasks(_Preparation(replace(models, device="cpu"), folder), tasks, decoders, largest_batch=1)
            for (task, track), embeddings in embed_tracks(encoder, _taken(found), lambda *span: spans.append(span)):
                if isinstance(track, PreparedTrack):
                    yield task, attempt(task, partial(_complete, track, task.track_id, embeddings))
                else:
                    yield task, track
        except BaseException:  # they still work for a caller that has gone
            _start_decoders.cache_clear()
            decoders.kill()
            raise


def _complete(track: PreparedTrack, track_id: str, embeddings: NDArray[np.float32] | Exception) -> TrackFeatures:
    if isinstance(embeddings, Exception):
        raise embeddings
    return track.with_embeddings(track_id, embeddings)


@lru_cache(maxsize=1)
def _start_decoders(count: int) -> LocalWorkers:
    """One lot a process, since they load libraries; they end with this process."""
    return LocalWorkers(count)


def _taken(
    found: Iterable[tuple[Task, Handover | Failure | Unheard] | Lost[Task]],
) -> Iterator[tuple[tuple[Task, PreparedTrack | Failure | Unheard | Lost[Task]], SizedWaves]]:
    for outcome in found:
        if isinstance(outcome, Lost):
            yield (outcome.item, outcome), []
            continue
        task, given = outcome
        if isinstance(given, Failure | Unheard):
            yield (task, given), []
            continue
        track = given.take()
        # A wave is kept no longer than until its pass, though its track may wait for others.
        yield (task, replace(track, segments=[])), track.segments
