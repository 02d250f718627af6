"""Tracks into shards: collected in memory, committed whole."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from m2e.cache.errors import DataError
from m2e.cache.files import remove_stale_temporaries, write_atomically
from m2e.cache.schema import ExtractionConfig, TrackFeatures
from m2e.cache.shards import shard_image, shard_name

CONFIG_FILE = "config.json"
SEAL_TRACKS = 64
SEAL_SECONDS = 30.0


def features_folder(folder: Path, config: ExtractionConfig) -> Path:
    """Where, in a data set's cache folder, features with these settings live."""
    return folder / f"features-{config.fingerprint}"


class FeatureWriter:
    """Writes one data set's features; several writers may share a folder, since no file is ever changed.

    A track counts as kept once its shard is sealed: at 64 tracks, when the oldest has waited 30 s, and on exit from
    the `with` block, whatever ended it.
    """

    def __init__(self, folder: Path, config: ExtractionConfig) -> None:
        """`folder` is the data set's cache folder; what it needs is made when the first shard is sealed."""
        self.folder = features_folder(folder, config)
        self._config = config
        self._waiting: list[TrackFeatures] = []
        self._since = 0.0
        remove_stale_temporaries(self.folder)

    def add(self, track: TrackFeatures) -> None:
        """Take a track; it is durable once a later call, or the end of the `with` block, has sealed its shard."""
        layers = track.embeddings.shape[1]
        if layers != len(self._config.layers):
            raise DataError(f"track {track.track_id!r} has {layers} layers, not {len(self._config.layers)}")
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(track)
        if len(self._waiting) >= SEAL_TRACKS or time.monotonic() - self._since >= SEAL_SECONDS:
            self.seal()

    def seal(self) -> None:
        """Commit the tracks that wait.

        Raises:
            DataError: the disk is full or the folder cannot be written; the tracks still wait.
        """
        if self._waiting:
            # Here, not earlier: a run that never gets to a track must not leave settings without features behind.
            if not (self.folder / CONFIG_FILE).exists():
                write_atomically(self.folder / CONFIG_FILE, self._config.to_json().encode())
            image = shard_image(self._waiting, self._config)
            write_atomically(self.folder / shard_name(image), image)
            self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seal()
