"""What recognisers of chords hear: a constant-Q spectrum tuned to the music, and where it is silent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from m2e.extract.audio.sound import Recording, Sound, Wave, blocks_of
from m2e.extract.chords.cqt import constant_q
from m2e.extract.chords.recogniser import SAMPLE_RATE

HOP = 2_048
BINS_PER_SEMITONE = 3
# A frame is silent below -80 dB of full scale, and 50 dB below the loudest frame.
SILENT_RMS = 1e-4
SILENT_RELATIVE = 10 ** (-50 / 20)


class Loudness:
    """How loud each frame of 2,048 samples is; takes a sound block by block."""

    def __init__(self) -> None:
        self._held = np.zeros(0, np.float32)
        self._rms: list[Wave] = []

    def add(self, block: Wave) -> None:
        """Take the next samples [shape=(n,)]."""
        wave = np.concatenate([self._held, block])
        whole = len(wave) // HOP * HOP
        self._held = wave[whole:].copy()
        self._measure(wave[:whole])

    def _measure(self, wave: Wave) -> None:
        self._rms.append(np.sqrt(np.mean(np.square(wave.reshape(-1, HOP)), axis=1)))

    def silent_frames(self) -> NDArray[np.bool_]:
        """Which frames are silent [shape=(frames,)]; the last one may be shorter. Nothing can be added afterwards."""
        if len(self._held):
            self._measure(np.pad(self._held, (0, HOP - len(self._held))))
        rms = np.concatenate(self._rms)
        return rms < max(SILENT_RMS, SILENT_RELATIVE * rms.max())


def tuned_spectrum(sound: Sound, lowest: float, octaves: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Magnitudes in bins tuned to the music [shape=(36 * octaves, frames)], and which frames are silent.

    Frame i is centred on the middle of its 2,048 samples. The sound is read twice.

    Args:
        sound: mono, 22,050 Hz [shape=(n,), n at least 1].
        lowest: centre of the lowest bin where A is 440 Hz, Hz.
        octaves: how many.
    """
    n_frames = -(-len(sound) // HOP)
    loudness = Loudness()

    def framed(measured: bool) -> Iterator[Wave]:
        # The transform centres frame i on sample i * HOP: half a frame of silence ahead turns that into a frame's
        # middle.
        yield np.zeros(HOP // 2, np.float32)
        for block in blocks_of(sound):
            if measured:
                loudness.add(block)
            yield block
        yield np.zeros(HOP, np.float32)

    def spectrum(tuning: float, measured: bool) -> NDArray[np.float32]:
        wave = Recording(lambda: framed(measured), len(sound) + HOP // 2 + HOP)
        tuned = lowest * 2 ** (tuning / 12)
        return constant_q(wave, SAMPLE_RATE, HOP, tuned, octaves, 12 * BINS_PER_SEMITONE)[:, 1 : n_frames + 1]

    return spectrum(_tuning(spectrum(0, True)), False), loudness.silent_frames()


def _tuning(spectrum: NDArray[np.float32]) -> float:
    """Deviation from A = 440 Hz in semitones, -0.5 to 0.5: the phase of the energy's period of one semitone."""
    turns = np.exp(2j * np.pi * np.arange(len(spectrum)) / BINS_PER_SEMITONE)
    energies = np.array([np.square(bin_).sum() for bin_ in spectrum])  # at once they would need its memory again
    return float(np.angle(turns @ energies) / (2 * np.pi))
