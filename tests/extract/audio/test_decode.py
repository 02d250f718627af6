"""What is in a file and what is not: links, joins, changes on the way, several streams, other files, warnings."""

import io
import os
import random
import resource
import struct
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from support.encoded import FORMS, Wave, cut, delay, encode, mux, noise, overwrite

from m2e.cache import DataError
from m2e.extract.audio.decode import Facts, decode
from m2e.extract.audio.formats import looks_like
from m2e.extract.audio.reader import load_audio, survey

RATE = 24_000


def kinds(path: Path, **options: bool) -> dict[str, tuple[float, ...]]:
    return {note.kind: note.numbers for note in load_audio(path, **options).notes}  # type: ignore[arg-type]


def write_wav(path: Path, wave: Wave, rate: int = RATE) -> Path:
    soundfile.write(path, wave.T, rate, subtype="FLOAT", format="WAV")
    return path


def vbri(path: Path) -> None:
    """Put the tag of the Fraunhofer encoder in the place of a Xing tag."""
    content = bytearray(path.read_bytes())
    tag = content.index(b"Info") if b"Info" in content[:4000] else content.index(b"Xing")
    frames = struct.unpack(">I", content[tag + 8 : tag + 12])[0]
    start = content.rindex(b"\xff", 0, tag - 8)  # of the frame that holds it
    end = content.index(content[start : start + 2], tag)
    body = struct.pack(">4sHHHIIHHHH", b"VBRI", 1, 0, 75, len(content), frames, 0, 1, 2, 1)
    content[start + 4 : end] = bytes(32) + body + bytes(end - start - 36 - len(body))
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["mp3-vbr-bare", "mp3-abr-bare", "mp3-cbr-bare"])
def test_an_mp3_without_a_header_is_heard_to_its_end(tmp_path: Path, name: str) -> None:
    """Half of it is silence, which takes fewer bytes: where a reader guesses the length, it guesses wrong."""
    form = FORMS[name]
    wave = np.concatenate([noise(10, form.rate), np.zeros((1, 25 * form.rate), np.float32)], axis=1)
    assert load_audio(form.write(tmp_path / "a.mp3", wave)).duration == pytest.approx(35, abs=0.06)


def test_an_mp3_with_a_vbri_header_is_heard_to_its_end(tmp_path: Path) -> None:
    path = FORMS["mp3-vbr"].write(tmp_path / "a.mp3", noise(12, 44_100))
    vbri(path)
    assert b"Xing" not in path.read_bytes()
    assert load_audio(path).duration == pytest.approx(12, abs=0.06)
    with pytest.raises(DataError, match=r"is cut: 4\.\d of 12\.\d s"):
        load_audio(cut(path))


