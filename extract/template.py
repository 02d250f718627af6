"""Chords by templates: no weights and no training, for trying m2e out and for machines without BTC's weights.

A chroma vector is compared with the pitch classes of each chord, and the most likely path through the frames is kept
(T. Fujishima, "Realtime Chord Recognition of Musical Sound", ICMC 1999, with a hidden Markov model for smoothing).
"""

from __future__ import annotations

import librosa
import numpy as np
from librosa.sequence import transition_loop, viterbi_discriminative
from numpy.typing import NDArray

from m2e.cache.harmony import NO_CHORD, PITCH_CLASSES, QUALITIES, ChordSequence, pitch_classes
from m2e.extract.chords import SAMPLE_RATE

HOP = 2_048
BINS_PER_OCTAVE = 36
N_OCTAVES = 5
LOWEST_HZ = 65.406  # C2: the octave below blurs what is heard above it
# The commonest of the 14 qualities; a rare one (sus4, say) would be heard in any passing note. Major and minor triads
# win where a richer chord is hardly likelier. These and the numbers below were chosen on generated audio.
QUALITIES_HEARD = ("maj", "min", "7", "maj7", "min7", "dim")
HANDICAP = np.array([0 if quality in ("maj", "min") else 0.04 for quality in QUALITIES_HEARD])
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
        n_frames = -(-len(wave) // HOP)
        rms = np.sqrt(np.mean(np.square(_padded(wave, n_frames * HOP).reshape(n_frames, HOP)), axis=1))
        silent = rms < max(SILENT_RMS, SILENT_RELATIVE * rms.max())
        if silent.all():
            return ChordSequence.from_labels([[0, duration]], ["N"])
        path = _likeliest_path(_chroma(wave, n_frames))
        chords = [(NO_CHORD, NO_CHORD) if quiet else CHORDS[i] for i, quiet in zip(path, silent, strict=True)]
        return ChordSequence.from_frames(chords, HOP / SAMPLE_RATE, duration)


def _padded(wave: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    return np.pad(wave, (0, max(0, length - len(wave))))


def _chroma(wave: NDArray[np.float32], n_frames: int) -> NDArray[np.float64]:
    """Log-compressed chroma [shape=(12, n_frames)], frame i centred on the middle of its 2,048 samples."""
    # librosa centres frame i on sample i * HOP: half a frame of silence ahead turns that into a frame's middle.
    # At least three seconds, so that the longest filters fit into the signal.
    wave = _padded(np.pad(wave, (HOP // 2, HOP)), 3 * SAMPLE_RATE)
    spectrum = np.abs(
        librosa.cqt(
            wave,
            sr=SAMPLE_RATE,
            hop_length=HOP,
            fmin=LOWEST_HZ,
            n_bins=N_OCTAVES * BINS_PER_OCTAVE,
            bins_per_octave=BINS_PER_OCTAVE,
            tuning=_tuning(wave),
        )
    )[:, 1 : n_frames + 1]
    spectrum = np.log1p(LOG_COMPRESSION * spectrum / max(spectrum.max(), np.finfo(np.float32).tiny))
    return librosa.feature.chroma_cqt(
        C=spectrum, fmin=LOWEST_HZ, n_octaves=N_OCTAVES, bins_per_octave=BINS_PER_OCTAVE, norm=None
    ).astype(np.float64)


def _tuning(wave: NDArray[np.float32]) -> float:
    """Deviation from A = 440 Hz in semitones, -0.5 to 0.5; 0 where no partial stands out."""
    frequency, magnitude = librosa.piptrack(y=wave, sr=SAMPLE_RATE, n_fft=4_096, hop_length=4_096)
    peaks = frequency > 0
    if not peaks.any():
        return 0.0
    strong = peaks & (magnitude >= np.median(magnitude[peaks]))
    return float(librosa.pitch_tuning(frequency[strong]))


def _likeliest_path(chroma: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index into CHORDS for each frame, by Viterbi's algorithm."""
    templates = np.zeros((len(CHORDS), 12))
    for row, chord in zip(templates, CHORDS, strict=True):
        row[list(pitch_classes(*chord))] = 1
    correlation = _standardised(templates, axis=1) @ _standardised(chroma, axis=0)
    score = SHARPNESS * (correlation - np.tile(HANDICAP, 12)[:, None])
    likelihood = np.exp(score - score.max(axis=0))
    transition = transition_loop(len(CHORDS), STAY_PROBABILITY)
    return viterbi_discriminative(likelihood / likelihood.sum(axis=0), transition)


def _standardised(x: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Zero mean and unit length along `axis`, so that a product of two is their correlation."""
    x = x - x.mean(axis=axis, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-9)
