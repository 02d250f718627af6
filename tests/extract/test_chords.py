"""The template recogniser on generated audio, and the registry of recognisers."""

import subprocess
import sys
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.harmony import ChordSequence, parse_chord_label, pitch_classes
from m2e.extract.chords import SAMPLE_RATE, load_recogniser, recogniser_revision

MAJOR = ["C", "A:min", "F", "G", "E:min", "D:min", "G", "C"]
MINOR = ["A:min", "F", "D:min", "E", "A:min", "G", "C", "E:min", "A:min"]
SEVENTHS = ["C:maj7", "A:min7", "D:min7", "G:7", "C", "B:dim", "C"]


def progression(labels: list[str], semitones: int = 0, seconds: float = 1.7) -> ChordSequence:
    intervals = [[i * seconds, (i + 1) * seconds] for i in range(len(labels))]
    return ChordSequence.from_labels(intervals, labels).transpose(semitones)


def played(chords: ChordSequence, cents: float = 0, noise: float = 0) -> NDArray[np.float32]:
    """Tones of six partials that decay: the root as a bass, the chord's notes from C4 upward, and a passing note."""
    rng = np.random.default_rng(0)
    wave = noise * rng.standard_normal(round(float(chords.intervals[-1, 1]) * SAMPLE_RATE))
    for (start, end), label in zip(chords.intervals, chords.labels, strict=True):
        root, quality = parse_chord_label(label)
        if root < 0:
            continue
        notes = [36 + root, *(60 + p for p in pitch_classes(root, quality))]
        tones = [(start, end, pitch) for pitch in notes] + [((start + end) / 2, end, 74 + root % 12)]
        for begin, stop, pitch in tones:
            span = slice(round(float(begin) * SAMPLE_RATE), round(float(stop) * SAMPLE_RATE))
            t = np.arange(span.stop - span.start) / SAMPLE_RATE
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


@pytest.mark.parametrize("semitones", [0, 1, 4, 6, 9])
@pytest.mark.parametrize("labels", [MAJOR, MINOR], ids=["major", "minor"])
def test_template_hears_triads(labels: list[str], semitones: int) -> None:
    truth = progression(labels, semitones)
    assert recall(truth, load_recogniser("template")(played(truth))) > 0.9


@pytest.mark.parametrize(("cents", "noise"), [(47, 0), (-47, 0), (0, 0.05)])
def test_template_bears_mistuning_and_noise(cents: float, noise: float) -> None:
    truth = progression(MAJOR)
    assert recall(truth, load_recogniser("template")(played(truth, cents, noise))) > 0.9


def test_template_hears_sevenths() -> None:
    truth = progression(SEVENTHS)
    assert recall(truth, load_recogniser("template")(played(truth)), "sevenths") > 0.8


def test_template_hears_silence() -> None:
    recognise = load_recogniser("template")
    assert recognise(np.zeros(3 * SAMPLE_RATE, np.float32)).labels == ["N"]
    assert recognise(1e-5 * played(progression(MAJOR))).labels == ["N"]
    gap = recognise(played(progression(["N", "C", "N", "F", "N"])))
    assert gap.labels == ["N", "C", "N", "F", "N"]
    np.testing.assert_allclose(gap.intervals[1:, 0], 1.7 * np.arange(1, 5), atol=0.15)


@pytest.mark.parametrize("n", [1, 2, 64, 1_102, 2_048, 2_049, 30_000])
def test_template_takes_any_length(n: int) -> None:
    rng = np.random.default_rng(n)
    t = np.arange(n) / SAMPLE_RATE
    sounds = [rng.standard_normal(n), np.ones(n), np.sin(5 * t), np.eye(1, n)[0], np.cos(np.pi * np.arange(n))]
    for wave in (*sounds, np.zeros(n)):
        chords = load_recogniser("template")(wave.astype(np.float32))
        assert chords.intervals[0, 0] == 0
        assert chords.intervals[-1, 1] == np.float32(n / SAMPLE_RATE)
        assert (chords.intervals[1:, 0] == chords.intervals[:-1, 1]).all()


def test_template_is_deterministic() -> None:
    wave = played(progression(MINOR), noise=0.1)
    first, second = load_recogniser("template")(wave), load_recogniser("template")(wave.copy())
    assert first.labels == second.labels
    assert (first.intervals == second.intervals).all()


def test_loudness_does_not_matter() -> None:
    wave = played(progression(MAJOR))
    assert load_recogniser("template")(0.05 * wave).labels == load_recogniser("template")(wave).labels


def test_unknown_name_is_refused() -> None:
    for refuse in (load_recogniser, recogniser_revision):
        with pytest.raises(DataError, match="no chord recogniser is called 'chordino': use one of btc, template"):
            refuse("chordino")


def test_template_takes_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no weights"):
        load_recogniser("template", tmp_path / "weights.pt")


def test_revision_needs_neither_torch_nor_librosa() -> None:
    code = (
        "import sys; from m2e.extract.chords import recogniser_revision as r;"
        "print(r('template') == '', r('btc').startswith('git-blob:'), {'torch', 'librosa', 'pooch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True True set()\n"
