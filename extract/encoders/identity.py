"""Which encoder a folder holds: by its weights and by what in its settings changes numbers, never by its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from m2e.cache.settings import BY_DIGEST
from m2e.common.errors import DataError
from m2e.common.regular import open_regular
from m2e.extract.encoders.mert import CONFIG, HUBERT_BASE, PREPROCESSOR, read_settings, weights_file

# What makes of it something else than HuBERT; absent or false in all that is.
_VARIANTS = ("deepnorm", "feature_extractor_cqt", "adapter_attn_dim")
_PREPROCESSING: dict[str, Any] = {"do_normalize": True, "sampling_rate": None}
_HUBERTS = ("mert_model", "hubert")
# They name code, or say nothing about the network, of whatever architecture.
_NOT_SETTINGS = ("auto_map", "architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path")


def identify(folder: Path) -> str:
    """Identity of the encoder in a folder in Hugging Face layout: "sha256:" and 64 hex digits.

    Raises:
        DataError: the folder lacks a file of a model, or one cannot be read.
    """
    numbers = json.dumps(numeric_settings(folder), sort_keys=True)
    return BY_DIGEST + hashlib.sha256(f"{weights_digest(folder)}\n{numbers}\n".encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 of the file with an encoder's weights, in hex; raises as `identify`."""
    path = weights_file(folder)
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def numeric_settings(folder: Path) -> dict[str, Any]:
    """What of an encoder's settings changes the numbers that it gives; raises as `identify`."""
    for name in (CONFIG, PREPROCESSOR):
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}: not a model in Hugging Face layout")
    config, preprocessor = read_settings(folder / CONFIG), read_settings(folder / PREPROCESSOR)
    if config.get("model_type") in _HUBERTS:
        found = {name: config.get(name, usual) for name, usual in HUBERT_BASE.items()}
        found |= {name: config[name] for name in _VARIANTS if config.get(name)}
    else:  # of another architecture nothing is known to be without effect
        found = {name: value for name, value in config.items() if name not in _NOT_SETTINGS}
    return {**found, **{name: preprocessor.get(name, usual) for name, usual in _PREPROCESSING.items()}}
