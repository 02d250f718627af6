"""Audio to features: MERT embeddings, chords and key.

>>> features = Extractor("MERT-v1-95M", chords="btc", device="cuda")("song.mp3")
>>> extract("emomusic", root="data/emomusic", cache="features")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2e.common.lazy import lazily

if TYPE_CHECKING:
    from m2e.extract.extractor import Extractor
    from m2e.extract.job.job import extract
    from m2e.extract.job.part import Part
    from m2e.extract.job.report import Extracted

__all__ = ["Extracted", "Extractor", "Part", "extract"]

__getattr__ = lazily(
    __name__, {"Extracted": "job.report", "Extractor": "extractor", "Part": "job.part", "extract": "job.job"}
)
