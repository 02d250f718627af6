"""How loud a track is in each channel: whether it is silent, clipped, off centre, or lost when it is mixed down."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from m2e.cache.notes import Note
from m2e.common.errors import DataError

Wave = NDArray[np.float32]

_LOUDEST = 1e6  # float files may go beyond 1; what follows squares samples
_SILENT = 1e-4  # -80 dB of full scale
# Of the loudest level, or of full scale where lossy coding has gone beyond. Of a sine 3 % of the samples are there.
_AT_THE_TOP = 0.999
_MUCH_CLIPPED = 0.1
_FAR_OFF_CENTRE = 0.01
# Of the energy that the mean of channels that have nothing to do with each other has: two of them correlate below -.9,
# which no mix is meant to do. What lossy coding leaves of channels that cancel is up to -12 dB, and is noise.
_CANCELLED = 0.1


class Levels:
    """Takes a track block by block."""

    def __init__(self) -> None:
        self._peak = self._mixed = self._expected = self._sum = 0.0
        self._samples = self._mono_samples = self._clipped = 0
        self._energies: list[float] = []

    def add(self, block: Wave, mono: Wave) -> None:
        """Take samples of all channels [shape=(channels, n)] and their mean [shape=(n,)].

        Raises:
            DataError: some are not numbers, or far beyond full scale.
        """
        self._energies += [0.0] * (len(block) - len(self._energies))
        total = 0.0
        for channel, wave in enumerate(block):
            peak = max(float(wave.max()), -float(wave.min()))
            if not math.isfinite(peak):
                raise DataError("holds samples that are not numbers (NaN or infinite)")
            if peak > _LOUDEST:
                raise DataError(f"holds samples beyond {_LOUDEST:g}, where full scale is 1: it is damaged")
            energy = float(wave @ wave)
            self._energies[channel] += energy
            total += energy
            self._count_clipped(wave, peak)
        self._samples += block.size
        self._mono_samples += len(mono)
        self._sum += float(mono.sum())
        self._mixed += float(mono @ mono)
        self._expected += total / len(block) ** 2

    def _count_clipped(self, wave: Wave, peak: float) -> None:
        if _AT_THE_TOP * min(peak, 1) > self._peak:
            self._clipped = 0  # what was the top is none
        self._peak = max(self._peak, peak)
        top = _AT_THE_TOP * min(self._peak, 1)
        if peak >= top:
            self._clipped += int(np.count_nonzero(np.abs(wave) >= top))

    @property
    def silent(self) -> bool:
        """Whether nothing is above -80 dB of full scale."""
        return self._peak < _SILENT

    @property
    def lone_channel(self) -> int | None:
        """Which channel to hear alone, the loudest, where all of them together cancel each other; else None."""
        if self.silent or self._mixed >= _CANCELLED * self._expected:
            return None
        return self._energies.index(max(self._energies))

    def notes(self) -> list[Note]:
        """What is odd about them."""
        if self.silent:
            return [Note("silent")]
        notes = []
        if self.lone_channel is not None:
            notes.append(Note("cancels", (self.lone_channel + 1,)))
        if self._clipped > _MUCH_CLIPPED * self._samples:
            notes.append(Note("clipped", (self._clipped / self._samples,)))
        offset = self._sum / self._mono_samples
        if abs(offset) > _FAR_OFF_CENTRE:
            notes.append(Note("offset", (offset,)))
        return notes
