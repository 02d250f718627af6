"""Extraction the plain way: stage by stage what the paper's released code does, on the same weights as ours.

Every file is decoded twice, once for each rate. Each segment goes alone through all twelve blocks of transformers'
model, which returns all hidden states. Chords come from librosa's constant-Q transform of 10 s chunks and one network
pass for each, and the key from a MIDI file that music21 parses and analyses.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from m2e.cache.harmony import ChordSequence
from m2e.extract.chords.files import midi_notes

Wave = NDArray[np.float32]


@dataclass
class SincKernel:
    """torchaudio's Resample with its defaults: one strided convolution whose channels are the phases."""

    kernel: torch.Tensor
    step: int
    reach: int

    @classmethod
    def between(cls, rate: int, target: int) -> SincKernel:
        common = math.gcd(rate, target)
        step, phases = rate // common, target // common
        cutoff = min(step, phases) * 0.99
        reach = math.ceil(6 * step / cutoff)
        position = torch.arange(-reach, reach + step)[None, None] / step - torch.arange(phases)[:, None, None] / phases
        time = (position * cutoff).clamp(-6, 6)
        return cls(torch.sinc(time) * torch.cos(time * math.pi / 12) ** 2 * cutoff / step, step, reach)

    def __call__(self, wave: torch.Tensor) -> torch.Tensor:
        """[shape=(n,) -> (m,)]"""
        phases = self.kernel.shape[0]
        padded = torch.nn.functional.pad(wave[None, None], (self.reach, self.reach + self.step))
        out = torch.nn.functional.conv1d(padded, self.kernel, stride=self.step)
        return out[0].T.reshape(-1)[: math.ceil(phases * len(wave) / self.step)]


def encoder_wave(path: Path, kernels: dict[int, SincKernel]) -> torch.Tensor:
    """Mono at 24 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples.T).mean(dim=0)
    if rate not in kernels:
        kernels[rate] = SincKernel.between(rate, 24_000)
    return kernels[rate](mono)


def chord_wave(path: Path) -> Wave:
    """Mono at 22,050 Hz."""
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that librosa.load imports and Python is to drop
        return librosa.load(path, sr=22_050)[0]


def embed(model: Any, segment: torch.Tensor) -> Wave:
    """Time means of h[1] to h[12] [shape=(12, dim)]."""
    normalised = (segment - segment.mean()) / (segment.var(correction=0) + 1e-7).sqrt()
    with torch.no_grad():
        states = torch.stack(model(normalised[None], output_hidden_states=True).hidden_states[1:]).squeeze(1)
        return states.mean(dim=1).numpy()


def chord_classes(model: Any, mean: float, std: float, wave: Wave) -> list[int]:
    """The class of every frame; `model` is BTC."""
    import librosa

    chunks = [wave[start : start + 220_500] for start in range(0, len(wave), 220_500)]
    spectra = [librosa.cqt(c, sr=22_050, hop_length=2048, n_bins=144, bins_per_octave=24) for c in chunks]
    features = np.log(np.abs(np.concatenate(spectra, axis=1)) + 1e-6).T
    features = (features - mean) / std
    features = np.pad(features, ((0, -len(features) % 108), (0, 0))).astype(np.float32)
    with torch.no_grad():
        return [
            int(number)
            for start in range(0, len(features), 108)
            for number in model(torch.from_numpy(features[None, start : start + 108])).argmax(-1)[0]
        ]


def key(chords: ChordSequence) -> str:
    """By way of a MIDI file."""
    import pretty_midi
    from music21 import converter

    midi = pretty_midi.PrettyMIDI(initial_tempo=120.0)
    midi.instruments.append(pretty_midi.Instrument(0))
    midi.instruments[0].notes = [
        pretty_midi.Note(120, 48 + p, start / 440, end / 440) for start, p, end in midi_notes(chords)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "chords.mid")
        midi.write(str(path))
        return str(converter.parseFile(path, forceSource=True, storePickle=False).analyze("key"))
