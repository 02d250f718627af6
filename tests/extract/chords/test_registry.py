"""The template recogniser on generated audio, and the registry of recognisers."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.progressions import played, progression, recall

from m2e.common.errors import DataError
from m2e.extract.chords.decoding import likeliest_path
from m2e.extract.chords.recogniser import SAMPLE_RATE
from m2e.extract.chords.registry import load_recogniser, recogniser_revision

MAJOR = ["C", "A:min", "F", "G", "E:min", "D:min", "G", "C"]
MINOR = ["A:min", "F", "D:min", "E", "A:min", "G", "C", "E:min", "A:min"]
SEVENTHS = ["C:maj7", "A:min7", "D:min7", "G:7", "C", "B:dim", "C"]


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


@pytest.mark.parametrize("stay", [0.5, 0.9, 0.999])
def test_the_likeliest_path_is_librosas(librosa: ModuleType, stay: float) -> None:
    scores = np.random.default_rng(0).normal(0, 2, (500, 30))
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    transition = librosa.sequence.transition_loop(30, stay)
    expected = librosa.sequence.viterbi_discriminative(likelihood.T, transition)
    np.testing.assert_array_equal(likeliest_path([scores], stay), expected)
    np.testing.assert_array_equal(likeliest_path([scores[:1], scores[1:77], scores[77:]], stay), expected)


def test_unknown_name_is_refused() -> None:
    for refuse in (load_recogniser, recogniser_revision):
        with pytest.raises(DataError, match="no chord recogniser is called 'chordino': use one of btc, cnn, template"):
            refuse("chordino")


def test_template_takes_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no weights"):
        load_recogniser("template", tmp_path / "weights.pt")


def test_revision_needs_neither_torch_nor_soxr() -> None:
    code = (
        "import sys; from m2e.extract.chords.registry import recogniser_revision as r;"
        "print(r('template') == '', r('cnn')[:7], r('btc')[:9], {'torch', 'soxr', 'pooch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True sha256: git-blob: set()\n"
