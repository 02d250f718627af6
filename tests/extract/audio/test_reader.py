"""Decoding, mixing down, resampling and cutting."""

import errno
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from support.encoded import FORMS, noise
from support.memory import PEAK

from m2e.cache import DataError
from m2e.extract.audio.reader import Resampler, load_audio, split_segments, survey
from m2e.extract.audio.sound import Recording, Segments, rechunked, segment_lengths
from m2e.extract.audio.unheard import UnheardError


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
    [(b"", "is empty"), (b"this is a text, not music\n" * 50, "is no audio"), (b"\xff\xfb\x90\x00", "is no audio")],
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


@pytest.mark.parametrize(
    "rate",
    [4000, 8000, 11_127, 16_000, 22_050, 22_255, 37_800, 44_100, 44_101, 48_000, 88_200, 96_000, 383_999, 384_000],
)
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
@pytest.mark.parametrize("rate", [8000, 22_255, 24_000, 44_100, 44_101])
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


@pytest.mark.parametrize("rate", [4001, 11_127, 22_255, 44_101, 383_999])
def test_any_rate_takes_little_memory_and_time(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "odd.wav", tone(rate, 20), rate)
    code = PEAK + (
        "import sys, time, pathlib; from m2e.extract.audio.reader import load_audio\n"
        "load_audio(pathlib.Path(sys.argv[1]), 24_000)\n"  # once: imports, and libraries' own buffers
        "before = time.process_time(); audio = load_audio(pathlib.Path(sys.argv[1]))\n"
        "print(len(audio.encoder_wave), peak_megabytes(), time.process_time() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "odd.wav")]
    samples, megabytes, seconds = map(float, subprocess.check_output(command, text=True).split())
    assert samples == 20 * 24_000
    assert megabytes < 250
    assert seconds < 3
    audio = load_audio(tmp_path / "odd.wav")
    assert [str(note) for note in audio.notes] == [f"rate: its sample rate is {rate} Hz"]
    spectrum = np.abs(np.fft.rfft(audio.encoder_wave))
    assert abs(int(spectrum.argmax()) / 20 - 440) < 0.1


HOUR = f"""{PEAK}
import pathlib, sys
from m2e.extract.audio.reader import HELD_SECONDS, load_audio
before = peak_megabytes()
audio = load_audio(pathlib.Path(sys.argv[1]), held_seconds=HELD_SECONDS)
samples = sum(map(len, audio.encoder_wave)), sum(map(len, audio.chord_wave))
print(audio.duration, *samples, peak_megabytes() - before)
"""


@pytest.mark.long
def test_an_hour_takes_no_more_memory_than_a_third_of_it(tmp_path: Path) -> None:
    """Decoded, an hour of stereo at 44.1 kHz is 1.27 GB, and .66 GB at the two rates."""
    minute = np.stack([tone(44_100, 60), tone(44_100, 60, 300)], axis=1)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 44_100, 2) as file:
        for _ in range(60):
            file.write(minute)
    said = subprocess.check_output([sys.executable, "-c", HOUR, str(tmp_path / "hour.flac")], text=True)
    assert [*map(float, said.split()[:3])] == [3600, 3600 * 24_000, 3600 * 22_050]
    assert int(said.split()[3]) < 300


def write(path: Path, samples: np.ndarray, rate: int = 44_100) -> Path:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return path


def notes(path: Path) -> list[str]:
    return [str(note) for note in load_audio(path).notes]


def test_silence_clipping_and_an_offset_are_notes(tmp_path: Path) -> None:
    sound = tone(44_100, 3)
    assert notes(write(tmp_path / "a.wav", sound[None])) == []
    silent = ["silent: nothing in it is above -80 dB of full scale"]
    assert notes(write(tmp_path / "b.wav", 1e-4 * sound[None])) == silent
    assert notes(write(tmp_path / "c.wav", np.zeros((2, 44_100)))) == silent
    clipped = np.clip(20 * sound, -1, 1)
    assert notes(write(tmp_path / "d.wav", clipped[None])) == ["clipped: 94% of its samples are at its loudest level"]
    # Softer afterwards, or beyond full scale by lossy coding: clipped all the same.
    assert notes(write(tmp_path / "e.wav", 0.5 * clipped[None]))[0].startswith("clipped: ")
    soundfile.write(tmp_path / "f.ogg", clipped, 44_100)
    assert notes(tmp_path / "f.ogg")[0].startswith("clipped: ")
    assert notes(write(tmp_path / "g.wav", sound[None] + 0.25)) == [
        "offset: its samples are +0.25 of full scale on average, not 0"
    ]
    # A tone at full scale is no clipping, nor is a song with one loud moment.
    assert notes(write(tmp_path / "h.wav", 2 * sound[None])) == []


