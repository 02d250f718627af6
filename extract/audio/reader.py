"""Audio files to mono waves at the rates that the features need.

One decode feeds both paths, each as the paper's released code reads audio: mean over channels, then a resampler for
each (`m2e.extract.audio.resample`). Samples go block by block from the file to both rates: decoded at once, an hour of
stereo would take 1.3 GB. Of a long file not even the resampled waves are held: whoever wants them has it decoded again.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m2e.cache.notes import Note
from m2e.cache.settings import ResamplerName
from m2e.common.errors import DataError
from m2e.common.names import hint
from m2e.common.regular import open_regular
from m2e.extract.audio.decode import BLOCK, Block, Facts, decode
from m2e.extract.audio.levels import Levels
from m2e.extract.audio.resample import Resampler as Resampler
from m2e.extract.audio.sound import Recording, Sound, Wave
from m2e.extract.audio.sound import split_segments as split_segments
from m2e.extract.audio.unheard import NOT_THERE, UnheardError
from m2e.extract.audio.window import BrokenRead

MIN_SECONDS = 0.1
# What may be missing without a word: the last frame of many files is.
TOLERANCE = 0.1
# Longer files are not held in memory: 115 MB for the encoder at 24 kHz, 106 MB for the chords.
HELD_SECONDS = 1_200.0
_COMMON_RATES = frozenset(
    [16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000, 352_800, 384_000]
)


@dataclass(frozen=True, eq=False)
class Audio:
    """A decoded track, mean over channels, -1 to 1.

    Attributes:
        encoder_wave: at the encoder's rate [shape=(n,)].
        chord_wave: at the chord recogniser's rate [shape=(m,)].
        duration: seconds.
        sha256: digest of the file.
        file_bytes: its size.
        notes: what there is to say of it.
    """

    encoder_wave: Sound
    chord_wave: Sound
    duration: float
    sha256: bytes
    file_bytes: int
    notes: tuple[Note, ...] = ()


def load_audio(
    path: Path,
    encoder_rate: int = 24_000,
    chord_rate: int = 22_050,
    resampler: ResamplerName = "sinc_hann",
    *,
    accept_cut: bool = False,
    held_seconds: float = math.inf,
) -> Audio:
    """Decode a file of any form that `m2e.extract.audio.formats` lists.

    Args:
        path: the file.
        encoder_rate: of the encoder's wave, Hz.
        chord_rate: of the chord recogniser's wave, Hz; it always comes from soxr.
        resampler: for the encoder's wave.
        accept_cut: take what there is of a file that is cut or damaged, with a note.
        held_seconds: a longer file's waves are `Recording`s, which hold no samples.

    Raises:
        UnheardError: the file is not there, cannot be read, or changes meanwhile.
        DataError: it is no audio, is shorter than .1 s, holds NaN, or is cut or damaged.
    """
    source = _Source(path)
    hearing = _Hearing(((encoder_rate, resampler), (chord_rate, "soxr_hq")), held_seconds)
    with source.naming_it():
        for block in source.blocks(hearing.facts):
            hearing.take(block)
        hearing.finish()
        heard = hearing.found()
        if heard.faults and not accept_cut:
            faults = "; ".join(map(str, heard.faults))
            said = f"; {heard.warnings[0]}" if heard.warnings and heard.faults[-1].kind == "damaged" else ""
            raise DataError(f"is {faults}{said} (--accept-cut takes what there is)")
    sounds: list[Sound] = [*hearing.waves]
    if not sounds:  # the file is long, or something else is to be heard than the mean of its channels
        again = [_Again(source, target, heard.lone_channel) for target in hearing.targets]
        recordings = map(Recording, again, hearing.lengths)
        long = heard.seconds > held_seconds
        sounds = [recording if long else np.concatenate(list(recording)) for recording in recordings]
    encoder_wave, chord_wave = sounds
    notes = (*heard.faults, *heard.notes)
    return Audio(encoder_wave, chord_wave, heard.seconds, source.sha256, source.size, notes)


@dataclass(frozen=True)
class Heard:
    """What there is to say of a file.

    Attributes:
        seconds: its length.
        rate: its sample rate in Hz, the first where it changes.
        faults: notes on what is missing; without `accept_cut` the file is refused.
        notes: others.
        warnings: what codecs complained of.
        lone_channel: which channel is heard alone, counted from 0; None for the mean of all.
    """

    seconds: float
    rate: int
    faults: tuple[Note, ...]
    notes: tuple[Note, ...]
    warnings: tuple[str, ...]
    lone_channel: int | None


def survey(path: Path, digest: bool = False) -> tuple[Heard, bytes]:
    """Decode a file to its end, and keep nothing of it but what there is to say.

    Args:
        path: the file.
        digest: whether its SHA-256 is wanted, the second of what is returned; else that is empty.

    Raises:
        DataError: as `load_audio`, but for files that are cut or damaged.
    """
    source = _Source(path, digest)
    hearing = _Hearing((), 0)
    with source.naming_it():
        for block in source.blocks(hearing.facts):
            hearing.take(block)
        return hearing.found(), source.sha256


class _naming:
    """Put a file's name before what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BrokenRead):
            raise UnheardError(self._path, error) from error
        if isinstance(error, DataError) and not isinstance(error, UnheardError):
            raise DataError(f"{self._path} {error}") from error


