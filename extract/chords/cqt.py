"""The constant-Q transform: a wave's magnitude in frequency bins of equal musical width.

What librosa 0.11's ``cqt`` computes (after C. Schörkhuber, A. Klapuri, "Constant-Q Transform Toolbox for Music
Processing", SMC 2010); librosa is the oracle of the tests. soxr halves the wave from octave to octave, which makes the
filters of every octave the same samples: they are built once, and an octave is one matrix product.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain

import numpy as np
import soxr
from numpy.typing import NDArray

from m2e.extract.audio.sound import Sound, rechunked

C1 = 440 * 2 ** (-45 / 12)
# The weakest frequencies of a filter that together hold this share of its magnitude are cut (librosa's default).
SPARSITY = 0.01
# Frames gathered at once: an hour of them would need hundreds of megabytes.
BLOCK = 2_048
# Samples that the octaves take at once: little enough for the processor's cache.
PIECE = 1 << 17


def constant_q(
    sound: Sound, rate: int, hop: int, lowest: float, octaves: int, bins_per_octave: int
) -> NDArray[np.float32]:
    """Magnitude of each bin, lowest first [shape=(octaves * bins_per_octave, 1 + n // hop)].

    Args:
        sound: mono [shape=(n,), n at least 1]; zeros surround it.
        rate: of `sound`, Hz; the highest bin lies between a sixteenth and an eighth of it.
        hop: samples between the centres of frames, the first of which is the first sample; a multiple of 2**octaves.
        lowest: centre of the lowest bin, Hz.
        octaves: how many.
        bins_per_octave: in each.
    """
    filters = _filters(lowest * 2**octaves / rate, bins_per_octave)
    out = np.empty((octaves, bins_per_octave, 1 + len(sound) // hop), np.float32)
    descending = [
        _Octave(filters, -(-len(sound) // 2 ** (i + 1)), hop // 2 ** (i + 1), magnitudes)
        for i, magnitudes in enumerate(out[::-1])
    ]
    blocks = chain(rechunked(sound, PIECE), [None])
    block = next(blocks)
    while block is not None:
        following = next(blocks)
        for octave in descending:
            block = octave.take(block, last=following is None)
        block = following
    return out.reshape(octaves * bins_per_octave, -1)


class _Octave:
    """One octave: halves the wave of the octave above, block by block, and gives it to the octave below."""

    def __init__(self, filters: NDArray[np.float64], length: int, hop: int, out: NDArray[np.float32]) -> None:
        """Magnitudes go to `out` [shape=(bins, frames)]; `length` and `hop` are counted in halved samples."""
        self._filters, self._size = filters, len(filters)
        self._left, self._hop, self._out = length, hop, out
        self._halve = soxr.ResampleStream(2, 1, 1, dtype="float32", quality="HQ").resample_chunk
        self._held = [np.zeros(self._size // 2, np.float32)]
        self._held_samples = self._size // 2
        self._frame = 0

    def take(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        """[shape=(n,)]; returns the halved wave [shape=(about n / 2,)]."""
        # The scaling could wait for the end, but for soxr's rounding: only of equal samples is it librosa's.
        halved = self._halve(block, last)[: self._left]
        halved = np.multiply(halved, np.sqrt(2), out=np.empty_like(halved), casting="same_kind")
        self._left -= len(halved)
        if last and self._left:
            halved = np.pad(halved, (0, self._left))
        frames = self._out.shape[1]
        self._hold(halved)
        if last:
            end = (frames - 1 - self._frame) * self._hop + self._size
            self._hold(np.zeros(max(0, end - self._held_samples), np.float32))
        while self._frame < frames and (
            self._held_samples >= (BLOCK - 1) * self._hop + self._size or (last and self._held_samples >= self._size)
        ):
            self._transform(min(BLOCK, frames - self._frame))
        return halved

    def _hold(self, samples: NDArray[np.float32]) -> None:
        self._held.append(samples)
        self._held_samples += len(samples)

    def _transform(self, n_frames: int) -> None:
        """The next frames of what is held."""
        held = np.concatenate(self._held)
        frames = np.lib.stride_tricks.as_strided(
            held, (n_frames, self._size), (self._hop * held.itemsize, held.itemsize)
        )
        # In single precision, rounding lets what is loud leak into bins that are not.
        response = frames.astype(np.float64) @ self._filters
        response *= response
        bins = len(self._out)
        self._out[:, self._frame : self._frame + n_frames] = np.sqrt(response[:, :bins] + response[:, bins:]).T
        self._frame += n_frames
        self._held = [held[n_frames * self._hop :]]
        self._held_samples = len(self._held[0])


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
