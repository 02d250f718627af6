"""Audio files in every form that the encoders at hand can write, and what may become of them."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


@dataclass(frozen=True)
class Form:
    """A codec in a container.

    Attributes:
        codec, container: FFmpeg's names.
        rate, channels: of what is written.
        codec_options, options: for the encoder and for the container.
        delay: samples of the encoder's own at the beginning, where the container does not tell of them.
        whole_frames: the container does not tell where in its last frame the sound ends.
        tells_cut: a file that is cut can be told from a whole one.
        index_last: what it needs to be read at all stands at its end.
        plain: samples are stored as such, so that other bytes are other samples.
    """

    codec: str
    container: str
    rate: int = 44_100
    channels: int = 1
    codec_options: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    delay: int = 0
    whole_frames: bool = False
    tells_cut: bool = True
    index_last: bool = False
    plain: bool = False

    def write(self, path: Path, samples: Wave) -> Path:
        """Samples [shape=(channels, n)] as a file."""
        return encode(path, samples, self.rate, self.codec, self.container, self.codec_options, self.options)


def _untold(codec: str, container: str, delay: int, **others: Any) -> Form:
    """A stream of frames, without a word on how many there are or what of them is sound."""
    return Form(codec, container, delay=delay, whole_frames=True, tells_cut=False, **others)


_VBR = {"flags": "+qscale", "global_quality": "236"}
_NO_XING = {"write_xing": "0"}
FORMS = {
    "wav-s16": Form("pcm_s16le", "wav", plain=True),
    "wav-u8": Form("pcm_u8", "wav", plain=True),
    "wav-s24": Form("pcm_s24le", "wav", channels=2, plain=True),
    "wav-s32": Form("pcm_s32le", "wav", plain=True),
    "wav-s64": Form("pcm_s64le", "wav", plain=True),
    "wav-f32": Form("pcm_f32le", "wav", channels=6, plain=True),
    "wav-f64": Form("pcm_f64le", "wav", plain=True),
    "wav-alaw": Form("pcm_alaw", "wav", plain=True),
    "wav-mulaw": Form("pcm_mulaw", "wav", plain=True),
    "wav-rf64": Form("pcm_s16le", "wav", options={"rf64": "always"}, plain=True),
    "wav-adpcm-ms": Form("adpcm_ms", "wav", whole_frames=True, plain=True),
    "wav-adpcm-ima": Form("adpcm_ima_wav", "wav", whole_frames=True, plain=True),
    "wav-mp3": Form("libmp3lame", "wav", delay=1105, whole_frames=True),
    "w64": Form("pcm_s16le", "w64", plain=True),
    "aiff": Form("pcm_s16be", "aiff", channels=2, plain=True),
    "aifc": Form("pcm_f32be", "aiff", plain=True),
    "caf": Form("pcm_s16be", "caf", plain=True),
    "caf-alac": Form("alac", "caf"),
    "au": Form("pcm_s16be", "au", plain=True),
    "voc": Form("pcm_u8", "voc", rate=40_000, plain=True),
    "flac": Form("flac", "flac", channels=2),
    "ogg-flac": Form("flac", "ogg"),
    "ogg-vorbis": Form("vorbis", "ogg", channels=2, codec_options={"strict": "experimental"}),
    "ogg-opus": Form("libopus", "ogg", rate=48_000),
    "m4a-aac": Form("aac", "ipod", channels=2, index_last=True),
    "m4a-aac-faststart": Form("aac", "ipod", options={"movflags": "faststart"}),
    "m4a-alac": Form("alac", "ipod", index_last=True),
    "mp4-aac": Form("aac", "mp4", index_last=True),
    "mp4-flac": Form("flac", "mp4", index_last=True),
    "mp4-opus": Form("libopus", "mp4", rate=48_000, index_last=True),
    "mp4-mp3": Form("libmp3lame", "mp4", index_last=True),
    "mp4-ac3": Form("ac3", "mp4", whole_frames=True, index_last=True),
    "mov-pcm": Form("pcm_s16le", "mov", index_last=True, plain=True),
    "3gp-aac": Form("aac", "3gp", index_last=True),
    "mka-vorbis": Form("vorbis", "matroska", channels=2, codec_options={"strict": "experimental"}, whole_frames=True),
    "mka-aac": Form("aac", "matroska", whole_frames=True),
    "mka-flac": Form("flac", "matroska"),
    "mka-mp3": Form("libmp3lame", "matroska"),
    "mka-ac3": Form("ac3", "matroska", whole_frames=True),
    "mka-alac": Form("alac", "matroska"),
    "mka-tta": Form("tta", "matroska"),
    "mka-pcm": Form("pcm_s16le", "matroska"),
    "webm-opus": Form("libopus", "webm", rate=48_000),
    "wavpack": Form("wavpack", "wv"),
    "tta": Form("tta", "tta"),
    "wma2": Form("wmav2", "asf", codec_options={"b": "128000"}, whole_frames=True),
    "wma1": Form("wmav1", "asf", codec_options={"b": "128000"}, whole_frames=True),
    "mp3-cbr": Form("libmp3lame", "mp3", channels=2, codec_options={"b": "128000"}),
    "mp3-vbr": Form("libmp3lame", "mp3", codec_options=_VBR),
    "mp3-abr": Form("libmp3lame", "mp3", codec_options={"abr": "1"}),
    "mp3-22k": Form("libmp3lame", "mp3", rate=22_050),
    "mp3-cbr-bare": _untold("libmp3lame", "mp3", 1105, options=_NO_XING),
    "mp3-vbr-bare": _untold("libmp3lame", "mp3", 1105, codec_options=_VBR, options=_NO_XING),
    "mp3-abr-bare": _untold("libmp3lame", "mp3", 1105, codec_options={"abr": "1"}, options=_NO_XING),
    "mp2": _untold("mp2", "mp2", 481),
    "adts": _untold("aac", "adts", 1024),
    "latm": _untold("aac", "latm", 1024),
    "ac3": _untold("ac3", "ac3", 256),
    "eac3": _untold("eac3", "eac3", 256),
    "ts-aac": _untold("aac", "mpegts", 1024),
    "ts-mp2": _untold("mp2", "mpegts", 481),
    "mpg-mp2": _untold("mp2", "mpeg", 481),
    "avi-mp3": Form("libmp3lame", "avi", delay=1105, whole_frames=True),
    "avi-pcm": Form("pcm_s16le", "avi", plain=True),
    "flv-aac": Form("aac", "flv", delay=1024, whole_frames=True),
    "flv-mp3": Form("libmp3lame", "flv", delay=1105, whole_frames=True),
}


def encode(
    path: Path,
    samples: Wave,
    rate: int,
    codec: str,
    container: str | None = None,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write samples, -1 to 1 [shape=(channels, n)], as a file; `container` is FFmpeg's name."""
    layout = _LAYOUTS.get(len(samples), f"{len(samples)} channels")
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
        mux(out, stream, samples)
    return path


