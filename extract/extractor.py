"""From an audio file to its features: the one way, in a worker of an extraction as in a prediction."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from m2e.cache import ChordSequence, DataError, ExtractionConfig, TrackFeatures
from m2e.cache.harmony import Key
from m2e.cache.notes import Note
from m2e.cache.settings import BY_DIGEST
from m2e.common.devices import usable_device
from m2e.common.threads import one_thread
from m2e.extract.audio.reader import HELD_SECONDS, load_audio
from m2e.extract.audio.sound import Segments, SizedWaves
from m2e.extract.chords.key import estimate_key
from m2e.extract.chords.recogniser import SAMPLE_RATE as CHORD_SAMPLE_RATE
from m2e.extract.chords.recogniser import ChordRecogniser
from m2e.extract.chords.registry import load_recogniser, recogniser_revision
from m2e.extract.encoders.registry import Encoder, find_encoder, is_pinned, load_encoder
from m2e.extract.models import Models, Sources
from m2e.extract.workers import limits


@dataclass(frozen=True, eq=False)
class PreparedTrack:
    """A track but for its embeddings.

    Attributes:
        path: the audio file.
        segments: waves at the encoder's rate [shape=(n,) each]; of a long track they are decoded when they are taken.
        chords, key, duration, audio_sha256, audio_bytes, notes: see `TrackFeatures`.
    """

    path: Path
    segments: SizedWaves
    chords: ChordSequence
    key: Key | None
    duration: float
    audio_sha256: bytes
    audio_bytes: int
    notes: tuple[Note, ...] = ()

    def with_embeddings(self, track_id: str, embeddings: NDArray[np.float32]) -> TrackFeatures:
        """The whole, with embeddings [shape=(segments, layers, dim)]. Raises DataError when they are not finite."""
        try:
            return TrackFeatures(
                track_id,
                embeddings,
                self.chords,
                self.key,
                self.duration,
                self.audio_sha256,
                self.audio_bytes,
                self.notes,
            )
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from error


class Extractor:
    """Extracts tracks with one group of settings. Owns its models, which are loaded when they are first needed; several
    threads may share it. Leaves the process as it was: numbers of threads, torch's switches.

    In a worker process each track has a limit of time, beyond which the process ends (`m2e.extract.workers.limits`).

    >>> features = Extractor("MERT-v1-95M", chords="btc", device="cuda")("song.mp3")
    >>> features.embeddings.shape, features.chords.labels, features.key
    """

    def __init__(
        self,
        encoder: str = "MERT-v1-95M",
        chords: str = "btc",
        *,
        device: str = "auto",
        accept_cut: bool = False,
        **settings: Any,
    ) -> None:
        """Find the models; what is on the hub is downloaded.

        Args:
            encoder, chords, settings: see `Sources.find`.
            device: "cpu", "cuda", or "auto", which takes a GPU where there is one.
            accept_cut: take what there is of files that are cut or damaged, with a note.

        Raises:
            DataError: a model is not to be had.
        """
        sources = Sources.find(encoder, chords, **settings)
        self._begin(sources.fetch(usable_device(device), accept_cut=accept_cut))

    @classmethod
    def of(cls, models: Models) -> Self:
        """One for models that were found and fetched elsewhere."""
        self = cls.__new__(cls)
        self._begin(models)
        return self

    def _begin(self, models: Models) -> None:
        self.models = models
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._recogniser: ChordRecogniser | None = None

    @property
    def encoder(self) -> Encoder:
        """Loaded. Raises DataError when its checkpoint is not usable, or not the one that the settings name."""
        with self._lock:
            if self._encoder is None:
                models, config = self.models, self.models.config
                with one_thread():
                    encoder = load_encoder(
                        models.encoder_folder, config.layers, models.device, config.precision, config.sample_rate
                    )
                _check_encoder(config, models.encoder_folder)
                self._encoder = encoder
            return self._encoder

    @property
    def recogniser(self) -> ChordRecogniser:
        """Loaded. Raises DataError when its checkpoint is not usable, or not the one that the settings name."""
        with self._lock:
            if self._recogniser is None:
                config, checkpoint = self.models.config, self.models.chord_checkpoint
                with one_thread():
                    recogniser = load_recogniser(config.chords, checkpoint)
                if config.chords_revision:
                    revision = recogniser_revision(config.chords, checkpoint)
                    _check(checkpoint or config.chords, revision, config.chords_revision)
                self._recogniser = recogniser
            return self._recogniser

    def load(self) -> None:
        """Load what is not loaded yet: what cannot be is no fault of a track's. Raises DataError."""
        self.encoder, self.recogniser  # noqa: B018

    def prepare(self, path: Path) -> PreparedTrack:
        """Decode a track, cut it into segments, hear its chords and key: all that needs no encoder.

        Raises:
            UnheardError: the file cannot be read.
            DataError: it cannot be decoded or is too short, or the chord recogniser's checkpoint is not usable.
        """
        limits.allow_decoding(path)
        config = self.models.config
        with one_thread():
            audio = load_audio(
                path,
                config.sample_rate,
                CHORD_SAMPLE_RATE,
                config.resampler,
                accept_cut=self.models.accept_cut,
                held_seconds=HELD_SECONDS,
            )
            segments = Segments(
                audio.encoder_wave,
                round(config.segment_seconds * config.sample_rate),
                config.tail,
                round(config.min_tail_seconds * config.sample_rate),
            )
            chords = self.recogniser(audio.chord_wave)
            key = estimate_key(chords)
        return PreparedTrack(path, segments, chords, key, audio.duration, audio.sha256, audio.file_bytes, audio.notes)

    def embed(self, track: PreparedTrack) -> NDArray[np.float32]:
        """Embeddings of a track's segments [shape=(segments, layers, dim)].

        Raises:
            DataError: the encoder's checkpoint is not usable, or a long track's file can no longer be decoded.
        """
        limits.allow_embedding(track.duration)
        with one_thread():
            return self.encoder.embed(track.segments)

    def __call__(self, path: str | Path, track_id: str = "track") -> TrackFeatures:
        """All features of one track.

        Raises:
            UnheardError: the file cannot be read.
            DataError: it cannot be decoded or is too short, its features are not finite, or a checkpoint is not usable.
        """
        track = self.prepare(Path(path))
        return track.with_embeddings(track_id, self.embed(track))


def _check_encoder(config: ExtractionConfig, folder: Path) -> None:
    """After loading: whatever was changed before that shows now. Former caches name a commit, which no file tells."""
    if config.encoder_revision.startswith(BY_DIGEST) or is_pinned(config.encoder_revision):
        _check(folder, find_encoder(str(folder)).revision, config.encoder_revision)


def _check(place: Path | str, found: str, wanted: str) -> None:
    if found != wanted:
        raise DataError(
            f"{place} changed since this began: it is {found} now, and the features are to be of {wanted}. What was "
            "committed is safe: put the former weights back, or run the same command again with the new ones"
        )


@lru_cache(maxsize=1)
def extractor_of(models: Models) -> Extractor:
    """A worker process's own: it works for one extraction at a time."""
    return Extractor.of(models)
