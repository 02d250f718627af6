"""Where a run's workers are: on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from m2e.extract.workers.schedule import Engine
from m2e.manifests.types import Manifest

if TYPE_CHECKING:
    from m2e.extract.models import Models


def on_this_machine(jobs: int | None, models: Models) -> AbstractContextManager[Engine]:
    """`jobs` processes (None: one a core) that run `models`; on a GPU the few that share it (see `gpu`)."""
    from m2e.common.cores import cpu_count
    from m2e.extract.workers.gpu import SHARING
    from m2e.extract.workers.local import LocalWorkers

    return LocalWorkers(SHARING if models.device == "cuda" else jobs or cpu_count())


def on_cluster(
    scheduler: str, resources: Mapping[str, float], cache: Path, manifests: Sequence[Manifest], models: Models
) -> AbstractContextManager[Engine]:
    """Workers of a Dask scheduler that can load `models` and see the cache and a file of each data set's audio.

    Raises:
        DataError: on entering, as `m2e.extract.workers.dask.dask_workers`.
    """
    from m2e.extract.workers.dask import dask_workers
    from m2e.extract.workers.requirement import Requirement

    audio = [next((track.audio_path for track in manifest.tracks if track.has_audio), None) for manifest in manifests]
    requirement = Requirement.of(models, [path for path in audio if path])
    return dask_workers(scheduler, cache.absolute(), requirement, resources)
