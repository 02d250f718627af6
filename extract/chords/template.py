"""Chords by templates: no weights and no training, for trying m2e out and for machines without BTC's weights.

A chroma vector is compared with what each chord's notes and their harmonics sound like, and the most likely path
through the frames is kept (T. Fujishima, "Realtime Chord Recognition of Musical Sound", ICMC 1999; H. Papadopoulos,
G. Peeters, "Large-Scale Study of Chord Estimation Algorithms Based on Chroma Representation and HMM", CBMI 2007).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import NO_CHORD, PITCH_CLASSES, QUALITIES, ChordSequence, pitch_classes
from m2e.extract.audio.sound import Sound
from m2e.extract.chords.cqt import C1
from m2e.extract.chords.decoding import likeliest_path
from m2e.extract.chords.recogniser import SAMPLE_RATE
from m2e.extract.chords.spectrum import BINS_PER_SEMITONE, HOP, tuned_spectrum

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
# Frames whose spectrum is compressed at once: all of them would need its memory again.
_BLOCK = 4_096

CHORDS = [(root, QUALITIES.index(quality)) for root in range(len(PITCH_CLASSES)) for quality in QUALITIES_HEARD]


class TemplateRecogniser:
    """Chords of six qualities (`QUALITIES_HEARD`) on every root, and N where it is silent; never X."""

    name = "template"
    revision = ""

    def __call__(self, sound: Sound) -> ChordSequence:
        """Chords of a mono sound at 22,050 Hz, in frames of 2,048 samples."""
        duration = len(sound) / SAMPLE_RATE
        spectrum, silent = tuned_spectrum(sound, LOWEST_HZ, N_OCTAVES)
        if silent.all():
            return ChordSequence.from_labels([[0, duration]], ["N"])
        path = likeliest_path(map(_scores, _chroma(spectrum)), STAY_PROBABILITY)
        chords = [(NO_CHORD, NO_CHORD) if quiet else CHORDS[i] for i, quiet in zip(path, silent, strict=True)]
        return ChordSequence.from_frames(chords, HOP / SAMPLE_RATE, duration)


def _chroma(spectrum: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Log-compressed chroma of a tuned spectrum, block by block [shape=(frames, 12) each]."""
    loudest = max(spectrum.max(), np.finfo(np.float32).tiny)
    for start in range(0, spectrum.shape[1], _BLOCK):
        compressed = np.log1p(LOG_COMPRESSION * spectrum[:, start : start + _BLOCK] / loudest)
        # A semitone is its centre's bin and one to either side.
        semitones = np.roll(compressed, BINS_PER_SEMITONE // 2, axis=0).reshape(N_OCTAVES, 12, BINS_PER_SEMITONE, -1)
        yield semitones.sum(axis=(0, 2)).T.astype(np.float64)


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
