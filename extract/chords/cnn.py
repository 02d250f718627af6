"""Chords by a small convolutional network, trained on rendered music alone; its weights are part of the package.

The network hears all keys alike: between any two of the 12 pitch classes, what a layer does depends only on the
interval. So a chord learned on one root is known on all. benchmarks/train_chords.py trains it, on songs that
benchmarks/training_songs.py draws and fluidsynth plays; docs/chords.md says how well it hears.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from m2e.cache.harmony import NO_CHORD, PITCH_CLASSES, QUALITIES, ChordSequence
from m2e.common.float32 import float32_products
from m2e.extract.audio.sound import Sound
from m2e.extract.chords.cqt import C1
from m2e.extract.chords.decoding import likeliest_path
from m2e.extract.chords.recogniser import SAMPLE_RATE
from m2e.extract.chords.spectrum import BINS_PER_SEMITONE, HOP, tuned_spectrum

OCTAVES = 6
N_BINS = OCTAVES * 12 * BINS_PER_SEMITONE
WIDTH = 48
PITCH_CHANNELS = 16
REACH = 9
DILATIONS = (1, 2, 4, 8)
# Classes are 14 * root + quality, then N; the songs hold no X.
N_CLASSES = len(PITCH_CLASSES) * len(QUALITIES) + 1
# Magnitudes from 60 dB below the loudest one count.
LOG_COMPRESSION = 1_000.0
STAY_PROBABILITY = 0.5
# Frames in one pass, and how many more to either side it hears.
BLOCK = 1_024
MARGIN = 1 + REACH // 2 * sum(DILATIONS)


def network_input(magnitudes: Tensor, loudest: Tensor | None = None) -> Tensor:
    """What the network hears of a tuned spectrum from C1 upwards, relative to its loudest bin.

    Args:
        magnitudes: [shape=(216, frames)]
        loudest: of the whole, where these are a part.

    Returns:
        0 to 1 [shape=(frames, 216)]
    """
    most = (magnitudes.amax() if loudest is None else loudest).clamp_min(torch.finfo(magnitudes.dtype).tiny)
    compressed = torch.log1p(LOG_COMPRESSION * magnitudes / most) / math.log1p(LOG_COMPRESSION)
    # A semitone is its centre's bin and one to either side.
    return compressed.roll(BINS_PER_SEMITONE // 2, dims=0).T


class PitchClassConvolution(nn.Module):
    """From all 12 pitch classes to each, by weights of their interval alone: a circular convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, WIDTH, WIDTH) / math.sqrt(12 * WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, frames, 12, width)] to the same shape."""
        pitch = torch.arange(12, device=x.device)
        # From, to, in, out. One large product is faster than few operations.
        weight = self.weight[(pitch[:, None] - pitch) % 12]
        matrix = weight.transpose(1, 2).reshape(12 * WIDTH, 12 * WIDTH)
        return (x.flatten(-2) @ matrix).view(x.shape) + self.bias


class Block(nn.Module):
    """Each channel over time, then all over pitch classes; both are added to what came in."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(WIDTH)
        padding = dilation * (REACH // 2)
        self.time = nn.Conv2d(WIDTH, WIDTH, (REACH, 1), padding=(padding, 0), dilation=(dilation, 1), groups=WIDTH)
        self.pitch_norm = nn.LayerNorm(WIDTH)
        self.pitch = PitchClassConvolution()

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, frames, 12, width)] to the same shape."""
        x = x + self.time(self.time_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + nn.functional.gelu(self.pitch(self.pitch_norm(x)))


class ChordNetwork(nn.Module):
    """`network_input` [shape=(batch, frames, 216)] to logits [shape=(batch, frames, 169)]."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = nn.Conv2d(BINS_PER_SEMITONE, PITCH_CHANNELS, 3, padding=1)
        self.fold = nn.Linear(OCTAVES * PITCH_CHANNELS, WIDTH)
        self.blocks = nn.Sequential(*(Block(dilation) for dilation in DILATIONS))
        self.norm = nn.LayerNorm(WIDTH)
        self.chord = nn.Linear(WIDTH, len(QUALITIES))
        self.no_chord = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, _ = x.shape
        semitones = x.view(batch, frames, -1, BINS_PER_SEMITONE).permute(0, 3, 1, 2)  # (batch, 3, frames, 72)
        heard = nn.functional.gelu(self.neighbours(semitones)).reshape(batch, PITCH_CHANNELS, frames, OCTAVES, 12)
        folded = heard.permute(0, 2, 4, 3, 1).flatten(-2)  # (batch, frames, 12, octaves * channels)
        hidden = self.norm(self.blocks(self.fold(folded)))
        return torch.cat([self.chord(hidden).flatten(-2), self.no_chord(hidden.mean(dim=2))], dim=-1)


class CNNRecogniser:
    """All 168 chords, and N where none sounds; never X."""

    name = "cnn"

    def __init__(self, weights: Path, revision: str) -> None:
        self.revision = revision
        self.network = ChordNetwork().eval()
        self.network.load_state_dict(load_file(weights))

    def __call__(self, sound: Sound) -> ChordSequence:
        """Chords of a mono sound at 22,050 Hz, in frames of 2,048 samples."""
        duration = len(sound) / SAMPLE_RATE
        spectrum, silent = tuned_spectrum(sound, C1, OCTAVES)
        if silent.all():
            return ChordSequence.from_labels([[0, duration]], ["N"])
        path = likeliest_path(self.scores(spectrum), STAY_PROBABILITY)
        path[silent] = N_CLASSES - 1
        chords = [(NO_CHORD, NO_CHORD) if i == N_CLASSES - 1 else divmod(i, len(QUALITIES)) for i in path.tolist()]
        return ChordSequence.from_frames(chords, HOP / SAMPLE_RATE, duration)

    def scores(self, magnitudes: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Log-probability of each class in a tuned spectrum from C1 [shape=(216, frames)], block by block.

        Yields:
            [shape=(at most 1,024 frames, 169)]
        """
        whole = torch.from_numpy(magnitudes)
        loudest = whole.amax()
        for start in range(0, whole.shape[1], BLOCK):
            first = max(0, start - MARGIN)
            with torch.inference_mode(), float32_products("ieee"):
                frames = network_input(whole[:, first : start + BLOCK + MARGIN], loudest)
                logits = self.network(frames[None])[0]
                scores = logits[start - first :][:BLOCK].log_softmax(dim=-1).numpy()
            yield scores