class _Source:
    """A regular file, which is to be the same one whenever it is read."""

    def __init__(self, path: Path, digest: bool = True) -> None:
        """Raises UnheardError when it cannot be read, DataError when it is empty or no regular file."""
        self._path = path
        self.sha256 = b""
        with self._open() as file:
            self._identity = self._identify(file)
            self.size = self._identity[2]
            if digest:
                try:
                    self.sha256 = hashlib.file_digest(file, "sha256").digest()
                except OSError as error:
                    raise UnheardError(path, error.strerror or error) from error
        if not self.size:
            raise DataError(f"{path} is empty (0 bytes)")

    def naming_it(self) -> _naming:
        return _naming(self._path)

    def blocks(self, facts: Facts) -> Iterator[Block]:
        """As `decode`. Raises UnheardError, too, when it is another file by now, or at the end."""
        with self._open() as file:
            self._check(file)
            try:
                yield from decode(file.fileno(), self.size, facts)
            except DataError:
                self._check(file)
                raise
            self._check(file)

    def _open(self) -> io.FileIO:
        try:
            return open_regular(self._path)
        except OSError as error:
            near = hint(self._path) if isinstance(error, FileNotFoundError) else ""
            missing = error.errno in NOT_THERE
            raise UnheardError(self._path, f"{error.strerror or error}{near}", missing) from error
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise UnheardError(self._path, "it is a link to nothing", missing=True) from error
            raise

    def _check(self, file: io.FileIO) -> None:
        if self._identify(file) != self._identity:
            raise UnheardError(self._path, "it changed while it was read")

    def _identify(self, file: io.FileIO) -> tuple[int, int, int, int]:
        try:
            status = os.fstat(file.fileno())
        except OSError as error:
            raise UnheardError(self._path, error.strerror or error) from error
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class _Again:
    """Decodes a file once more, to one rate."""

    source: _Source
    target: tuple[int, ResamplerName]
    channel: int | None

    def __call__(self) -> Iterator[Wave]:
        stretches, mix = _Stretches(*self.target), _Mixer(self.channel)
        with self.source.naming_it():
            for block in self.source.blocks(Facts()):
                yield from stretches.add(mix(block.samples), block.rate)
            yield stretches.finish()


