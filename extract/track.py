"""One track: audio file to features. The same function serves extraction in any process, and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from m2e.cache import DataError, ExtractionConfig, TrackFeatures
from m2e.extract.audio import load_audio, split_segments
from m2e.extract.chords import SAMPLE_RATE as CHORD_SAMPLE_RATE
from m2e.extract.chords import ChordRecogniser, load_recogniser
from m2e.extract.encoders import Encoder, load_encoder
from m2e.extract.key import estimate_key


@dataclass(frozen=True)
class Models:
    """What a process must load before it can extract; small and picklable, so that it can be sent to workers.

    Attributes:
        config: the settings; they name the encoder and the chord recogniser.
        encoder_folder: the encoder's files.
        chord_checkpoint: the chord recogniser's weights, None when it has none.
        device: "cpu" or "cuda".
    """

    config: ExtractionConfig
    encoder_folder: Path
    chord_checkpoint: Path | None
    device: str


@lru_cache(maxsize=1)
def load_models(models: Models) -> tuple[Encoder, ChordRecogniser]:
    """Load both models, once a process.

    Raises:
        DataError: a checkpoint is not usable.
    """
    import torch
    from threadpoolctl import threadpool_limits

    # Processes, not threads, use the cores: two of one beat one of two, and a sum's order never varies.
    torch.set_num_threads(1)
    threadpool_limits(1)
    encoder = load_encoder(models.encoder_folder, models.config.layers, models.device, models.config.precision)
    return encoder, load_recogniser(models.config.chords, models.chord_checkpoint)


def extract_track(track_id: str, path: Path, models: Models) -> TrackFeatures:
    """All features of one track.

    Raises:
        DataError: the file cannot be decoded or is too short, or its features are not finite.
    """
    config = models.config
    encoder, recogniser = load_models(models)
    audio = load_audio(path, config.sample_rate, CHORD_SAMPLE_RATE, config.resampler)
    segments = split_segments(
        audio.encoder_wave,
        round(config.segment_seconds * config.sample_rate),
        config.tail,
        round(config.min_tail_seconds * config.sample_rate),
    )
    chords = recogniser(audio.chord_wave)
    try:
        return TrackFeatures(
            track_id=track_id,
            embeddings=encoder.embed(segments),
            chords=chords,
            key=estimate_key(chords),
            duration=audio.duration,
            audio_sha256=audio.sha256,
            audio_bytes=audio.file_bytes,
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
