"""Which model, and the extraction that it was trained on: found, compared and fetched, but not yet loaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2e.cache.settings import BY_DIGEST, FEATURE_VERSION, ExtractionConfig
from m2e.common.devices import usable_device
from m2e.common.errors import DataError
from m2e.common.regular import open_regular
from m2e.extract.models import Models

if TYPE_CHECKING:
    from m2e.extract.encoders.registry import EncoderSource
    from m2e.train.model.checkpoint import ModelCard


@dataclass(frozen=True)
class Setup:
    """What a process must load before it can predict; small and picklable, so that it can be sent to workers.

    Attributes:
        folder: of the trained model.
        digest: of its weights, 16 hex digits.
        models: the encoder and the chord recogniser of its features.
    """

    folder: Path
    digest: str
    models: Models


def prepare(
    model: str | Path,
    *,
    revision: str | None = None,
    encoder: Path | None = None,
    chord_checkpoint: Path | None = None,
    device: str = "auto",
    accept_cut: bool = False,
) -> Setup:
    """Find a trained model, and the very encoder and chord recogniser that its features came from.

    Args:
        model: a model's folder, or owner/name on the Hugging Face hub.
        revision: on the hub: a commit, branch or tag; its main branch by default.
        encoder: the encoder's folder, where the model was trained on a local copy.
        chord_checkpoint: the recogniser's weights, where they cannot be downloaded.
        device: of the encoder: "cpu", "cuda", or "auto" for a GPU where there is one.
        accept_cut: take what there is of songs that are cut or damaged, with a note.

    Raises:
        DataError: there is no such model, it is damaged, or the encoder or recogniser is not the one it was trained on.
    """
    from m2e.extract.chords.registry import fetch_recogniser, recogniser_revision
    from m2e.extract.encoders.registry import fetch_encoder
    from m2e.predict.hub import find_model

    folder = find_model(model, revision)
    card = _read_card(folder)
    # The model's layers alone: the same values, and no block above them is run.
    config = replace(card.extraction, layers=tuple(sorted(card.train.layers)))
    if config.feature_version != FEATURE_VERSION:
        raise DataError(
            f"{folder} was trained on features of version {config.feature_version}; this m2e makes version "
            f"{FEATURE_VERSION}: extract and train again, or use the m2e that it was trained with"
        )
    source = _find_encoder(config, encoder)
    heard = recogniser_revision(config.chords, chord_checkpoint)
    if heard != config.chords_revision:
        raise DataError(
            f"{folder} was trained on chords of {config.chords} {config.chords_revision}, not {heard}: pass the "
            "weights that its features were extracted with, --chord-checkpoint FILE"
        )
    weights = fetch_recogniser(config.chords, chord_checkpoint)
    models = Models(config, fetch_encoder(source), weights, usable_device(device), accept_cut=accept_cut)
    return Setup(folder, weights_digest(folder), models)


def describe(setup: Setup) -> dict[str, Any]:
    """What people want to know of a model, as plain values: data sets, encoder, chords, cautions."""
    card = _read_card(setup.folder)
    synthetic = any("synthetic" in data["provenance"].lower() for data in card.datasets)
    return {
        "datasets": [data["name"] for data in card.datasets],
        "encoder": card.extraction.encoder,
        "chords": card.extraction.chords,
        "cautions": ["the model was trained on SYNTHETIC data: it says nothing about real music"] * synthetic
        + ["the model hears through an untrained encoder: for trying out, not for results"]
        * (card.extraction.encoder == "tiny"),
    }


def _read_card(folder: Path) -> ModelCard:
    from m2e.train.model.checkpoint import CARD_FILE, read_card

    try:
        return read_card(folder)
    except OSError as error:
        raise DataError(f"{folder} is no model of m2e-train: {error.strerror}: {folder / CARD_FILE}") from error
    except DataError as error:
        # A run's folder holds the models: the student's, or a single one.
        models = sorted(folder.glob(f"s*/{CARD_FILE}"))
        inside = [path for path in models if not re.search(r"-before-\d+$", path.parent.name)]
        hint = f", but of a whole run: give {inside[-1].parent}" if inside else f": {error}"
        raise DataError(f"{folder} is no model of m2e-train{hint}") from error


def weights_digest(folder: Path) -> str:
    """Of a model's weights, 16 hex digits. Raises DataError where they cannot be read."""
    from m2e.train.model.checkpoint import LARGEST_WEIGHTS, WEIGHTS_FILE

    try:
        with open_regular(folder / WEIGHTS_FILE, LARGEST_WEIGHTS) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{folder} has no weights: {error.strerror}: {error.filename}") from error


def _find_encoder(config: ExtractionConfig, folder: Path | None) -> EncoderSource:
    from m2e.extract.encoders.registry import ENCODERS, find_encoder, settle

    named = f"{config.encoder} {config.encoder_revision}"
    if folder is not None:
        source = find_encoder(str(folder))
    elif config.encoder.partition("@")[0] not in ENCODERS:
        raise DataError(
            f"the model was trained on features of a local encoder, {named}: pass its folder, --encoder DIR"
        )
    elif config.encoder_revision.startswith(BY_DIGEST):
        source = settle(find_encoder(config.encoder))
    else:
        source = find_encoder(config.encoder, config.encoder_revision)
    if source.revision != config.encoder_revision:
        raise DataError(f"the model was trained on features of {named}, not of {source.name} {source.revision}")
    return source