def mux(out: Any, stream: Any, samples: Wave, start: int = 0) -> None:
    """Encode samples into one stream of an open container; the first has the time `start`, in samples."""
    layout = _LAYOUTS.get(len(samples), f"{len(samples)} channels")
    for first in range(0, samples.shape[1], 4096):
        piece = np.ascontiguousarray(samples[:, first : first + 4096], np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.rate, frame.pts = stream.rate, start + first
        for packet in stream.encode(frame):
            out.mux(packet)
    for packet in stream.encode(None):
        out.mux(packet)


def noise(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Wave:
    """Noise below a sixth of the rate, which every codec keeps, -20 dB [shape=(channels, n)]."""
    n = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, n)), axis=1)
    spectrum[:, n // 6 :] = 0
    wave = np.fft.irfft(spectrum, n, axis=1)
    return (0.1 * wave / wave.std()).astype(np.float32)


def delay(heard: Wave, written: Wave) -> int:
    """By how many samples `heard` comes later than `written` [shape=(n,) each]."""
    n = 2 * max(len(heard), len(written))
    correlation = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(written, n)), n)
    best = int(correlation.argmax())
    return best if best < n // 2 else best - n


def cut(path: Path, share: float = 0.4) -> Path:
    """The first bytes of a file, beside it."""
    content = path.read_bytes()
    other = path.with_name(f"cut-{path.name}")
    other.write_bytes(content[: int(share * len(content))])
    return other


def overwrite(path: Path, size: int, zeros: bool = False) -> Path:
    """A file with other bytes in its middle, as a disk leaves it, beside it."""
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    size = min(size, len(content) // 6)
    content[start : start + size] = bytes(size) if zeros else random.Random(0).randbytes(size)
    other = path.with_name(f"bad-{path.name}")
    other.write_bytes(content)
    return other
