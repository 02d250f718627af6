"""Decoding, mixing down, resampling and cutting."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from m2e.cache import DataError
from m2e.extract.audio import Resampler, load_audio, split_segments


def tone(rate: int, seconds: float = 1.0, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_wave_that_was_written(tmp_path: Path, form: str, channels: int) -> None:
    wave = tone(44_100)
    soundfile.write(tmp_path / f"a.{form}", np.stack([wave] * channels, axis=1), 44_100)
    audio = load_audio(tmp_path / f"a.{form}", 44_100)
    assert abs(audio.duration - 1) < 0.06  # mp3 may pad by a frame or two
    middle = slice(10_000, 30_000)
    # Lossy coders may shift by their own delay: compare the spectra.
    spectra = [np.abs(np.fft.rfft(values[middle])) for values in (audio.encoder_wave, wave)]
    assert np.abs(spectra[0] - spectra[1]).max() < 0.05 * spectra[1].max()
    assert len(audio.sha256) == 32
    assert audio.file_bytes == (tmp_path / f"a.{form}").stat().st_size


@pytest.mark.parametrize("form", ["mov", "adts"])
def test_what_soundfile_refuses_is_decoded_all_the_same(tmp_path: Path, form: str) -> None:
    import av

    path = tmp_path / {"mov": "a.m4a", "adts": "a.aac"}[form]
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(tone(44_100)[None], format="fltp", layout="mono")
        frame.rate = 44_100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    audio = load_audio(path)
    assert 0.9 < audio.duration < 1.2
    assert len(audio.encoder_wave) == math.ceil(round(audio.duration * 44_100) * 24_000 / 44_100)
    assert abs(np.argmax(np.abs(np.fft.rfft(audio.encoder_wave[:12_000]))) * 2 - 440) <= 2


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(8000), tone(8000, hz=300)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", np.stack([left, right, left], axis=1), 8000, subtype="FLOAT")
    waves = [load_audio(tmp_path / name, 8000).encoder_wave for name in ("a.wav", "b.wav")]
    np.testing.assert_allclose(waves[0], (left + right) / 2, atol=1e-7)
    np.testing.assert_allclose(waves[1], (2 * left + right) / 3, atol=1e-7)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_the_chord_wave_is_what_librosa_loads(tmp_path: Path, librosa: ModuleType, rate: int) -> None:
    noise = np.random.default_rng(0).normal(scale=0.1, size=(7 * rate + 11, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
    # What librosa.load does once it has a file open; it would also import modules that Python is about to drop.
    expected = librosa.resample(librosa.to_mono(noise.T), orig_sr=rate, target_sr=22_050, res_type="soxr_hq")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav").chord_wave, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"this is a text, not music\n" * 50, "cannot be decoded"), (b"\xff\xfb\x90\x00", "cannot be")],
)
def test_files_that_are_no_audio_are_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        load_audio(path)
    assert "\n" not in str(error.value)


def test_missing_short_and_non_finite_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "short.wav", tone(8000, 0.01), 8000)
    with pytest.raises(DataError, match=r"0\.010 s long"):
        load_audio(tmp_path / "short.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan, np.float32), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match="not numbers"):
        load_audio(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "loud.wav", 1e18 * tone(8000), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"loud.wav holds samples beyond 1e\+06, where full scale is 1"):
        load_audio(tmp_path / "loud.wav")


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 37_800, 44_100, 48_000, 96_000])
def test_sinc_resampling_equals_the_definition(rate: int) -> None:
    """Against a direct, unrolled evaluation of the interpolation sum in float64."""
    wave = np.random.default_rng(0).normal(size=700).astype(np.float32)
    out = Resampler(rate, 24_000, "sinc_hann")(wave, last=True)
    assert len(out) == math.ceil(700 * 24_000 / rate)
    common = math.gcd(rate, 24_000)
    step, phases = rate // common, 24_000 // common
    cutoff = min(step, phases) * 0.99 / step  # in cycles of the input's Nyquist band
    for i in [0, 1, 7, len(out) // 2, len(out) - 1]:
        t = (np.arange(700) - i * rate / 24_000) * cutoff
        inside = np.abs(t) < 6
        weights = np.where(inside, np.sinc(t) * np.cos(np.pi * np.clip(t, -6, 6) / 12) ** 2 * cutoff, 0)
        assert out[i] == pytest.approx(float(weights @ wave), abs=1e-5)


@pytest.mark.parametrize("method", ["sinc_hann", "soxr_hq"])
@pytest.mark.parametrize("rate", [8000, 24_000, 44_100])
def test_resampling_in_blocks_is_resampling_at_once(method, rate: int) -> None:  # type: ignore[no-untyped-def]
    wave = np.random.default_rng(1).normal(size=5003).astype(np.float32)
    resample = Resampler(rate, 24_000, method)
    parts = [resample(wave[start : start + size]) for start, size in [(0, 1), (1, 30), (31, 4000), (4031, 0)]]
    parts.append(resample(wave[4031:], last=True))
    at_once = Resampler(rate, 24_000, method)(wave, last=True)
    np.testing.assert_allclose(np.concatenate(parts), at_once, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["sinc_hann", "soxr_hq"])
def test_resampling_keeps_a_tone(method) -> None:  # type: ignore[no-untyped-def]
    out = Resampler(44_100, 24_000, method)(tone(44_100, 20), last=True)
    expected = tone(24_000, 20)
    assert len(out) == len(expected)
    np.testing.assert_allclose(out[500:-500], expected[500:-500], atol=5e-4)


def test_a_rate_that_would_need_a_huge_filter_is_one_line_and_soxr_takes_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", tone(44_101), 44_101)
    with pytest.raises(DataError, match=r"odd\.wav has a rate of 44101 Hz.*--resampler soxr_hq"):
        load_audio(tmp_path / "odd.wav")
    assert len(load_audio(tmp_path / "odd.wav", resampler="soxr_hq").encoder_wave) == 24_000


@pytest.mark.long
def test_an_hour_is_never_in_memory_at_once(tmp_path: Path) -> None:
    """Decoded, an hour of stereo at 44.1 kHz is 1.27 GB; what remains is .66 GB at the two rates."""
    code = (
        "import resource, pathlib; from m2e.extract.audio import load_audio\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"audio = load_audio(pathlib.Path({str(tmp_path / 'hour.flac')!r}))\n"
        "print(audio.duration, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    minute = np.stack([tone(44_100, 60), tone(44_100, 60, 300)], axis=1)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 44_100, 2) as file:
        for _ in range(60):
            file.write(minute)
    duration, megabytes = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert float(duration) == 3600
    assert int(megabytes) < 800


@pytest.mark.parametrize(
    ("samples", "tail", "lengths"),
    [
        (250, "drop", [100, 100]),
        (250, "keep", [100, 100, 50]),
        (219, "keep", [100, 100]),
        (220, "keep", [100, 100, 20]),
        (200, "keep", [100, 100]),
        (60, "drop", [60]),
        (3, "keep", [3]),
    ],
)
def test_segments(samples: int, tail: str, lengths: list[int]) -> None:
    wave = np.arange(samples, dtype=np.float32)
    segments = split_segments(wave, 100, tail, 20)
    assert [len(segment) for segment in segments] == lengths
    np.testing.assert_array_equal(np.concatenate(segments), wave[: sum(lengths)])


def test_names_that_are_not_utf8_and_files_without_an_end(tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(os.fsencode(name), np.zeros(24_000), 24_000, format="WAV")
    assert load_audio(name).duration == 1
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path):
        with pytest.raises(DataError, match="is no regular file"):
            load_audio(path)
