"""A track as a whole: short, long, many, and with another precision."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from m2e.cache import DataError, ExtractionConfig
from m2e.extract.encoders.registry import find_encoder, load_encoder
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models


@pytest.fixture(scope="module")
def models() -> Models:
    source = find_encoder("tiny")
    assert source.folder is not None
    config = ExtractionConfig(source.name, source.revision, chords="template", tail="keep")
    return Models(config, source.folder, None, "cpu")


def music(folder: Path, seconds: float) -> Path:
    time = np.arange(round(44_100 * seconds)) / 44_100
    chord = sum(np.sin(2 * np.pi * hz * time) for hz in (261.6, 329.6, 392.0))
    noise = np.random.default_rng(0).normal(size=len(time))
    path = folder / f"{seconds}.wav"
    soundfile.write(path, np.stack([0.2 * chord + 0.01 * noise] * 2, axis=1), 44_100)
    return path


@pytest.mark.parametrize(("seconds", "segments"), [(0.2, 1), (3.0, 1), (29.9, 1), (34.9, 1), (35.1, 2), (61.0, 2)])
def test_segments_of_short_and_longer_tracks(tmp_path: Path, models: Models, seconds: float, segments: int) -> None:
    features = Extractor.of(models)(music(tmp_path, seconds), "a")
    assert features.embeddings.shape == (segments, 3, 64)
    assert features.duration == pytest.approx(seconds)


def test_a_short_tail_is_embedded_alone(tmp_path: Path, models: Models) -> None:
    """Not padded, which would change it: it equals a file that holds nothing else."""
    path = music(tmp_path, 36.0)
    wave, rate = soundfile.read(path)
    soundfile.write(tmp_path / "tail.wav", wave[30 * rate :], rate)
    both = Extractor.of(models)(path).embeddings
    alone = Extractor.of(models)(tmp_path / "tail.wav").embeddings
    # Where the tail begins in the middle of a sound, the resampler sees silence before it in one case only.
    np.testing.assert_allclose(both[1], alone[0], atol=0.02 * np.abs(alone).max())
    assert np.abs(both[0] - both[1]).max() > 0


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precision_reaches_the_network_and_is_a_group_of_its_own(
    tmp_path: Path, models: Models, precision: Any
) -> None:
    other = replace(models, config=replace(models.config, precision=precision))
    path = music(tmp_path, 3.0)
    here, there = (Extractor.of(those)(path).embeddings for those in (models, other))
    assert 1e-5 < np.linalg.norm(here - there) / np.linalg.norm(here) < 0.1
    assert other.config.fingerprint != models.config.fingerprint


def test_int8_is_refused_on_a_gpu(models: Models) -> None:
    with pytest.raises(DataError, match=r"int8 is for CPUs.*bf16"):
        load_encoder(models.encoder_folder, (7,), "cuda", "int8")


@pytest.mark.long
def test_memory_stays_flat_over_a_hundred_tracks(tmp_path: Path, models: Models) -> None:
    code = f"""
import resource
from pathlib import Path
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models
from m2e.cache import ExtractionConfig
folder = Path({str(models.encoder_folder)!r})
extract = Extractor.of(Models(ExtractionConfig(**{vars(models.config)}), folder, None, "cpu"))
for i in range(100):
    extract(Path({str(music(tmp_path, 4.0))!r}), str(i))
    if i + 1 in (20, 100):
        print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20)
"""
    after_20, after_100 = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert after_100 < after_20 + 20


@pytest.mark.parametrize("change", [{"device": "gpu"}, {"device": None}, {"decoders": -1}, {"decoders": True}])
def test_models_check_themselves(models: Models, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .*; it must be"):
        replace(models, **change)


def test_audio_at_another_rate_than_the_encoders_is_refused(models: Models, tmp_path: Path) -> None:
    other = replace(models, config=replace(models.config, sample_rate=16_000))
    with pytest.raises(DataError, match="hears audio of 24000 Hz, and the settings say sample_rate 16000"):
        Extractor.of(other)(music(tmp_path, 1))


@pytest.mark.parametrize("layers", [(7, 5), (5, 5), (), (-1, 5)])
def test_layers_of_an_encoder_ascend(models: Models, layers: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="layers is"):
        load_encoder(models.encoder_folder, layers)


def test_precisions_are_known(models: Models) -> None:
    with pytest.raises(DataError, match="precision is 'float64'; it must be one of"):
        load_encoder(models.encoder_folder, (7,), precision="float64")  # type: ignore[arg-type]


def test_a_long_track_is_heard_piece_by_piece_and_its_features_are_the_same(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = music(tmp_path, 100.0)
    held = Extractor.of(models).prepare(path)
    whole = Extractor.of(models)(path)
    monkeypatch.setattr("m2e.extract.extractor.HELD_SECONDS", 20.0)
    long = Extractor.of(models).prepare(path)
    assert [len(wave) for wave in long.segments] == [len(wave) for wave in held.segments]
    for mine, theirs in zip(long.segments, held.segments, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    features = Extractor.of(models)(path)
    np.testing.assert_array_equal(features.embeddings, whole.embeddings)
    np.testing.assert_array_equal(features.chords.intervals, whole.chords.intervals)
    assert (features.chords.labels, features.key) == (whole.chords.labels, whole.key)
    path.write_bytes(path.read_bytes()[:-4] + b"more")  # whoever decodes twice has to look whether it is the same
    with pytest.raises(DataError, match="changed"):
        Extractor.of(models).embed(long)