@pytest.mark.parametrize("name", ["mp3-cbr", "mp3-vbr", "mp3-vbr-bare", "adts", "ac3", "flac", "ogg-flac", "ogg-opus"])
def test_two_files_joined_are_both_heard(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    one = form.write(tmp_path / "one", noise(3, form.rate, form.channels))
    two = form.write(tmp_path / "two", noise(2, form.rate, form.channels, seed=1))
    (tmp_path / "both").write_bytes(one.read_bytes() + two.read_bytes())
    audio = load_audio(tmp_path / "both", form.rate)
    assert audio.duration == pytest.approx(5, abs=0.15)
    assert audio.notes == ()
    second = noise(2, form.rate, form.channels, seed=1).mean(axis=0)
    assert delay(audio.encoder_wave, second) == pytest.approx(3 * form.rate, abs=0.08 * form.rate)


@pytest.mark.parametrize("tag", ["id3", "ape", "id3v1"])
def test_tags_between_joined_files_are_no_damage(tmp_path: Path, tag: str) -> None:
    form = FORMS["mp3-cbr-bare"]
    song = form.write(tmp_path / "a", noise(3, form.rate, form.channels)).read_bytes()
    between = {
        "id3": b"ID3\x04\0\0" + bytes([0, 1, 72, 0]) + random.Random(0).randbytes(200 * 128 - 128 * 0),
        "ape": b"APETAGEX" + struct.pack("<IIIQ", 2000, 20_000, 1, 0) + b"cover" * 4000,
        "id3v1": b"TAG" + bytes(125),
    }[tag]
    (tmp_path / "both.mp3").write_bytes(song + between + song + between)
    assert kinds(tmp_path / "both.mp3") == {}
    assert load_audio(tmp_path / "both.mp3").duration == pytest.approx(6, abs=0.2)


@pytest.mark.parametrize("container", ["ogg", "adts", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (22_050, 1)])
def test_a_change_of_rate_or_channels_keeps_pitch_and_time(
    tmp_path: Path, container: str, rate: int, channels: int
) -> None:
    codec = {"ogg": "flac", "adts": "aac", "mp3": "libmp3lame"}[container]
    parts = []
    for r, c in ((44_100, 2), (rate, channels)):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * r) / r).astype(np.float32)
        options = {"write_xing": "0"} if container == "mp3" else {}
        parts.append(encode(tmp_path / f"{r}", np.tile(tone, (c, 1)), r, codec, container, {}, options).read_bytes())
    (tmp_path / "both").write_bytes(b"".join(parts))
    audio = load_audio(tmp_path / "both")
    assert audio.duration == pytest.approx(6, abs=0.2)
    assert {note.kind for note in audio.notes} == {"changes"}
    for wave, target in ((audio.encoder_wave, 24_000), (audio.chord_wave, 22_050)):
        assert len(wave) == pytest.approx(audio.duration * target, abs=2)
        for start in (1.0, 4.0):  # seconds
            piece = wave[int(start * target) :][:target]
            assert abs(int(np.abs(np.fft.rfft(piece * np.hanning(target))).argmax()) - 440) <= 1


def test_a_chain_of_different_codecs_is_heard_link_by_link(tmp_path: Path) -> None:
    names = ("ogg-vorbis", "ogg-opus", "ogg-flac")
    links = [FORMS[n].write(tmp_path / n, noise(2, FORMS[n].rate, FORMS[n].channels)).read_bytes() for n in names]
    (tmp_path / "chain.ogg").write_bytes(b"".join(links))
    audio = load_audio(tmp_path / "chain.ogg")
    assert audio.duration == pytest.approx(6, abs=0.01)
    assert [note.kind for note in audio.notes] == ["changes"]
    (tmp_path / "cut.ogg").write_bytes(b"".join(links)[: -len(links[-1]) // 2])
    with pytest.raises(DataError, match=r"is cut: it ends after [45]\.\d s"):
        load_audio(tmp_path / "cut.ogg")
    # A link whose head is lost is damage, not silence.
    broken = bytearray(links[1])
    broken[28:60] = bytes(32)
    (tmp_path / "broken.ogg").write_bytes(links[0] + broken + links[2])
    with pytest.raises(DataError, match="is damaged"):
        load_audio(tmp_path / "broken.ogg")


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000])
def test_a_wav_whose_header_does_not_know_its_size_is_heard(tmp_path: Path, size: int) -> None:
    """A recorder that crashed leaves 0, programs that wrote into a pipe the largest number that they know."""
    path = FORMS["wav-s16"].write(tmp_path / "a.wav", noise(3, 44_100))
    content = bytearray(path.read_bytes())
    data = content.index(b"data") + 4
    content[data : data + 4] = content[4:8] = struct.pack("<I", size)
    path.write_bytes(content)
    audio = load_audio(path, 44_100)
    assert audio.duration == 3
    assert audio.notes == ()
    np.testing.assert_allclose(audio.encoder_wave, noise(3, 44_100)[0], atol=2e-5)


