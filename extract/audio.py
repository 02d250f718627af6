"""Audio files to mono waves at the rates that the features need.

One decode feeds both paths, each as the paper's released code reads audio:

- encoder: mean over channels, then a windowed-sinc resampler equal to torchaudio's defaults
  (sinc_interp_hann, lowpass_filter_width 6, rolloff .99);
- chords: soxr HQ to 22,050 Hz, as librosa.load does.

Samples go block by block from the file to both rates: decoded at once, an hour of stereo would take 1.3 GB.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError
from m2e.cache.schema import ResamplerName

Wave = NDArray[np.float32]

MIN_SECONDS = 0.1
_LOUDEST = 1e6  # float files may go beyond 1; what follows squares samples
BLOCK = 1 << 17  # samples a channel: little enough for the processor's cache
_FILTER_WIDTH = 6
_ROLLOFF = 0.99
_LARGEST_KERNEL = 1 << 26


@dataclass(frozen=True, eq=False)
class Audio:
    """A decoded track, mean over channels, -1 to 1.

    Attributes:
        encoder_wave: at the encoder's rate [shape=(n,)].
        chord_wave: at the chord recogniser's rate [shape=(m,)].
        duration: seconds.
        sha256: digest of the file.
        file_bytes: its size.
    """

    encoder_wave: Wave
    chord_wave: Wave
    duration: float
    sha256: bytes
    file_bytes: int


class _Refused(Exception):
    """A decoder cannot read a file."""


def load_audio(
    path: Path, encoder_rate: int = 24_000, chord_rate: int = 22_050, resampler: ResamplerName = "sinc_hann"
) -> Audio:
    """Decode a file: soundfile first (wav, flac, ogg, mp3, ...), PyAV for what it refuses (m4a, wma, ...).

    Args:
        path: the file.
        encoder_rate: of the encoder's wave, Hz.
        chord_rate: of the chord recogniser's wave, Hz; it always comes from soxr.
        resampler: for the encoder's wave.

    Raises:
        DataError: the file is missing, is no audio, is shorter than .1 s, holds NaN, or has a rate that `resampler`
            cannot take.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may have no end
            raise DataError(f"{path} is no regular file")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if status.st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    refusals = []
    for decode in (_with_soundfile, _with_pyav):
        try:
            with _quiet_codecs():
                (encoder_wave, chord_wave), duration = _resampled(
                    decode(path), ((encoder_rate, resampler), (chord_rate, "soxr_hq"))
                )
            return Audio(encoder_wave, chord_wave, duration, sha256, status.st_size)
        except _Refused as refused:
            refusals.append(str(refused))
        except DataError as error:
            raise DataError(f"{path} {error}") from error
    raise DataError(f"{path} cannot be decoded: {'; '.join(refusals)}")


@dataclass(frozen=True)
class _Block:
    """Some samples of a file: mono, their rate, and how many samples the file says it has."""

    wave: Wave
    rate: int
    promised: int


