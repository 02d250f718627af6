"""Chord progressions with known truth, played with plain tones, and how much of one is heard."""

import mir_eval
import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import ChordSequence, parse_chord_label, pitch_classes

RATE = 22_050


def progression(labels: list[str], semitones: int = 0, seconds: float = 1.7) -> ChordSequence:
    intervals = [[i * seconds, (i + 1) * seconds] for i in range(len(labels))]
    return ChordSequence.from_labels(intervals, labels).transpose(semitones)


def played(chords: ChordSequence, cents: float = 0, noise: float = 0) -> NDArray[np.float32]:
    """Tones of six partials that decay: the root as a bass, the chord's notes from C4 upward, and a passing note."""
    rng = np.random.default_rng(0)
    wave = noise * rng.standard_normal(round(float(chords.intervals[-1, 1]) * RATE))
    for (start, end), label in zip(chords.intervals, chords.labels, strict=True):
        root, quality = parse_chord_label(label)
        if root < 0:
            continue
        notes = [36 + root, *(60 + p for p in pitch_classes(root, quality))]
        tones = [(start, end, pitch) for pitch in notes] + [((start + end) / 2, end, 74 + root % 12)]
        for begin, stop, pitch in tones:
            span = slice(round(float(begin) * RATE), round(float(stop) * RATE))
            t = np.arange(span.stop - span.start) / RATE
            hertz = 440 * 2 ** ((pitch - 69 + cents / 100) / 12)
            partials = sum(np.sin(2 * np.pi * (hertz * k * t + rng.random())) / k**1.2 for k in range(1, 7))
            wave[span] += 0.1 * np.exp(-1.5 * t) * np.minimum(1, t / 0.01) * partials
    return wave.astype(np.float32)


def recall(truth: ChordSequence, heard: ChordSequence, comparison: str = "majmin") -> float:
    """Weighted chord symbol recall, the measure of the paper's table of chord recognisers."""
    intervals, true_labels, labels = mir_eval.util.merge_labeled_intervals(
        truth.intervals.astype(float), truth.labels, heard.intervals.astype(float), heard.labels
    )
    scores = getattr(mir_eval.chord, comparison)(true_labels, labels)
    return mir_eval.chord.weighted_accuracy(scores, mir_eval.util.intervals_to_durations(intervals))
