"""Audio to features: MERT embeddings, chords and key.

>>> features = Extractor("MERT-v1-95M", chords="btc", device="cuda")("song.mp3")
>>> extract("emomusic", root="data/emomusic", cache="features")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2e.extract.extractor import Extractor
    from m2e.extract.job.job import extract
    from m2e.extract.job.part import Part
    from m2e.extract.job.report import Extracted

__all__ = ["Extracted", "Extractor", "Part", "extract"]

_HOMES = {"Extracted": "job.report", "Extractor": "extractor", "Part": "job.part", "extract": "job.job"}


def __getattr__(name: str) -> Any:
    """What this package offers, loaded when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
