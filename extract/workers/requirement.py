"""What a worker on another machine must have in common with the process that sends it work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing import current_process
from pathlib import Path
from typing import Self

from m2e.cache import DataError
from m2e.cache.settings import FEATURE_VERSION
from m2e.extract.chords.registry import recogniser_revision
from m2e.extract.encoders.registry import find_encoder
from m2e.extract.models import Models


@dataclass(frozen=True)
class Requirement:
    """Made here, tested there.

    Attributes:
        models: what a worker is to load, with absolute paths.
        fingerprint: of the settings, with the models that the files hold.
        audio: files that a worker must be able to read, and their sizes in bytes.
    """

    models: Models
    fingerprint: str
    audio: tuple[tuple[Path, int], ...]

    @classmethod
    def of(cls, models: Models, audio: Iterable[Path]) -> Self:
        """What this process has. Raises DataError or OSError where a file is gone."""
        sizes = tuple((path.absolute(), path.stat().st_size) for path in audio)
        return cls(models, _fingerprint(models), sizes)

    def __call__(self) -> str:
        """Why this process cannot do the work, in a few words; "" if it can."""
        try:
            fingerprint = _fingerprint(self.models)
        except DataError as error:
            return str(error)
        if fingerprint != self.fingerprint:
            return f"its features would have the fingerprint {fingerprint}, not {self.fingerprint}: other models"
        for path, size in self.audio:
            if not path.is_file() or path.stat().st_size != size:
                return f"it does not see the audio at {path}, which must be on a shared folder"
        if self.models.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                return "it has no CUDA device"
            if current_process().daemon:
                return (
                    "Dask forbids it processes that decode for its GPU: set DASK_DISTRIBUTED__WORKER__DAEMON=False "
                    "where workers are started, or start them with --no-nanny"
                )
        return ""


def _fingerprint(models: Models) -> str:
    """The settings' fingerprint with the revisions of the files at hand, and of this code."""
    config = models.config
    found = replace(
        config,
        encoder_revision=find_encoder(str(models.encoder_folder)).revision,
        chords_revision=recogniser_revision(config.chords, models.chord_checkpoint),
        feature_version=FEATURE_VERSION,
    )
    return found.fingerprint
