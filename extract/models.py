"""What is between an audio file and its features: which models, and a track that is half done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache import ChordSequence, DataError, ExtractionConfig, TrackFeatures
from m2e.cache.harmony import Key
from m2e.cache.notes import Note
from m2e.common.checks import is_whole, unlike
from m2e.extract.audio.sound import SizedWaves


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
