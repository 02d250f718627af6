"""An encoder of another architecture than MERT: bands of the spectrum, in place of hidden states.

In extract/encoders/registry.py it is a line in `ARCHITECTURES`: the model_type of a folder's config.json -> a function
that makes the network. Its "layers" are 0, the mean of each band over time, and 1, its standard deviation. Run from a
folder with my-songs.csv, it makes the encoder's folder, a cache with it, and a model.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from m2e import manifests
from m2e.cache import ExtractionConfig, FeatureWriter
from m2e.extract.encoders.registry import ARCHITECTURES, find_encoder
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models
from m2e.manifests.store import save_labels
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import load_data, open_caches
from m2e.train.run import train_all

BANDS, WINDOW, HOP = 32, 2048, 1024


class Bands(nn.Module):
    """Energies of frequency bands; `filters` are their weights on the bins of the spectrum [shape=(bins, bands)]."""

    def __init__(self, filters: Tensor, layers: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("filters", filters)
        self.register_buffer("window", torch.hann_window(WINDOW))
        self.layers = list(layers)

    def forward(self, waves: Tensor) -> Tensor:
        """Waves at 24 kHz [shape=(batch, n)] to features [shape=(batch, layers, dim)]."""
        spectrum = torch.stft(waves, WINDOW, HOP, window=self.window, return_complex=True).abs()
        energy = torch.log1p(spectrum.transpose(1, 2) @ self.filters)  # (batch, frames, bands)
        statistics = torch.stack([energy.mean(dim=1), energy.std(dim=1)], dim=1)  # (batch, 2, bands)
        return statistics[:, self.layers]


def load_bands(folder: Path, layers: Sequence[int], precision: str) -> nn.Module:
    """The network of a folder; `layers` are among 0 and 1."""
    return Bands(load_file(folder / "model.safetensors")["filters"], layers).eval()


ARCHITECTURES["bands"] = load_bands


def make_folder(folder: Path) -> Path:
    """A folder in Hugging Face layout, with triangular filters that widen upwards."""
    folder.mkdir(parents=True, exist_ok=True)
    edges = torch.logspace(1.5, 4, BANDS + 2)
    bins = torch.linspace(0, 12_000, WINDOW // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    save_file({"filters": torch.minimum(rising, falling).clamp(min=0)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bands"}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 24_000}))
    return folder


if __name__ == "__main__":
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    source = find_encoder(str(make_folder(Path("weights/bands"))))
    config = ExtractionConfig(source.name, source.revision, layers=(0, 1), chords="template")
    manifest = manifests.load("my-songs.csv")
    cache = Path("features-of-bands", manifest.name)
    save_labels(manifest, cache)
    assert source.folder
    extractor = Extractor.of(Models(config, source.folder, None, "cpu"))
    # With the line in `ARCHITECTURES`, m2e-extract --encoder weights/bands --layers 0,1 does this, in many processes.
    with FeatureWriter(cache, config) as writer:
        for track in manifest.tracks:
            writer.add(extractor(track.audio_path, track.track_id))

    training = TrainConfig.preset("paper", layers=(0, 1), epochs=epochs)
    sets = load_data(open_caches(cache.parent, [manifest.name]), training, torch.device("cpu"))
    run = train_all(sets, training, Path("runs/bands"))
    print(f"{sets[0].width} numbers a segment; models: {', '.join(run.models)} in runs/bands")