@pytest.mark.parametrize("form", ["wav", "ogg", "mp3", "flac"])
def test_channels_that_cancel_each_other_fall_back_on_one(tmp_path: Path, form: str) -> None:
    left = tone(44_100, 3)
    soundfile.write(tmp_path / f"a.{form}", np.stack([left, -left], axis=1), 44_100)
    soundfile.write(tmp_path / f"b.{form}", np.stack([left, left], axis=1), 44_100)
    cancelled, plain = load_audio(tmp_path / f"a.{form}"), load_audio(tmp_path / f"b.{form}")
    (note,) = cancelled.notes
    assert str(note).startswith("cancels: mixed down, its channels cancel each other: channel ")
    assert note.numbers in ((1,), (2,))  # the louder one, which lossy coding decides
    assert plain.notes == ()
    middle = slice(10_000, 40_000)
    for name in ("encoder_wave", "chord_wave"):
        heard, expected = (getattr(audio, name)[middle] for audio in (cancelled, plain))
        assert (
            np.abs(np.abs(np.fft.rfft(heard)) - np.abs(np.fft.rfft(expected))).max()
            < 0.05 * np.abs(np.fft.rfft(expected)).max()
        )
    # In part they may.
    assert "cancels" not in str(notes(write(tmp_path / "c.wav", np.stack([left, -0.3 * left]))))
    wide = np.stack([left, tone(44_100, 3, 300)])
    assert notes(write(tmp_path / "d.wav", wide)) == []


@pytest.mark.parametrize("name", ["ogg-vorbis", "m4a-aac", "ogg-opus", "mp3-cbr", "mp2", "ac3", "wma2"])
def test_what_lossy_coding_leaves_of_channels_that_cancel_is_not_heard(tmp_path: Path, name: str) -> None:
    """Its residual is noise, and can be as loud as -12 dB."""
    form = replace(FORMS[name], channels=2)
    wave = noise(4, form.rate)[0]
    audio = load_audio(form.write(tmp_path / "a", np.stack([wave, -wave])), form.rate)
    assert [note.kind for note in audio.notes] == ["cancels"]
    heard = audio.encoder_wave[form.rate :][: form.rate]
    assert heard.std() == pytest.approx(wave.std(), rel=0.1)


def test_a_recording_is_the_wave_that_would_be_held(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, samples in (("two", rng.normal(0, 0.1, (2, 300_000))), ("one", rng.normal(0, 0.1, (1, 300_000)))):
        for rate in (24_000, 44_100):  # one needs no resampling
            path = write(tmp_path / f"{name}-{rate}.wav", samples, rate)
            held, long = load_audio(path), load_audio(path, held_seconds=1)
            for which in ("encoder_wave", "chord_wave"):
                wave, recording = getattr(held, which), getattr(long, which)
                assert isinstance(recording, Recording)
                assert len(recording) == len(wave)
                for _ in range(2):
                    np.testing.assert_array_equal(np.concatenate([part.copy() for part in recording]), wave)
                np.testing.assert_array_equal(np.concatenate([*rechunked(recording, 12_345)]), wave)
            assert (long.duration, long.sha256, long.notes) == (held.duration, held.sha256, held.notes)


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([tone(44_100, 3)]))
    audio = load_audio(path, held_seconds=1)
    write(path, np.stack([tone(44_100, 3, 300)]))
    with pytest.raises(DataError, match=r"cannot read .*a\.wav: it changed while it was read"):
        list(audio.encoder_wave)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.wav: No such file"):
        list(audio.encoder_wave)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, share: float, number: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(44_100, 20), 44_100)
    real, where = os.pread, share * path.stat().st_size

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if offset + size > where:
            raise OSError(number, os.strerror(number))
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    for accept_cut in (False, True):
        with pytest.raises(UnheardError, match=rf"cannot read .*a\.{suffix}: {os.strerror(number)}") as caught:
            load_audio(path, accept_cut=accept_cut)
        assert not caught.value.missing


def test_what_is_not_there_is_missing_and_what_cannot_be_opened_is_not(tmp_path: Path) -> None:
    (tmp_path / "to nothing.wav").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name, missing in (("no.wav", True), ("to nothing.wav", True), ("loop.wav", False)):
        with pytest.raises(UnheardError, match=f"cannot read .*{name}") as caught:
            load_audio(tmp_path / name)
        assert caught.value.missing is missing


def test_a_file_that_is_cut_while_it_is_decoded_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 441_000), 44_100)
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if offset > 100_000:
            os.truncate(path, 50_000)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(UnheardError, match="changed while it was read"):
        load_audio(path)


def test_a_survey_says_what_loading_would(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([tone(44_101, 3), -tone(44_101, 3)]), 44_101)
    heard, digest = survey(path, digest=True)
    audio = load_audio(path)
    assert (heard.seconds, heard.notes, digest) == (audio.duration, audio.notes, audio.sha256)
    assert heard.rate == 44_101
    assert survey(path)[1] == b""


def test_a_file_that_is_missing_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "Café del Mar.mp3").touch()
    with pytest.raises(DataError, match=r"No such file or directory; the nearest is .*/Café del Mar\.mp3"):
        load_audio(tmp_path / "Cafe del Mar.mp3")


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
    assert segment_lengths(samples, 100, tail, 20) == lengths
    blocks = Recording(lambda: (wave[i : i + 33] for i in range(0, samples, 33)), samples)
    lazy = Segments(blocks, 100, tail, 20)
    assert len(lazy) == len(lengths)
    for _ in range(2):
        for one, other in zip(lazy, segments, strict=True):
            np.testing.assert_array_equal(one, other)


def test_names_that_are_not_utf8_and_files_without_an_end(tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(os.fsencode(name), np.zeros(24_000), 24_000, format="WAV")
    assert load_audio(name).duration == 1
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path):
        with pytest.raises(DataError, match="not a regular file"):
            load_audio(path)
