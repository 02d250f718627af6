"""Which models stand between an audio file and its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from m2e.cache import ExtractionConfig
from m2e.cache.settings import Precision, ResamplerName, Tail
from m2e.common.checks import is_whole, unlike
from m2e.common.errors import RequestError
from m2e.extract.chords.registry import fetch_recogniser, recogniser_revision
from m2e.extract.encoders.registry import EncoderSource, fetch_encoder, find_encoder, settle


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


@dataclass(frozen=True)
class Sources:
    """Which models make features, and where they come from; nothing is downloaded or loaded yet.

    Attributes:
        config: the settings of the features.
        encoder: found, in a folder or on the hub.
        chord_checkpoint: the chord recogniser's weights, where the user has given them.
    """

    config: ExtractionConfig
    encoder: EncoderSource
    chord_checkpoint: Path | None = None

    @classmethod
    def find(
        cls,
        encoder: str = "MERT-v1-95M",
        chords: str = "btc",
        *,
        revision: str | None = None,
        chord_checkpoint: str | Path | None = None,
        layers: Sequence[int] = (5, 6, 7),
        tail: Tail = "drop",
        resampler: ResamplerName = "sinc_hann",
        precision: Precision = "float32",
    ) -> Self:
        """Find the models, and settle what the features' settings are.

        Args:
            encoder: "MERT-v1-95M", "MERT-v1-330M", a folder in Hugging Face layout, or "tiny".
            chords: "btc", "cnn" or "template".
            revision: of the encoder on the hub, in place of the pinned one.
            chord_checkpoint: weights of the chord recogniser, in place of the published ones.
            layers, tail, resampler, precision: see `ExtractionConfig`.

        Raises:
            DataError: there is no such encoder or recogniser, or its files cannot be read.
        """
        checkpoint = Path(chord_checkpoint) if chord_checkpoint else None
        source = settle(find_encoder(str(encoder), revision))
        try:
            config = ExtractionConfig(
                encoder=source.name,
                encoder_revision=source.revision,
                layers=tuple(layers),
                tail=tail,
                resampler=resampler,
                precision=precision,
                chords=chords,
                chords_revision=recogniser_revision(chords, checkpoint),
            )
        except ValueError as error:
            raise RequestError(str(error)) from error
        return cls(config, source, checkpoint)

    def fetch(self, device: str, decoders: int = 0, accept_cut: bool = False) -> Models:
        """What a process loads, downloaded where that is needed; the arguments are those of `Models`.

        Raises:
            DataError: something cannot be downloaded, or is not what it should be.
        """
        encoder = fetch_encoder(self.encoder)
        weights = fetch_recogniser(self.config.chords, self.chord_checkpoint)
        # A worker may have another current folder.
        return Models(self.config, encoder.absolute(), weights and weights.absolute(), device, decoders, accept_cut)
