"""Chords by templates: no weights and no training, for trying m2e out and for machines without BTC's weights.

A chroma vector is compared with what each chord's notes and their harmonics sound like, and the most likely path
through the frames is kept (T. Fujishima, "Realtime Chord Recognition of Musical Sound", ICMC 1999; H. Papadopoulos,
G. Peeters, "Large-Scale Study of Chord Estimation Algorithms Based on Chroma Representation and HMM", CBMI 2007).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import NO_CHORD, PITCH_CLASSES, QUALITIES, ChordSequence, pitch_classes
from m2e.extract.chords import SAMPLE_RATE
from m2e.extract.cqt import C1, constant_q
from m2e.extract.smoothing import likeliest_path

HOP = 2_048
BINS_PER_SEMITONE = 3
N_OCTAVES = 5
LOWEST_HZ = 2 * C1  # the octave below blurs what is heard above it
# The commonest of the 14 qualities; a rare one (sus4, say) would be heard in any passing note. Major and minor triads
# win where a richer chord is hardly likelier. These and the numbers below were chosen on rendered songs, but not on
# those of docs/chords.md.
QUALITIES_HEARD = ("maj", "min", "7", "maj7", "min7", "dim")
HANDICAP = np.array([0 if quality in ("maj", "min") else 0.01 for quality in QUALITIES_HEARD])
# A note's harmonics, the note included, and how much weaker each is than the one before.
N_HARMONICS = 6
HARMONIC_DECAY = 0.7
LOG_COMPRESSION = 100.0
SHARPNESS = 6.0
STAY_PROBABILITY = 0.9
# A frame is silent below -80 dB of full scale, and 50 dB below the loudest frame.
SILENT_RMS = 1e-4
SILENT_RELATIVE = 10 ** (-50 / 20)

CHORDS = [(root, QUALITIES.index(quality)) for root in range(len(PITCH_CLASSES)) for quality in QUALITIES_HEARD]


class TemplateRecogniser:
    """Chords of six qualities (`QUALITIES_HEARD`) on every root, and N where it is silent; never X."""

    name = "template"
    revision = ""

    def __call__(self, wave: NDArray[np.float32]) -> ChordSequence:
        """Chords of a mono wave at 22,050 Hz, in frames of 2,048 samples."""
        duration = len(wave) / SAMPLE_RATE
        silent = _silent_frames(wave)
        if silent.all():
            return ChordSequence.from_labels([[0, duration]], ["N"])
        path = likeliest_path(_scores(_chroma(_tuned_spectrum(wave))), STAY_PROBABILITY)
        chords = [(NO_CHORD, NO_CHORD) if quiet else CHORDS[i] for i, quiet in zip(path, silent, strict=True)]
        return ChordSequence.from_frames(chords, HOP / SAMPLE_RATE, duration)


def _silent_frames(wave: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which frames of 2,048 samples are silent [shape=(frames,)]."""
    n_frames = -(-len(wave) // HOP)
    frames = np.pad(wave, (0, n_frames * HOP - len(wave))).reshape(n_frames, HOP)
    rms = np.sqrt(np.mean(np.square(frames), axis=1))
    return rms < max(SILENT_RMS, SILENT_RELATIVE * rms.max())


def _tuned_spectrum(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitudes in bins tuned to the music [shape=(180, frames)]; frame i is centred on the middle of its samples."""
    # The transform centres frame i on sample i * HOP: half a frame of silence ahead turns that into a frame's middle.
    n_frames = -(-len(wave) // HOP)
    wave = np.pad(wave, (HOP // 2, HOP))

    def spectrum(tuning: float) -> NDArray[np.float32]:
        lowest = LOWEST_HZ * 2 ** (tuning / 12)
        return constant_q(wave, SAMPLE_RATE, HOP, lowest, N_OCTAVES, 12 * BINS_PER_SEMITONE)[:, 1 : n_frames + 1]

    return spectrum(_tuning(spectrum(0)))


def _tuning(spectrum: NDArray[np.float32]) -> float:
    """Deviation from A = 440 Hz in semitones, -0.5 to 0.5: the phase of the energy's period of one semitone."""
    turns = np.exp(2j * np.pi * np.arange(len(spectrum)) / BINS_PER_SEMITONE)
    return float(np.angle(turns @ np.square(spectrum).sum(axis=1)) / (2 * np.pi))


def _chroma(spectrum: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-compressed chroma [shape=(frames, 12)] of a tuned spectrum."""
    compressed = np.log1p(LOG_COMPRESSION * spectrum / max(spectrum.max(), np.finfo(np.float32).tiny))
    # A semitone is its centre's bin and one to either side.
    semitones = np.roll(compressed, BINS_PER_SEMITONE // 2, axis=0).reshape(N_OCTAVES, 12, BINS_PER_SEMITONE, -1)
    return semitones.sum(axis=(0, 2)).T.astype(np.float64)


def _scores(chroma: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well each of CHORDS fits each frame, as a log-likelihood but for a constant [shape=(n_frames, chords)]."""
    note = np.zeros(12)
    for harmonic in range(1, N_HARMONICS + 1):
        note[round(12 * np.log2(harmonic)) % 12] += HARMONIC_DECAY ** (harmonic - 1)
    templates = np.array([sum(np.roll(note, pitch) for pitch in pitch_classes(*chord)) for chord in CHORDS])
    correlation = _standardised(chroma) @ _standardised(templates).T
    return SHARPNESS * (correlation - np.tile(HANDICAP, 12))


def _standardised(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of zero mean and unit length, so that a product of two is their correlation."""
    x = x - x.mean(axis=1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
