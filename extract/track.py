"""One track: audio file to features. The same function serves extraction in any process, and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache import ChordSequence, DataError, ExtractionConfig, TrackFeatures
from m2e.cache.checks import is_whole, unlike
from m2e.cache.harmony import Key
from m2e.cache.notes import Note
from m2e.extract.audio import HELD_SECONDS, load_audio
from m2e.extract.chords import SAMPLE_RATE as CHORD_SAMPLE_RATE
from m2e.extract.chords import ChordRecogniser, load_recogniser
from m2e.extract.encoders import Encoder, load_encoder
from m2e.extract.key import estimate_key
from m2e.extract.sound import Segments, SizedWaves


@dataclass(frozen=True)
class Models:
    """What a process must load before it can extract; small and picklable, so that it can be sent to workers.

    Attributes:
        config: the settings; they name the encoder and the chord recogniser.
        encoder_folder: the encoder's files.
        chord_checkpoint: the chord recogniser's weights, None when it has none.
        device: "cpu" or "cuda".
        decoders: processes that decode for a GPU; 0: one a core of its machine, at most 32.
        accept_cut: take what there is of files that are cut or damaged, with a note.
    """

    config: ExtractionConfig
    encoder_folder: Path
    chord_checkpoint: Path | None
    device: str
    decoders: int = 0
    accept_cut: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(unlike("device", self.device, "cpu or cuda"))
        if not is_whole(self.decoders, 0):
            raise ValueError(unlike("decoders", self.decoders, "a whole number, 0 or more"))


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


@lru_cache(maxsize=1)
def encoder_of(models: Models) -> Encoder:
    """The encoder, loaded once a process. Raises DataError when its checkpoint is not usable."""
    _use_one_thread()
    config = models.config
    return load_encoder(models.encoder_folder, config.layers, models.device, config.precision, config.sample_rate)


@lru_cache(maxsize=1)
def recogniser_of(models: Models) -> ChordRecogniser:
    """The chord recogniser, loaded once a process. Raises DataError when its checkpoint is not usable."""
    _use_one_thread()
    return load_recogniser(models.config.chords, models.chord_checkpoint)


def load_models(models: Models) -> tuple[Encoder, ChordRecogniser]:
    """Both. Raises DataError when a checkpoint is not usable."""
    return encoder_of(models), recogniser_of(models)


def _use_one_thread() -> None:
    # Processes, not threads, use the cores: two of one beat one of two, and a sum's order never varies.
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def prepare_track(path: Path, models: Models) -> PreparedTrack:
    """Decode a track, cut it into segments, hear its chords and key: all that needs no encoder.

    Raises:
        DataError: the file cannot be decoded or is too short.
    """
    config = models.config
    audio = load_audio(
        path,
        config.sample_rate,
        CHORD_SAMPLE_RATE,
        config.resampler,
        accept_cut=models.accept_cut,
        held_seconds=HELD_SECONDS,
    )
    segments = Segments(
        audio.encoder_wave,
        round(config.segment_seconds * config.sample_rate),
        config.tail,
        round(config.min_tail_seconds * config.sample_rate),
    )
    chords = recogniser_of(models)(audio.chord_wave)
    key = estimate_key(chords)
    return PreparedTrack(path, segments, chords, key, audio.duration, audio.sha256, audio.file_bytes, audio.notes)


def extract_track(track_id: str, path: Path, models: Models) -> TrackFeatures:
    """All features of one track.

    Raises:
        DataError: the file cannot be decoded or is too short, or its features are not finite.
    """
    track = prepare_track(path, models)
    return track.with_embeddings(track_id, encoder_of(models).embed(track.segments))
