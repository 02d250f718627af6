"""Audio files to mono waves at the rates that the features need.

One decode feeds both paths, each as the paper's released code reads audio:

- encoder: mean over channels, then a windowed-sinc resampler equal to torchaudio's defaults
  (sinc_interp_hann, lowpass_filter_width 6, rolloff .99);
- chords: soxr HQ to 22,050 Hz, as librosa.load does.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError

MIN_SECONDS = 0.1
_FILTER_WIDTH = 6
_ROLLOFF = 0.99


@dataclass(frozen=True, eq=False)
class Audio:
    """A decoded track.

    Attributes:
        wave: mean over channels, -1 to 1 [shape=(n,)].
        rate: Hz.
        sha256: digest of the file.
        file_bytes: its size.
    """

    wave: NDArray[np.float32]
    rate: int
    sha256: bytes
    file_bytes: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.wave) / self.rate


def load_audio(path: Path) -> Audio:
    """Decode a file: soundfile first (wav, flac, ogg, mp3, ...), PyAV for what it refuses (m4a, wma, ...).

    Raises:
        DataError: the file is missing, is no audio, or is shorter than .1 s.
    """
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").digest()
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    wave, rate = _decode(path)
    if len(wave) < MIN_SECONDS * rate:
        raise DataError(f"{path} is {len(wave) / rate:.3f} s long; the shortest usable track is {MIN_SECONDS} s")
    if not np.isfinite(wave).all():
        raise DataError(f"{path} holds samples that are not numbers (NaN or infinite)")
    return Audio(wave, rate, sha256, size)


@contextlib.contextmanager
def _quiet_codecs() -> Iterator[None]:
    """Discard what C libraries print to stderr: mpg123 comments on odd frames in the middle of the progress bar."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(nowhere)
        os.close(stderr)


def _decode(path: Path) -> tuple[NDArray[np.float32], int]:
    import soundfile

    try:
        with _quiet_codecs(), soundfile.SoundFile(path) as file:
            # Block by block: an hour of stereo would need 1.3 GB at once.
            blocks = [_mono(block) for block in file.blocks(1 << 20, dtype="float32", always_2d=True)]
            return np.concatenate(blocks) if blocks else np.zeros(0, np.float32), int(file.samplerate)
    except soundfile.LibsndfileError as refused:
        try:
            return _decode_with_pyav(path)
        except DataError as error:
            raise DataError(f"{path} cannot be decoded: {error} (libsndfile: {refused.error_string})") from error


def _decode_with_pyav(path: Path) -> tuple[NDArray[np.float32], int]:
    import av

    try:
        with _quiet_codecs(), av.open(str(path)) as container:
            if not container.streams.audio:
                raise DataError("it has no audio stream")
            stream = container.streams.audio[0]
            rate = int(stream.rate or 0)
            planar = av.AudioResampler(format="fltp")
            frames: list[Any] = [*container.decode(stream), None]  # None flushes the resampler
            decoded = (out.to_ndarray().T for frame in frames for out in planar.resample(frame))
            blocks = [_mono(np.asarray(block, np.float32)) for block in decoded]
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"no decoder reads it ({error.__class__.__name__})") from error
    if not blocks or rate <= 0:
        raise DataError("it holds no samples")
    return np.concatenate(blocks), rate


def _mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over channels [shape=(n, channels) -> (n,)]."""
    if block.shape[1] == 2:  # equal to the bit, and much faster than mean(axis=1)
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)
    return block.mean(axis=1, dtype=np.float32)


def resample_sinc(wave: NDArray[np.float32], rate: int, target: int) -> NDArray[np.float32]:
    """Resample with a Hann-windowed sinc; equal to torchaudio's ``Resample`` defaults within 1e-6.

    Args:
        wave: mono [shape=(n,)].
        rate: of `wave`, Hz.
        target: Hz.

    Returns:
        [shape=(ceil(n * target / rate),)]
    """
    if rate == target:
        return wave
    common = math.gcd(rate, target)
    step, phases = rate // common, target // common
    kernel = _sinc_kernel(step, phases)  # [phases, taps]
    taps = kernel.shape[1]
    reach = (taps - step) // 2
    padded = np.pad(wave, (reach, reach + step))
    # A window a step, one matrix product for all phases: output [steps, phases] in time order.
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)[::step]
    length = math.ceil(len(wave) * phases / step)
    out = np.empty((len(windows), phases), np.float32)
    for start in range(0, len(windows), 8192):
        out[start : start + 8192] = windows[start : start + 8192] @ kernel.T
    return out.reshape(-1)[:length]


@lru_cache(maxsize=16)
def _sinc_kernel(step: int, phases: int) -> NDArray[np.float32]:
    cutoff = min(step, phases) * _ROLLOFF
    reach = math.ceil(_FILTER_WIDTH * step / cutoff)
    position = np.arange(-reach, reach + step) / step - np.arange(phases)[:, None] / phases
    time = np.clip(position * cutoff, -_FILTER_WIDTH, _FILTER_WIDTH)
    window = np.cos(time * math.pi / _FILTER_WIDTH / 2) ** 2
    return (np.sinc(time) * window * cutoff / step).astype(np.float32)


def resample_soxr(wave: NDArray[np.float32], rate: int, target: int) -> NDArray[np.float32]:
    """Resample with soxr's HQ setting [shape=(n,) -> (ceil(n * target / rate),)], as librosa.load does."""
    import soxr

    if rate == target:
        return wave
    length = math.ceil(len(wave) * target / rate)
    out = soxr.resample(wave, rate, target, "HQ")[:length]
    return np.pad(out, (0, length - len(out)))


def split_segments(wave: NDArray[np.float32], segment: int, tail: str, min_tail: int) -> list[NDArray[np.float32]]:
    """Cut a wave into consecutive segments of `segment` samples (paper III-A1).

    The remainder is dropped, or with ``tail = "keep"`` kept when it has `min_tail` samples; a wave shorter than one
    segment is one segment.
    """
    full = len(wave) // segment
    if full == 0:
        return [wave]
    end = len(wave) if tail == "keep" and len(wave) - full * segment >= min_tail else full * segment
    return [wave[start : min(start + segment, end)] for start in range(0, end, segment)]
