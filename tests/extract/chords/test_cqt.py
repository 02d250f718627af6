"""The constant-Q transform against librosa's."""

import warnings
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from m2e.extract.chords.btc import CHUNK_SAMPLES, HOP, SAMPLE_RATE, cqt_features
from m2e.extract.chords.cqt import BLOCK, C1, constant_q

Wave = NDArray[np.float32]


def music(seconds: float) -> Wave:
    """Two decaying voices of eight partials over a hiss 70 dB below, so that bins differ in strength by 100 dB."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 3e-4 * rng.standard_normal(len(t))
    for midi, decay in ((45, 0.7), (64, 2.0)):
        hertz = 440 * 2 ** ((midi - 69) / 12)
        wave += np.exp(-decay * (t % 1.3)) * sum(np.sin(2 * np.pi * k * hertz * t) / k**2 for k in range(1, 9))
    return (0.4 * wave).astype(np.float32)


def librosas(librosa: ModuleType, wave: Wave, lowest: float, octaves: int, bins_per_octave: int) -> Wave:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"n_fft=\d+ is too large for input signal", UserWarning)
        return np.abs(
            librosa.cqt(
                wave,
                sr=SAMPLE_RATE,
                hop_length=HOP,
                fmin=lowest,
                n_bins=octaves * bins_per_octave,
                bins_per_octave=bins_per_octave,
            )
        )


@pytest.mark.parametrize("seconds", [0.003, 0.5, 10.0, 23.7])
@pytest.mark.parametrize(("lowest", "octaves", "bins"), [(C1, 6, 24), (2 * C1, 5, 36), (2.05 * C1, 5, 36)])
def test_magnitudes_are_librosas(librosa: ModuleType, seconds: float, lowest: float, octaves: int, bins: int) -> None:
    wave = music(seconds)
    expected = librosas(librosa, wave, lowest, octaves, bins)
    ours = constant_q(wave, SAMPLE_RATE, HOP, lowest, octaves, bins)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-6 * float(expected.max()), rtol=0)


def test_features_are_librosas_of_chunks(librosa: ModuleType) -> None:
    wave = music(23.7)
    chunks = [wave[start : start + CHUNK_SAMPLES] for start in range(0, len(wave), CHUNK_SAMPLES)]
    expected = np.log(np.concatenate([librosas(librosa, chunk, C1, 6, 24) for chunk in chunks], axis=1) + 1e-6)
    assert np.quantile(np.abs(cqt_features(wave) - expected), 0.999) < 2e-4


@pytest.mark.parametrize("n", [1, 2, 3, 63, 2_047, 2_048])
def test_short_waves(n: int) -> None:
    magnitudes = constant_q(np.ones(n, np.float32), SAMPLE_RATE, HOP, C1, 6, 24)
    assert magnitudes.shape == (144, 1 + n // HOP)
    assert np.isfinite(magnitudes).all()


def test_blocks_of_a_long_wave_join() -> None:
    n_frames = BLOCK + 10
    wave = np.random.default_rng(1).standard_normal(n_frames * HOP).astype(np.float32)
    # What lies a second and more away changes nothing but soxr's last digit.
    first = (BLOCK - 30) * HOP
    part = constant_q(wave[first:], SAMPLE_RATE, HOP, 2 * C1, 5, 36)
    whole = constant_q(wave, SAMPLE_RATE, HOP, 2 * C1, 5, 36)
    assert whole.shape == (180, n_frames + 1)
    np.testing.assert_allclose(whole[:, BLOCK - 15 :], part[:, 15:], atol=2e-6 * float(whole.max()))


def test_a_tone_is_loudest_in_its_bin() -> None:
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    for midi in (36, 57, 70):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * t).astype(np.float32)
        assert (constant_q(tone, SAMPLE_RATE, HOP, C1, 6, 24)[:, 5:15].argmax(axis=0) == 2 * (midi - 24)).all()
