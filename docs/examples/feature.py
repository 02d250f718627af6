"""A feature of one's own beside MERT's: how loud each segment is.

A feature that is a vector a segment needs no new place: it stands at the end of every stored layer, and the cache, the
trainer and the predictor take the width that they find. The file wraps MERT's network, under a model_type of its own in
`ARCHITECTURES` of extract/encoders/registry.py. Run with the folder of a MERT (default: the tiny one) and a song
(default: song.mp3), it prints what a cache would hold.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2e.cache import ExtractionConfig
from m2e.extract.encoders import registry as encoders
from m2e.extract.encoders.registry import ARCHITECTURES, find_encoder, load_mert
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models


class WithLoudness(nn.Module):
    """MERT's time means, each followed by the segment's level."""

    def __init__(self, mert: nn.Module) -> None:
        super().__init__()
        self.mert = mert

    def forward(self, waves: Tensor) -> Tensor:
        """Waves at 24 kHz [shape=(batch, n)] to features [shape=(batch, layers, dim + 1)]."""
        means = self.mert(waves)
        # In decibels, scaled to the size of MERT's values.
        level = 2 * torch.log10(waves.square().mean(dim=1).clamp(min=1e-10))
        return torch.cat([means, level[:, None, None].expand(-1, means.shape[1], 1)], dim=2)


def load_with_loudness(folder: Path, layers: Sequence[int], precision: Any) -> nn.Module:
    """The network of a folder that `make_folder` made."""
    return WithLoudness(load_mert(folder / "mert", layers, precision)).eval()


ARCHITECTURES["mert_with_loudness"] = load_with_loudness


def make_folder(mert: Path, folder: Path) -> Path:
    """A folder in Hugging Face layout around MERT's files."""
    folder.mkdir(parents=True)
    shutil.copytree(mert, folder / "mert")
    for name in ("preprocessor_config.json", *(path.name for path in mert.iterdir() if path.name in encoders.WEIGHTS)):
        shutil.copyfile(mert / name, folder / name)
    (folder / "config.json").write_text(json.dumps({"model_type": "mert_with_loudness"}))
    return folder


if __name__ == "__main__":
    mert, song = (*sys.argv[1:], "tiny", "song.mp3")[:2]
    inner = find_encoder(mert).folder
    assert inner, "download it first: m2e-extract does"
    source = find_encoder(str(make_folder(inner, Path("weights/with-loudness"))))
    assert source.folder
    config = ExtractionConfig(source.name, source.revision, chords="template")
    features = Extractor.of(Models(config, source.folder, None, "cpu"))(Path(song))
    print(features.embeddings.shape, features.embeddings[:, 0, -1])