# Where sizes stand in other forms: after which bytes, and in how many.
SIZES = {
    "wav-rf64": [(b"ds64\x1c\0\0\0", 16)],
    "w64": [
        (b"riff.\x91\xcf\x11\xa5\xd6(\xdb\x04\xc1\0\0", 8),
        (b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0O\x8e\xdb\x8a", 8),
    ],
    "aiff": [(b"FORM", 4), (b"COMM\0\0\0\x12\0\x02", 4), (b"SSND", 4)],
    "au": [(b".snd\0\0\0\x20", 4)],
}


@pytest.mark.parametrize("unknown", [b"\0", b"\xff"])
@pytest.mark.parametrize("name", SIZES)
def test_other_headers_that_do_not_know_their_size_are_no_end(tmp_path: Path, name: str, unknown: bytes) -> None:
    form = FORMS[name]
    path = form.write(tmp_path / "a", noise(3, form.rate, form.channels))
    whole = load_audio(path, form.rate).encoder_wave
    content = bytearray(path.read_bytes())
    for before, size in SIZES[name]:
        start = content.index(before) + len(before)
        content[start : start + size] = size * unknown
    if name == "aiff":  # which counts samples, too
        frames = content.index(b"COMM") + 10
        content[frames : frames + 4] = bytes(4)
    path.write_bytes(content)
    audio = load_audio(path, form.rate)
    assert audio.notes == ()
    np.testing.assert_array_equal(audio.encoder_wave, whole)


def test_a_size_of_0_before_other_chunks_is_no_sound(tmp_path: Path) -> None:
    """The program was done with the file: what follows is no sound, but a picture or a text."""
    for form, order in (("wav", "<"), ("aiff", ">")):
        path = tmp_path / f"a.{form}"
        soundfile.write(path, np.zeros(0), RATE)
        content = bytearray(path.read_bytes() + b"id3 " + struct.pack(f"{order}I", 40_000) + bytes(range(250)) * 160)
        content[4:8] = struct.pack(f"{order}I", len(content) - 8)
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"holds (no|hardly any) sound"):
            load_audio(path)


@pytest.mark.parametrize("name", ["au", "wav-s16"])
def test_a_tag_behind_the_sound_is_no_sound(tmp_path: Path, name: str) -> None:
    path = FORMS[name].write(tmp_path / "a", noise(3, 44_100))
    path.write_bytes(path.read_bytes() + b"TAG" + b"title" * 25)
    audio = load_audio(path, 44_100)
    assert audio.duration == 3
    assert audio.notes == ()


@pytest.mark.long
def test_a_wav_of_more_than_its_header_can_count_is_heard(tmp_path: Path) -> None:
    size = (1 << 32) + 96_000_000
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 99, b"WAVE", b"fmt ", 16, 1, 2, 96_000, 768_000, 8, 32)
        file.write(header[:-8] + b"data" + struct.pack("<I", size % (1 << 32)))
        block = random.Random(0).randbytes(1 << 25)
        for _ in range(size >> 25):
            file.write(block)
        file.write(block[: size % (1 << 25)])
    heard, _ = survey(path)
    assert heard.seconds == size / 8 / 96_000
    assert heard.faults == ()


def test_zeros_behind_a_wav_cost_no_time(tmp_path: Path) -> None:
    """FFmpeg would walk through them as chunks of 8 bytes."""
    path = write_wav(tmp_path / "a.wav", noise(1, RATE))
    os.truncate(path, 1 << 31)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    heard, _ = survey(path)
    assert heard.seconds == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5


