"""The constant-Q transform: a wave's magnitude in frequency bins of equal musical width.

What librosa 0.11's ``cqt`` computes (after C. Schörkhuber, A. Klapuri, "Constant-Q Transform Toolbox for Music
Processing", SMC 2010); librosa is the oracle of the tests. soxr halves the wave from octave to octave, which makes the
filters of every octave the same samples: they are built once, and an octave is one matrix product.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

C1 = 440 * 2 ** (-45 / 12)
# The weakest frequencies of a filter that together hold this share of its magnitude are cut (librosa's default).
SPARSITY = 0.01
# Frames gathered at once: an hour of them would need hundreds of megabytes.
BLOCK = 2_048


def constant_q(
    wave: NDArray[np.float32], rate: int, hop: int, lowest: float, octaves: int, bins_per_octave: int
) -> NDArray[np.float32]:
    """Magnitude of each bin, lowest first [shape=(octaves * bins_per_octave, 1 + n // hop)].

    Args:
        wave: mono [shape=(n,), n at least 1]; zeros surround it.
        rate: of `wave`, Hz; the highest bin lies between a sixteenth and an eighth of it.
        hop: samples between the centres of frames, the first of which is the first sample; a multiple of 2**octaves.
        lowest: centre of the lowest bin, Hz.
        octaves: how many.
        bins_per_octave: in each.
    """
    filters = _filters(lowest * 2**octaves / rate, bins_per_octave)
    size = len(filters)
    n_frames = 1 + len(wave) // hop
    out = np.empty((octaves, bins_per_octave, n_frames), np.float32)
    for octave in reversed(range(octaves)):
        hop //= 2
        length = -(-len(wave) // 2)
        padded = np.zeros(max(length, (n_frames - 1) * hop) + size, np.float32)
        halved = soxr.resample(wave, 2, 1, "HQ")[:length]
        wave = padded[size // 2 : size // 2 + length]
        # The scaling could wait for the end, but for soxr's rounding: only of equal samples is it librosa's.
        np.multiply(halved, np.sqrt(2), out=wave[: len(halved)], casting="same_kind")
        frames = np.lib.stride_tricks.as_strided(padded, (n_frames, size), (hop * padded.itemsize, padded.itemsize))
        for start in range(0, n_frames, BLOCK):
            # In single precision, rounding lets what is loud leak into bins that are not.
            response = frames[start : start + BLOCK].astype(np.float64) @ filters
            response *= response
            power = response[:, :bins_per_octave] + response[:, bins_per_octave:]
            out[octave, :, start : start + BLOCK] = np.sqrt(power).T
    return out.reshape(-1, n_frames)


@lru_cache(maxsize=16)
def _filters(lowest: float, bins_per_octave: int) -> NDArray[np.float64]:
    """Real parts of an octave's filters, then their imaginary parts [shape=(samples, 2 * bins_per_octave)].

    Args:
        lowest: centre of the octave's lowest bin, in cycles a sample.
        bins_per_octave: how many.
    """
    ratio = 2 ** (1 / bins_per_octave)
    q = (ratio**2 + 1) / (ratio**2 - 1)
    frequencies = lowest * ratio ** np.arange(bins_per_octave)
    lengths = q / frequencies
    size = 2 ** int(np.ceil(np.log2(lengths[0])))
    spectra = np.zeros((bins_per_octave, size), complex)
    for spectrum, frequency, length in zip(spectra, frequencies, lengths, strict=True):
        time = np.arange(-length // 2, length // 2)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(len(time)) / len(time))
        first = (size - len(time)) // 2
        filter_ = np.zeros(size, complex)
        filter_[first : first + len(time)] = window / window.sum() * np.exp(2j * np.pi * frequency * time)
        positive = np.fft.fft(filter_)[: size // 2 + 1] * np.sqrt(length) / size
        magnitude = np.sort(np.abs(positive))
        threshold = magnitude[np.searchsorted(magnitude.cumsum(), SPARSITY * magnitude.sum())]
        spectrum[: len(positive)] = np.where(np.abs(positive) < threshold, 0, positive)
    filters = np.fft.fft(spectra, axis=1).T
    return np.concatenate([filters.real, filters.imag], axis=1)
