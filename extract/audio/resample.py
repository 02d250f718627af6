"""From one sample rate to another, block by block.

The encoder's wave passes a Hann-windowed sinc, as the paper's released code resamples with torchaudio's defaults
(sinc_interp_hann, lowpass_filter_width 6, rolloff .99); the chord recogniser's wave soxr HQ, as librosa.load does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from m2e.cache.settings import ResamplerName

Wave = NDArray[np.float32]

_FILTER_WIDTH = 6
_ROLLOFF = 0.99
# Taps of a filter that is one dense matrix: all common rates have fewer, and larger ones are slower than sparse ones.
_LARGEST_MATRIX = 1 << 20
# Neighbouring outputs that share a product: each has inputs of its own, and the taps on the others' are zero.
_TOGETHER = 16
# Outputs that are computed at once where each gathers its own inputs.
_GATHERED = 1 << 14


class Resampler:
    """From one rate to another, block by block; what it returns is, one after the other, the resampled wave."""

    def __init__(self, rate: int, target: int, method: ResamplerName) -> None:
        """Rates in Hz, at least 1."""
        self._rate, self._target = rate, target
        self._taken = self._given = 0
        self._resample: Callable[[Wave, bool], Wave]
        if rate == target:
            self._resample = lambda block, last: block.copy()
        elif method == "sinc_hann":
            dense = _matrix_size(rate, target) <= _LARGEST_MATRIX
            self._resample = (_MatrixSinc if dense else _GatheringSinc)(rate, target).resample_chunk
        else:
            import soxr

            self._resample = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ").resample_chunk

    def __call__(self, block: Wave, last: bool = False) -> Wave:
        """[shape=(n,) -> (m,)]; the lengths of all results add up to ceil(samples * target / rate)."""
        out = self._resample(block, last)
        self._taken += len(block)
        if last:
            missing = -(-self._taken * self._target // self._rate) - self._given - len(out)
            out = np.pad(out, (0, missing)) if missing > 0 else out[: len(out) + missing]
        self._given += len(out)
        return out


def _periods(rate: int, target: int) -> tuple[int, int, float, int]:
    """Inputs and outputs of a period, the cutoff in half cycles of a period, and how many inputs a filter reaches."""
    common = math.gcd(rate, target)
    step, phases = rate // common, target // common
    cutoff = min(step, phases) * _ROLLOFF
    return step, phases, cutoff, math.ceil(_FILTER_WIDTH * step / cutoff)


def _taps(position: NDArray[np.float64], cutoff: float, step: int) -> Wave:
    """The filter at inputs that are so far from an output, in periods."""
    time = np.clip(position * cutoff, -_FILTER_WIDTH, _FILTER_WIDTH)
    window = np.cos(time * math.pi / _FILTER_WIDTH / 2) ** 2
    return (np.sinc(time) * window * cutoff / step).astype(np.float32)


class _MatrixSinc:
    """Outputs repeat their phases after `step` inputs, so that those of a step are a few matrix products."""

    def __init__(self, rate: int, target: int) -> None:
        self._step, self._phases, reach, self._products = _matrices(rate, target)
        self._after = reach + 2 * self._step
        self._held = np.zeros(reach, np.float32)

    def resample_chunk(self, block: Wave, last: bool) -> Wave:
        wave = np.concatenate([self._held, block, np.zeros(self._after if last else 0, np.float32)])
        # A window is a step and the beginning of the next.
        steps = max(len(wave) // self._step - 1, 0)
        out = np.empty((steps, self._phases), np.float32)
        for product in self._products:
            inputs = np.lib.stride_tricks.as_strided(
                wave[product.first :], (steps, len(product.taps)), (4 * self._step, 4), writeable=False
            )
            phases = out[:, product.phase : product.phase + product.taps.shape[1]]
            if product.adds:
                phases += inputs @ product.taps
            else:
                np.matmul(inputs, product.taps, out=phases)
        self._held = wave[steps * self._step :]
        return out.reshape(-1)


@dataclass(frozen=True, eq=False)
class _Product:
    """Some phases of all steps: their taps, on inputs from `first` on [shape=(inputs, phases)].

    Attributes:
        phase: the first.
        first: the first input, within a step.
        taps: those that are not all zero.
        adds: whether the result is added to what another product gave.
    """

    phase: int
    first: int
    taps: Wave
    adds: bool


def _grouped(rate: int, target: int) -> tuple[int, int, float, int]:
    """`_periods`, several put together where they are short: inputs must span the filter, products should be large."""
    step, phases, cutoff, reach = _periods(rate, target)
    periods = math.ceil(max(2 * reach, 128) / step)
    return step * periods, phases * periods, cutoff * periods, reach


def _matrix_size(rate: int, target: int) -> int:
    step, phases, _, reach = _grouped(rate, target)
    return phases * (2 * reach + step)


@lru_cache(maxsize=16)
def _matrices(rate: int, target: int) -> tuple[int, int, int, list[_Product]]:
    """Inputs and outputs a step, the filter's reach, and the products.

    Inputs of the next step have products of their own: sums are then those of the two products of the whole matrix.
    """
    step, phases, cutoff, reach = _grouped(rate, target)
    kernel = _taps(np.arange(-reach, reach + step) / step - np.arange(phases)[:, None] / phases, cutoff, step).T
    products = []
    together = _TOGETHER if phases % _TOGETHER == 0 else phases
    for phase in range(0, phases, together):
        some = kernel[:, phase : phase + together]
        used = np.flatnonzero(some.any(axis=1))
        first, end = (int(used[0]), int(used[-1]) + 1) if together < phases else (0, len(kernel))
        own = [(first, min(end, step), False)] if first < step else []
        following = [(max(first, step), end, bool(own))] if end > step else []
        for start, stop, adds in (*own, *following):
            products.append(_Product(phase, start, np.ascontiguousarray(some[start:stop]), adds))
    return step, phases, reach, products


class _GatheringSinc:
    """The same filter for rates with a long period, such as 44,101 Hz: each output gathers the inputs in its reach."""

    def __init__(self, rate: int, target: int) -> None:
        self._step, self._phases, _, self._reach = _periods(rate, target)
        self._table = _phase_table(rate, target)
        self._held = np.zeros(self._reach, np.float32)
        self._first = -self._reach  # which input `_held` begins with
        self._next = 0  # which output comes next

    def resample_chunk(self, block: Wave, last: bool) -> Wave:
        after = np.zeros(2 * self._reach + 1 if last else 0, np.float32)
        wave = np.concatenate([self._held, block, after])
        width = 2 * self._reach + 1
        windows = np.lib.stride_tricks.sliding_window_view(wave, width) if len(wave) >= width else wave[:0]
        # Output i is at input i * step / phases; it needs the window that begins `reach` before.
        end = -(-(self._first + self._reach + len(windows)) * self._phases // self._step)
        parts = []
        for start in range(self._next, end, _GATHERED):
            outputs = np.arange(start, min(start + _GATHERED, end))
            begins = outputs * self._step // self._phases - self._reach - self._first
            parts.append(np.einsum("ij,ij->i", windows[begins], self._table[outputs % self._phases]))
        self._next = max(self._next, end)
        kept = min(self._next * self._step // self._phases - self._reach - self._first, len(wave))
        self._held = wave[kept:]
        self._first += kept
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@lru_cache(maxsize=4)
def _phase_table(rate: int, target: int) -> Wave:
    """The taps of each phase [shape=(phases, 2 * reach + 1)]; at most 20 MB, for 384 kHz."""
    step, phases, cutoff, reach = _periods(rate, target)
    table = np.empty((phases, 2 * reach + 1), np.float32)
    for start in range(0, phases, 1_000):  # the arithmetic takes several times the room
        phase = np.arange(start, min(start + 1_000, phases))[:, None]
        inputs = phase * step // phases + np.arange(-reach, reach + 1)
        table[start : start + 1_000] = _taps(inputs / step - phase / phases, cutoff, step)
    return table