def _resampled(blocks: Iterator[_Block], targets: tuple[tuple[int, ResamplerName], ...]) -> tuple[list[Wave], float]:
    """The wave at each target's rate, and its duration in seconds."""
    samples, rate = 0, 0
    resamplers: list[Resampler] = []
    waves: list[_GrowingWave] = []
    for block in blocks:
        loudest = float(np.abs(block.wave).max(initial=0))
        if not math.isfinite(loudest):
            raise DataError("holds samples that are not numbers (NaN or infinite)")
        if loudest > _LOUDEST:
            raise DataError(f"holds samples beyond {_LOUDEST:g}, where full scale is 1: it is damaged")
        if not samples:
            rate = block.rate
            resamplers = [Resampler(rate, *target) for target in targets]
            waves = [_GrowingWave(block.promised * target // rate + 1) for target, _ in targets]
        samples += len(block.wave)
        for wave, resample in zip(waves, resamplers, strict=True):
            wave.append(resample(block.wave))
    if samples < max(1, MIN_SECONDS * rate):
        seconds = samples / rate if rate else 0
        raise DataError(f"is {seconds:.3f} s long; the shortest usable track is {MIN_SECONDS} s")
    for wave, resample in zip(waves, resamplers, strict=True):
        wave.append(resample(np.zeros(0, np.float32), last=True))
    return [wave.samples for wave in waves], samples / rate


class _GrowingWave:
    """Blocks one after the other. Memory that nothing is written to costs nothing, so a file may promise too much."""

    def __init__(self, promised: int) -> None:
        self._buffer = np.empty(min(promised, 1 << 28), np.float32)
        self._end = 0

    def append(self, block: Wave) -> None:
        end = self._end + len(block)
        if end > len(self._buffer):
            grown = np.empty(2 * end, np.float32)
            grown[: self._end] = self.samples
            self._buffer = grown
        self._buffer[self._end : end] = block
        self._end = end

    @property
    def samples(self) -> Wave:
        return self._buffer[: self._end]


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


def _with_soundfile(path: Path) -> Iterator[_Block]:
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:  # a name need not be UTF-8
            # Or else it would seek to where it is after every read, and an mp3 decoder would start anew.
            file.seekable = lambda: False
            buffer = np.empty((BLOCK, file.channels), np.float32)
            while len(block := file.read(out=buffer)):
                yield _Block(_mono(block), int(file.samplerate), int(file.frames))
    except soundfile.LibsndfileError as error:
        raise _Refused(f"libsndfile: {error.error_string}") from error


def _with_pyav(path: Path) -> Iterator[_Block]:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise _Refused("it has no audio stream")
            stream = container.streams.audio[0]
            if not stream.rate:
                raise _Refused("its audio stream has no rate")
            seconds = (container.duration or 0) / av.time_base
            planar = av.AudioResampler(format="fltp")
            held: list[Wave] = []
            for frame in itertools.chain(container.decode(stream), [None]):  # None flushes the resampler
                held += [_mono(np.asarray(part.to_ndarray().T, np.float32)) for part in planar.resample(frame)]
                if held and (frame is None or sum(map(len, held)) >= BLOCK):
                    yield _Block(np.concatenate(held), int(stream.rate), int(stream.rate * seconds))
                    held = []
    except (av.FFmpegError, ValueError) as error:
        raise _Refused(f"FFmpeg: {error.__class__.__name__}") from error


def _mono(block: Wave) -> Wave:
    """Mean over channels [shape=(n, channels) -> (n,)]."""
    # A product, because mean(axis=1) takes nine times as long; of two channels it is equal to the bit.
    return block @ np.full(block.shape[1], 1 / block.shape[1], np.float32)


class Resampler:
    """From one rate to another, block by block; what it returns is, one after the other, the resampled wave."""

    def __init__(self, rate: int, target: int, method: ResamplerName) -> None:
        """Rates in Hz.

        Raises:
            DataError: "sinc_hann" would need too large a filter for these rates.
        """
        self._rate, self._target = rate, target
        self._taken = self._given = 0
        self._resample: Callable[[Wave, bool], Wave]
        if rate == target:
            self._resample = lambda block, last: block
        elif method == "sinc_hann":
            self._resample = _SincResampler(rate, target).resample_chunk
        else:
            import soxr

            self._resample = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ").resample_chunk

    def __call__(self, block: Wave, last: bool = False) -> Wave:
        """[shape=(n,) -> (m,)]; the lengths of all results add up to ceil(samples * target / rate)."""
        out = self._resample(block, last)
        self._taken += len(block)
        if last:
            missing = -(-self._taken * self._target // self._rate) - self._given - len(out)
            out = np.pad(out, (0, missing)) if missing > 0 else out[: len(out) + missing]
        self._given += len(out)
        return out


class _SincResampler:
    """A Hann-windowed sinc, as in torchaudio's ``Resample`` with its defaults, equal to it within 1e-6.

    Outputs repeat their phases after `step` inputs, so that all phases of a step are one matrix product.
    """

    def __init__(self, rate: int, target: int) -> None:
        self._step, reach, self._head, self._rest = _sinc_kernel(rate, target)
        self._after = reach + 2 * self._step
        self._held = np.zeros(reach, np.float32)

    def resample_chunk(self, block: Wave, last: bool) -> Wave:
        wave = np.concatenate([self._held, block, np.zeros(self._after if last else 0, np.float32)])
        rows = wave[: len(wave) // self._step * self._step].reshape(-1, self._step)
        # A window is a row and the beginning of the next.
        out = rows[:-1] @ self._head
        out += rows[1:, : len(self._rest)] @ self._rest
        self._held = wave[len(out) * self._step :]
        return out.reshape(-1)


@lru_cache(maxsize=16)
def _sinc_kernel(rate: int, target: int) -> tuple[int, int, Wave, Wave]:
    """Inputs a step, the filter's reach, and its taps within the step's own inputs and in the next step's."""
    common = math.gcd(rate, target)
    step, phases = rate // common, target // common
    cutoff = min(step, phases) * _ROLLOFF
    reach = math.ceil(_FILTER_WIDTH * step / cutoff)
    # Several periods in one step where they are short: its inputs must span the filter, and products should be large.
    periods = math.ceil(max(2 * reach, 128) / step)
    step, phases, cutoff = step * periods, phases * periods, cutoff * periods
    if phases * (2 * reach + step) > _LARGEST_KERNEL:
        raise DataError(
            f"has a rate of {rate} Hz, from which sinc_hann would need too large a filter: use --resampler soxr_hq"
        )
    position = np.arange(-reach, reach + step) / step - np.arange(phases)[:, None] / phases
    time = np.clip(position * cutoff, -_FILTER_WIDTH, _FILTER_WIDTH)
    window = np.cos(time * math.pi / _FILTER_WIDTH / 2) ** 2
    kernel = (np.sinc(time) * window * cutoff / step).astype(np.float32)
    return step, reach, np.ascontiguousarray(kernel[:, :step].T), np.ascontiguousarray(kernel[:, step:].T)


def split_segments(wave: Wave, segment: int, tail: str, min_tail: int) -> list[Wave]:
    """Cut a wave into consecutive segments of `segment` samples (paper III-A1).

    The remainder is dropped, or with ``tail = "keep"`` kept when it has `min_tail` samples; a wave shorter than one
    segment is one segment.
    """
    full = len(wave) // segment
    if full == 0:
        return [wave]
    end = len(wave) if tail == "keep" and len(wave) - full * segment >= min_tail else full * segment
    return [wave[start : min(start + segment, end)] for start in range(0, end, segment)]
