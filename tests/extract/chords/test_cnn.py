"""The packaged network: what its construction promises, and what it hears."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.progressions import played, progression, recall

from m2e.common.errors import DataError
from m2e.extract.chords.cnn import BLOCK, N_BINS, N_CLASSES, WIDTH, ChordNetwork, CNNRecogniser
from m2e.extract.chords.recogniser import SAMPLE_RATE
from m2e.extract.chords.registry import CNN_WEIGHTS, fetch_recogniser, load_recogniser, recogniser_revision

TRIADS = ["C", "A:min", "F", "G", "E:min", "D:min", "G", "C"]
RICHER = ["C:maj7", "A:min7", "F", "G:7", "E:min", "D:min7", "G:sus4", "C"]


@pytest.fixture(scope="module")
def recogniser() -> CNNRecogniser:
    loaded = load_recogniser("cnn")
    assert isinstance(loaded, CNNRecogniser)
    return loaded


def test_weights_are_small_and_named_by_their_digest(recogniser: CNNRecogniser) -> None:
    content = CNN_WEIGHTS.read_bytes()
    assert len(content) < 1_000_000
    assert recogniser.revision == recogniser_revision("cnn") == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert fetch_recogniser("cnn") is None


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'cnn' takes no weights"):
        load_recogniser("cnn", tmp_path / "weights.safetensors")
    tensors = load_file(CNN_WEIGHTS)
    del tensors["chord.bias"]
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(RuntimeError, match=r"Missing key.*chord\.bias"):
        CNNRecogniser(tmp_path / "weights.safetensors", "")


@pytest.mark.parametrize("semitones", [1, 5, 11])
def test_pitch_classes_are_equal(recogniser: CNNRecogniser, semitones: int) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 40, 12, WIDTH)).astype(np.float32))
    with torch.inference_mode():
        plain = recogniser.network.blocks(x)
        transposed = recogniser.network.blocks(x.roll(semitones, dims=2))
    torch.testing.assert_close(transposed, plain.roll(semitones, dims=2), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(transposed, plain, atol=0.1)


def test_every_parameter_learns() -> None:
    network = ChordNetwork()
    network(torch.rand(2, 40, N_BINS)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("semitones", range(0, 12, 3))
def test_chords_of_every_key(recogniser: CNNRecogniser, semitones: int) -> None:
    triads, richer = progression(TRIADS, semitones), progression(RICHER, semitones)
    assert recall(triads, recogniser(played(triads))) > 0.9
    heard = recogniser(played(richer))
    assert recall(richer, heard, "root") > 0.9
    assert recall(richer, heard, "tetrads") > 0.8


@pytest.mark.parametrize(("cents", "noise"), [(40, 0), (-40, 0), (0, 0.05)])
def test_mistuning_and_noise(recogniser: CNNRecogniser, cents: float, noise: float) -> None:
    truth = progression(TRIADS)
    assert recall(truth, recogniser(played(truth, cents, noise))) > 0.9


def test_silence(recogniser: CNNRecogniser) -> None:
    assert recogniser(np.zeros(3 * SAMPLE_RATE, np.float32)).labels == ["N"]
    assert recogniser(1e-5 * played(progression(["C", "F"]))).labels == ["N"]
    gap = recogniser(played(progression(["N", "C", "N"])))
    assert gap.labels[0] == gap.labels[-1] == "N"


@pytest.mark.parametrize("n", [1, 2, 64, 1_102, 2_048, 2_049, 30_000])
def test_any_length(recogniser: CNNRecogniser, n: int) -> None:
    rng = np.random.default_rng(n)
    for wave in (rng.standard_normal(n), np.ones(n), np.eye(1, n)[0], np.zeros(n)):
        chords = recogniser(wave.astype(np.float32))
        assert chords.intervals[0, 0] == 0
        assert chords.intervals[-1, 1] == np.float32(n / SAMPLE_RATE)
        assert (chords.intervals[1:, 0] == chords.intervals[:-1, 1]).all()


def test_blocks_join(recogniser: CNNRecogniser) -> None:
    magnitudes = np.random.default_rng(0).random((N_BINS, BLOCK + 200), np.float32)
    magnitudes[0, [10, -10]] = 2  # equally loud in part and whole
    whole, end = (np.concatenate([*recogniser.scores(these)]) for these in (magnitudes, magnitudes[:, BLOCK - 100 :]))
    assert whole.shape == (BLOCK + 200, N_CLASSES)
    np.testing.assert_allclose(np.exp(whole).sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(whole[BLOCK - 30 :], end[70:], atol=1e-3)


def test_equal_waves_give_equal_chords_however_loud(recogniser: CNNRecogniser) -> None:
    wave = played(progression(RICHER), noise=0.1)
    first, second = recogniser(wave), load_recogniser("cnn")(wave.copy())
    assert first.labels == second.labels
    np.testing.assert_array_equal(first.intervals, second.intervals)
    assert recogniser(0.05 * wave).labels == first.labels