def bad_content(name: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("song.mp3", b"x" * 1000)
    return {
        "HTML": b"<!DOCTYPE html><html><body>" + b"<p>not found</p>" * 5000 + b"</body></html>",
        "random": random.Random(0).randbytes(200_000),
        "zeros": bytes(200_000),
        "text": b"this is a text, not music\n" * 500,
        "ZIP": archive.getvalue(),
        "MIDI": b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
        "picture": b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(5000),
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "XML": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "header alone": b"RIFF\x24\0\0\0WAVE",
        "four bytes": b"\xff\xfb\x90\x00",
    }[name]


@pytest.mark.parametrize("suffix", ["mp3", "au", "snd", "vox", "gsm", "wav", "m4a", "g722", "sb", "raw"])
@pytest.mark.parametrize(
    "name",
    ["HTML", "random", "zeros", "text", "ZIP", "MIDI", "picture", "Git LFS", "XML", "header alone", "four bytes"],
)
def test_what_is_no_audio_is_said_in_one_line_whatever_its_suffix(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"song.{suffix}"
    path.write_bytes(bad_content(name))
    with pytest.raises(DataError) as error:
        load_audio(path)
    said = str(error.value)
    assert said.startswith(f"{path} is no audio file (")
    assert "\n" not in said
    if name not in ("random", "header alone", "four bytes"):
        assert f"looks like {looks_like(bad_content(name))})" in said
        assert name.lower() in said.lower()


PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{other}\n#EXT-X-ENDLIST\n",
    "a.mp3": "ffconcat version 1.0\nfile '{other}'\n",
    "a.pls": "[playlist]\nFile1={other}\n",
    "a.asx": '<asx version="3.0"><entry><ref href="{other}"/></entry></asx>',
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_nothing(tmp_path: Path, name: str) -> None:
    other = FORMS["ts-mp2"].write(tmp_path / "other.ts", noise(3, 44_100))
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format(other=other))
    os.utime(other, ns=(0, other.stat().st_mtime_ns))  # older than its content: any reading shows
    with pytest.raises(DataError, match="is no audio file"):
        load_audio(path)
    assert other.stat().st_atime_ns == 0
    other.read_bytes()
    if other.stat().st_atime_ns == 0:
        pytest.skip("this file system does not note when a file is read")


def test_a_quicktime_movie_that_names_another_file_opens_nothing(tmp_path: Path) -> None:
    """A data reference: the samples are elsewhere."""
    path = FORMS["mov-pcm"].write(tmp_path / "a.mov", noise(2, 44_100))
    content = path.read_bytes()
    self_contained = b"\0\0\0\x0curl \0\0\0\x01"
    assert self_contained in content or b"alis\0\0\0\x01" in content
    flagged = content.replace(self_contained, b"\0\0\0\x0curl \0\0\0\x00").replace(b"alis\0\0\0\x01", b"alis\0\0\0\x00")
    path.write_bytes(flagged)
    heard, _ = survey(path)  # its own samples, or an error: no other file either way
    assert heard.seconds == 2


def two_streams(path: Path, default: int) -> tuple[Wave, Wave]:
    """Two tracks of sound, one of them marked as the default one."""
    waves = noise(3, 44_100), noise(3, 44_100, seed=1)
    with av.open(str(path), "w", format="matroska") as out:
        streams = [out.add_stream("flac", rate=44_100, layout="mono") for _ in waves]
        for number, stream in enumerate(streams):
            stream.disposition = int(number == default)
        for stream, wave in zip(streams, waves, strict=True):
            mux(out, stream, wave)
    return waves


@pytest.mark.parametrize("default", [0, 1])
def test_of_several_streams_the_default_one_is_heard_with_a_note(tmp_path: Path, default: int) -> None:
    waves = two_streams(tmp_path / "a.mka", default)
    audio = load_audio(tmp_path / "a.mka", 44_100)
    np.testing.assert_allclose(audio.encoder_wave, waves[default][0], atol=1e-4)
    assert [str(note) for note in audio.notes] == [f"streams: it has 2 audio streams: number {default + 1} is heard"]


def test_films_and_pictures_beside_the_sound_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        film = out.add_stream("mpeg4", rate=25)
        film.width, film.height = 64, 64
        sound = out.add_stream("flac", rate=44_100, layout="mono")
        for i in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            out.mux(film.encode(frame))
        out.mux(film.encode(None))
        mux(out, sound, noise(2, 44_100))
    audio = load_audio(path)
    assert audio.duration == 2  # shorter than the film, and whole
    assert audio.notes == ()
    silent_film = tmp_path / "b.mkv"
    with av.open(str(silent_film), "w") as out:
        film = out.add_stream("mpeg4", rate=25)
        film.width, film.height = 64, 64
        out.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(film.encode(None))
    with pytest.raises(DataError, match=r"b\.mkv holds no sound"):
        load_audio(silent_film)


@pytest.mark.parametrize("container", ["matroska", "webm"])
def test_sound_that_begins_later_is_not_cut(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a"
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        mux(out, stream, noise(3, 48_000), start=2 * 48_000)
    audio = load_audio(path)
    assert audio.duration == pytest.approx(3, abs=0.02)
    assert audio.notes == ()
    with pytest.raises(DataError, match=r"is cut: (1\.\d|2\.0) of 3\.0 s"):
        load_audio(cut(path, 0.6))


@pytest.mark.parametrize("channels", [3, 8, 12])
def test_all_channels_are_averaged_however_many(tmp_path: Path, channels: int) -> None:
    wave = noise(1, RATE, channels)
    path = write_wav(tmp_path / "a.wav", wave)
    np.testing.assert_allclose(load_audio(path, RATE).encoder_wave, wave.mean(axis=0), atol=1e-6)


def test_four_threads_hear_what_one_does_and_standard_error_stays_what_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = FORMS["mp3-vbr"].write(tmp_path / "a.mp3", noise(6, 44_100))
    bad = overwrite(whole, 8192)
    other = overwrite(FORMS["ogg-vorbis"].write(tmp_path / "a.ogg", noise(6, 44_100, 2)), 8192)
    expected = load_audio(whole).encoder_wave
    before, seen = Path("/proc/self/fd/2").readlink(), set()

    def hear(number: int) -> str:
        seen.add(threading.get_ident())
        if number % 3 == 0:
            np.testing.assert_array_equal(load_audio(whole).encoder_wave, expected)
            return ""
        heard, _ = survey(bad if number % 3 == 1 else other)
        return " ".join(heard.warnings)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(hear, range(24)))
    assert len(seen) > 1
    # What one file's codec says never stands with another file.
    assert all("Header missing" in text and "CRC" not in text for text in said[1::3])
    assert all("CRC mismatch" in text and "Header" not in text for text in said[2::3])
    assert Path("/proc/self/fd/2").readlink() == before
    assert capfd.readouterr().err == ""


def test_what_nobody_collects_is_not_printed(tmp_path: Path) -> None:
    """Other code of the process may use PyAV: FFmpeg's warnings then go to Python's logging, not to the terminal."""
    code = (
        "import av, sys, pathlib; from m2e.extract.audio.reader import survey\n"
        "survey(pathlib.Path(sys.argv[1])); list(av.open(sys.argv[1]).demux(audio=0))\n"
        "container = av.open(sys.argv[1])\n"
        "for packet in container.demux(audio=0):\n"
        "    try: packet.decode()\n"
        "    except av.FFmpegError: pass\n"
    )
    bad = overwrite(FORMS["mp3-vbr"].write(tmp_path / "a.mp3", noise(6, 44_100)), 8192)
    done = subprocess.run([sys.executable, "-c", code, str(bad)], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("rate", [1, 1_000, 3_999, 384_001, 2_000_000])
def test_rates_out_of_bounds_are_one_line(tmp_path: Path, rate: int) -> None:
    path = write_wav(tmp_path / "a.wav", noise(1, RATE), RATE)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.wav has a sample rate of {rate:,} Hz: 4,000 to 384,000 Hz are read"):
        load_audio(path)


def test_random_bytes_never_pass_and_never_crash(tmp_path: Path) -> None:
    """Behind the beginnings of real files, too."""
    heads = [
        form.write(tmp_path / name, noise(0.5, form.rate, form.channels)).read_bytes()[:64]
        for name, form in FORMS.items()
    ]
    rng = random.Random(0)
    path = tmp_path / "fuzz"
    for number in range(3 * len(heads)):
        head = heads[number % len(heads)] if number % 3 else b""
        path.write_bytes(head + rng.randbytes(rng.choice([10, 3000, 60_000])))
        said = ""
        try:
            audio = load_audio(path, accept_cut=True)
        except DataError as error:
            said = str(error)
        else:  # behind a true header of plain samples all bytes are samples
            assert head
            assert np.isfinite(audio.encoder_wave).all()
        assert "\n" not in said


def test_facts_are_complete_when_the_last_block_is_out(tmp_path: Path) -> None:
    path = FORMS["flac"].write(tmp_path / "a.flac", noise(5, 44_100, 2))
    facts = Facts()
    with path.open("rb") as file:
        blocks = [block.samples.copy() for block in decode(file.fileno(), path.stat().st_size, facts)]
    assert facts.seconds == pytest.approx(5)
    assert facts.expected == 5
    assert facts.rates == [44_100]
    assert [len(block) for block in blocks] == [2] * len(blocks)
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), noise(5, 44_100, 2), atol=1e-4)
