"""What recognisers of chords hear: a constant-Q spectrum tuned to the music, and where it is silent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2e.extract.chords import SAMPLE_RATE
from m2e.extract.cqt import constant_q

HOP = 2_048
BINS_PER_SEMITONE = 3
# A frame is silent below -80 dB of full scale, and 50 dB below the loudest frame.
SILENT_RMS = 1e-4
SILENT_RELATIVE = 10 ** (-50 / 20)


def silent_frames(wave: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which frames of 2,048 samples are silent [shape=(frames,)]."""
    n_frames = -(-len(wave) // HOP)
    frames = np.pad(wave, (0, n_frames * HOP - len(wave))).reshape(n_frames, HOP)
    rms = np.sqrt(np.mean(np.square(frames), axis=1))
    return rms < max(SILENT_RMS, SILENT_RELATIVE * rms.max())


def tuned_spectrum(wave: NDArray[np.float32], lowest: float, octaves: int) -> NDArray[np.float32]:
    """Magnitudes in bins tuned to the music [shape=(36 * octaves, frames)].

    Frame i is centred on the middle of its 2,048 samples.

    Args:
        wave: mono, 22,050 Hz [shape=(n,), n at least 1].
        lowest: centre of the lowest bin where A is 440 Hz, Hz.
        octaves: how many.
    """
    # The transform centres frame i on sample i * HOP: half a frame of silence ahead turns that into a frame's middle.
    n_frames = -(-len(wave) // HOP)
    wave = np.pad(wave, (HOP // 2, HOP))

    def spectrum(tuning: float) -> NDArray[np.float32]:
        tuned = lowest * 2 ** (tuning / 12)
        return constant_q(wave, SAMPLE_RATE, HOP, tuned, octaves, 12 * BINS_PER_SEMITONE)[:, 1 : n_frames + 1]

    return spectrum(_tuning(spectrum(0)))


def _tuning(spectrum: NDArray[np.float32]) -> float:
    """Deviation from A = 440 Hz in semitones, -0.5 to 0.5: the phase of the energy's period of one semitone."""
    turns = np.exp(2j * np.pi * np.arange(len(spectrum)) / BINS_PER_SEMITONE)
    return float(np.angle(turns @ np.square(spectrum).sum(axis=1)) / (2 * np.pi))
