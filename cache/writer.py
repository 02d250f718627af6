"""Tracks into shards: collected in memory, committed whole."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from m2e.cache.folders import CONFIG_FILE as CONFIG_FILE
from m2e.cache.folders import feature_files, write_config
from m2e.cache.folders import features_folder as features_folder
from m2e.cache.layout import HIGHEST_GENERATION, Records, feature_image, feature_name, join, to_record
from m2e.cache.notes import record_notes
from m2e.cache.provenance import write_provenance
from m2e.cache.settings import ExtractionConfig
from m2e.cache.types import TrackFeatures
from m2e.common.errors import DataError
from m2e.common.files import remove_stale_temporaries, write_atomically

SEAL_TRACKS = 64
SEAL_SECONDS = 30.0


def check_generation(folder: Path, generation: int) -> None:
    """Raise DataError where the records of a data set's cache folder can have no generation that is so high."""
    if generation > HIGHEST_GENERATION:
        raise DataError(
            f"{folder} has records of generation {generation - 1}, the highest there is: `m2e-cache pack {folder}` "
            "begins at 0 again; then run the same command again"
        )


class FeatureWriter:
    """Writes one data set's features; several writers may share a folder, since no file is ever changed.

    A track counts as kept once its shard is sealed: at 64 tracks, when the oldest has waited 30 s, and on exit from
    the `with` block, whatever ended it. What could not be sealed then waits no longer: the writer can go on, and take
    the same tracks again.
    """

    def __init__(self, folder: Path, config: ExtractionConfig, generation: int = 0) -> None:
        """What is needed is made when the first shard is sealed.

        Args:
            folder: the data set's cache folder.
            config: the settings.
            generation: of the records, higher than that of those that they replace (see `m2e.cache.layout`).

        Raises:
            DataError: there is no such generation.
        """
        check_generation(folder, generation)
        self.folder = features_folder(folder, config)
        self._config = config
        self._generation = generation
        self._waiting: dict[str, Records] = {}
        self._since = 0.0
        self._began = False
        remove_stale_temporaries(self.folder)
        if feature_files(self.folder):
            self._write_settings()  # where somebody lost them

    def add(self, track: TrackFeatures) -> None:
        """Take a track; it is durable once a later call, or the end of the `with` block, has sealed its shard.

        Raises:
            ValueError: the track's values do not fit float16, or it waits already; the others are not touched.
            DataError: its layers or width are not those of the others, or the shard cannot be written.
        """
        record = to_record(track)
        layers, dim = record.embeddings.shape[1:]
        if layers != len(self._config.layers):
            raise DataError(f"track {track.track_id!r} has {layers} layers, not {len(self._config.layers)}")
        if track.track_id in self._waiting:
            raise ValueError(f"track {track.track_id!r} was added twice")
        for other in self._waiting.values():
            if other.embeddings.shape[2] != dim:
                raise DataError(f"track {track.track_id!r} is {dim} wide, not {other.embeddings.shape[2]}")
            break
        if track.notes:  # now: a track that is kept must not lose them to a kill
            record_notes(self.folder, track.track_id, track.audio_sha256, track.notes)
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting[track.track_id] = record
        if len(self._waiting) >= SEAL_TRACKS or time.monotonic() - self._since >= SEAL_SECONDS:
            self.seal()

    def seal(self) -> None:
        """Commit the tracks that wait.

        Raises:
            DataError: the disk is full or the folder cannot be written; the tracks still wait.
        """
        if self._waiting:
            # Here, not earlier: a run that never gets to a track must not leave settings without features behind.
            self._write_settings()
            if not self._began:
                write_provenance(self.folder)
                self._began = True
            image = feature_image(join(self._waiting.values()), self._config, self._generation)
            write_atomically(self.folder / feature_name("shard", image), image)
            self._waiting = {}

    def _write_settings(self) -> None:
        if not (self.folder / CONFIG_FILE).exists():
            write_config(self.folder, self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.seal()
        finally:
            self._waiting = {}