class _Hearing:
    """Takes a file block by block: what there is to say of it, and the waves as long as it is not too long."""

    def __init__(self, targets: tuple[tuple[int, ResamplerName], ...], held_seconds: float) -> None:
        self.targets, self._held_seconds = targets, held_seconds
        self.facts = Facts()
        self._mix, self._levels = _Mixer(), Levels()
        # (rate, samples): one rate after the other, whatever the channels.
        self._spans: list[tuple[int, int]] = []
        self._so_far = 0.0
        self._resamplers = [_Stretches(*target) for target in targets]
        self._waves: list[_GrowingWave] = []

    def take(self, block: Block) -> None:
        mono = self._mix(block.samples)
        self._levels.add(block.samples, mono)
        if not self._spans:
            room = min(self.facts.expected, self._held_seconds, 86_400)
            self._waves = [_GrowingWave(int(room * target) + 1) for target, _ in self.targets]
        if self._spans and self._spans[-1][0] == block.rate:
            self._spans[-1] = (block.rate, self._spans[-1][1] + len(mono))
        else:
            self._spans.append((block.rate, len(mono)))
        self._so_far += len(mono) / block.rate
        if self._so_far > self._held_seconds:
            self._waves = []
        for wave, stretches in zip(self._waves, self._resamplers, strict=False):
            for part in stretches.add(mono, block.rate):
                wave.append(part)

    @property
    def seconds(self) -> float:
        return sum(samples / rate for rate, samples in self._spans)

    @property
    def lengths(self) -> list[int]:
        """Samples of each target's wave."""
        return [sum(-(-n * target // rate) for rate, n in self._spans) for target, _ in self.targets]

    @property
    def waves(self) -> list[Wave]:
        """Each target's wave; none where the file is too long, or its mean is not what is to be heard."""
        return [] if self._levels.lone_channel is not None else [wave.samples for wave in self._waves]

    def finish(self) -> None:
        """Take the end of the file."""
        for wave, stretches in zip(self._waves, self._resamplers, strict=False):
            wave.append(stretches.finish())

    def found(self) -> Heard:
        """What there is to say. Raises DataError when the file is too short."""
        facts, seconds = self.facts, self.seconds
        faults = _faults(facts, seconds)
        if seconds < MIN_SECONDS and not faults:
            raise DataError(f"is {seconds:.3f} s long; the shortest usable track is {MIN_SECONDS} s")
        if not self._spans:
            raise DataError(f"is {faults[0]}")
        notes = self._levels.notes()
        count, number = facts.streams
        if count > 1:
            notes.append(Note("streams", (count, number)))
        if facts.changes:
            notes.append(Note("changes", (facts.changes,)))
        notes += [Note("rate", (rate,)) for rate in facts.rates[:2] if rate not in _COMMON_RATES]
        return Heard(seconds, self._spans[0][0], faults, tuple(notes), tuple(facts.warnings), self._levels.lone_channel)


def _faults(facts: Facts, seconds: float) -> tuple[Note, ...]:
    """What is missing of a file, where it is more than a frame or two."""
    damaged, cut = facts.damaged, facts.cut
    whole = seconds + damaged + cut
    faults = []
    if damaged + cut > TOLERANCE:
        # What little may be of the one kind goes to the other.
        if cut <= TOLERANCE:
            damaged, cut = damaged + cut, 0.0
        elif damaged <= TOLERANCE:
            damaged = 0.0
        faults += [Note("cut", (seconds, whole))] if cut else []
        faults += [Note("damaged", (damaged, whole))] if damaged else []
    if not facts.ended and not (faults and faults[0].kind == "cut"):
        faults.append(Note("cut", (seconds,)))
    return tuple(faults)


class _Stretches:
    """Resamples one stretch of a file after the other: where its rate changes, a new one begins."""

    def __init__(self, target: int, method: ResamplerName) -> None:
        self._target, self._method = target, method
        self._rate = 0
        self._resample: Resampler | None = None

    def add(self, mono: Wave, rate: int) -> Iterator[Wave]:
        if rate != self._rate:
            if self._resample:
                yield self.finish()
            self._rate, self._resample = rate, Resampler(rate, self._target, self._method)
        assert self._resample
        yield self._resample(mono)

    def finish(self) -> Wave:
        nothing = np.zeros(0, np.float32)
        return self._resample(nothing, last=True) if self._resample else nothing


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


class _Mixer:
    """One channel, or the mean of all [shape=(channels, n) -> (n,)]; valid until the next block is given."""

    def __init__(self, channel: int | None = None) -> None:
        self._channel = channel
        self._mean = np.empty(BLOCK, np.float32)

    def __call__(self, samples: Wave) -> Wave:
        channels = len(samples)
        if self._channel is not None or channels == 1:
            return samples[min(self._channel or 0, channels - 1)]
        if channels == 2:
            mean = np.add(samples[0], samples[1], out=self._mean[: samples.shape[1]])
            mean *= np.float32(0.5)
            return mean
        # A product, because mean takes nine times as long.
        return np.ascontiguousarray(samples.T) @ np.full(channels, 1 / channels, np.float32)
