"""The predictor: a song in, its emotion out. Features come from the extractor's code, outputs from the trainer's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from m2e.cache.types import TrackFeatures
from m2e.common.errors import DataError
from m2e.predict.result import Emotion, Moment, SongPrediction, TagScore
from m2e.predict.setup import Setup, prepare, weights_digest

if TYPE_CHECKING:
    from m2e.train.model.network import Inputs

# Bounds the memory of attention over 512 chords.
_BATCH = 64


class Predictor:
    """A trained model with the extraction that it was trained on, loaded once, ready for any number of songs, in any
    number of threads.

    >>> predictor = Predictor.from_pretrained("runs/J-D-E-P-paper-0/student")
    >>> predictor.predict("song.mp3").emotion.valence
    """

    def __init__(self, setup: Setup) -> None:
        """Load what `prepare` found; `from_pretrained` does both.

        Raises:
            DataError: a file is damaged, or another than when it was found.
        """
        from m2e.extract.extractor import Extractor
        from m2e.train.model.checkpoint import load_model

        self.setup = setup
        self._models, self.card = load_model(setup.folder)
        if weights_digest(setup.folder) != setup.digest:
            raise DataError(f"the weights of {setup.folder} changed since this began: run the same command again")
        self._extractor = Extractor.of(setup.models)
        self._extractor.load()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        encoder: Path | None = None,
        chord_checkpoint: Path | None = None,
        device: str = "auto",
        accept_cut: bool = False,
    ) -> Self:
        """Load a model's folder, or owner/name from the Hugging Face hub. Arguments and errors are `prepare`'s."""
        return cls(
            prepare(
                model,
                revision=revision,
                encoder=encoder,
                chord_checkpoint=chord_checkpoint,
                device=device,
                accept_cut=accept_cut,
            )
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the model to a folder: weights, settings and model card, never the encoder.

        Raises:
            DataError: the folder cannot be written.
        """
        from m2e.predict.hub import FILES

        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if (self.setup.folder / name).is_file():
                    shutil.copyfile(self.setup.folder / name, Path(folder) / name)
        except OSError as error:
            raise DataError(f"cannot write the model to {folder}: {error.strerror or error}") from error

    def push_to_hub(self, repository: str, *, private: bool = True) -> str:
        """Upload the model to owner/name on the hub; returns the commit. Errors are `push_model`'s."""
        from m2e.predict.hub import push_model

        return push_model(self.setup.folder, repository, private)

    def predict(self, song: str | Path) -> SongPrediction:
        """Hear one song.

        Raises:
            DataError: the file cannot be decoded, is too short, or is cut or damaged.
        """
        return self.predict_features(self._extractor(Path(song)), str(song))

    def predict_features(self, features: TrackFeatures, song: str = "") -> SongPrediction:
        """Predict from features that the model's extraction made; what `predict` does once it has heard the song.

        Raises:
            DataError: the features are of another width than those that the model was trained on.
        """
        import torch

        from m2e.common.float32 import float32_products
        from m2e.common.threads import one_thread
        from m2e.train.scoring.thresholds import UNCHOSEN

        with one_thread(), float32_products("ieee"), torch.no_grad():
            inputs, count = self._inputs(features), len(features.embeddings)
            outputs = {
                task: torch.cat([model(part).of(task) for part in _batches(inputs)])
                for task, model in self._models.items()
            }
        tags = outputs["tags"].double().sigmoid().tolist() if "tags" in outputs else [[]] * (count + 1)
        va = outputs["valence_arousal"].tolist() if "valence_arousal" in outputs else [[None, None]] * (count + 1)
        thresholds = self.card.thresholds or (UNCHOSEN,) * len(self.card.tag_names)
        emotions = [
            Emotion(
                tuple(map(TagScore, self.card.tag_names, scores, thresholds)),
                valence,
                arousal,
            )
            for scores, (valence, arousal) in zip(tags, va, strict=True)
        ]
        length = self.setup.models.config.segment_seconds
        return SongPrediction(
            song=song,
            audio_bytes=features.audio_bytes,
            seconds=features.duration,
            key=features.key,
            chords=features.chords,
            emotion=emotions[0],
            timeline=tuple(
                Moment(i * length, min((i + 1) * length, features.duration), emotion)
                for i, emotion in enumerate(emotions[1:])
            ),
            model=self.setup.digest,
            notes=features.notes,
        )

    def _inputs(self, features: TrackFeatures) -> Inputs:
        """The whole song, then each segment [B = 1 + segments], all beside the song's chords."""
        import torch

        from m2e.train.data.encoding import encode_harmony
        from m2e.train.learning.spans import prefix_sums, span_means
        from m2e.train.model.network import Inputs, padding_id

        config, stored = self.card.train, self.setup.models.config.layers
        n = len(features.embeddings)
        # As the cache stores them.
        halves = features.embeddings.astype(np.float16)
        segments = halves[:, [stored.index(layer) for layer in config.layers]].reshape(n, -1)
        if segments.shape[1] != self.card.width:
            raise DataError(
                f"{self.setup.folder} takes features of width {self.card.width}; its encoder makes {segments.shape[1]}"
            )
        sums = torch.from_numpy(prefix_sums(segments, np.array([0, n])))
        start = torch.tensor([0, *range(n)])
        stop = torch.tensor([n, *range(1, n + 1)])
        harmony = encode_harmony(features.chords, features.key, config.x_chord)
        length = min(len(harmony.root), config.max_chords)
        padded = length if config.mask_padding else config.max_chords
        root = np.full(padded, padding_id(config), np.int64)
        quality = np.zeros(padded, np.int64)
        root[:length], quality[:length] = harmony.root[:length], harmony.quality[:length]
        return Inputs(
            span_means(sums, torch.zeros_like(start), start, stop),
            torch.from_numpy(root).expand(n + 1, -1),
            torch.from_numpy(quality).expand(n + 1, -1),
            torch.full((n + 1,), harmony.mode),
        )


def _batches(inputs: Inputs) -> list[Inputs]:
    from m2e.train.model.network import Inputs

    fields = (inputs.features, inputs.root, inputs.quality, inputs.mode)
    rows = range(0, len(inputs.features), _BATCH)
    return [Inputs(*(field[row : row + _BATCH] for field in fields)) for row in rows]
