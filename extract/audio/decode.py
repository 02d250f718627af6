"""Audio files to samples: FFmpeg, through PyAV, reads every form, and reads it to its end.

What a file is comes from its content (`m2e.extract.audio.formats`). Every packet is decoded, through all links of a
chained Ogg file and all changes of rate and channels; encoder delay and padding go where the container tells of them.
What came out is compared with three things: the length that the container promises, the times of the frames, and the
bytes that belong to no good frame. What codecs complain of is collected, file by file, and printed nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

import av
import av.logging
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.packet import Packet
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from m2e.common.errors import DataError
from m2e.extract.audio.formats import DEMUXERS, HEAD_BYTES, looks_like
from m2e.extract.audio.promise import (
    after_tags,
    asf_seconds,
    boxes_end,
    id3_bytes,
    ogg_is_ended,
    ogg_links,
    wave_bytes,
    with_sizes,
)
from m2e.extract.audio.window import Window

Wave = NDArray[np.float32]

BLOCK = 1 << 16  # samples a channel: little enough for the processor's cache
RATES = (4_000, 384_000)
# More channels than any loudspeakers: FFmpeg's own mean of them, so that memory stays bounded.
_MOST_CHANNELS = 8

# Frames between which less time passes than this follow each other: clocks of containers tick in milliseconds.
_GAP = 0.01
# Seconds that the bytes after the last frame would hold, up to which they are no loss: nobody knows all tags.
_MOST_AT_THE_END = 1.0
_MOST_WARNINGS = 50
_CHUNKS_BEHIND = 1 << 16  # bytes
_MOST_CHANGES = 1_000
_MOST_READ_ERRORS = 16
# Frames in such files have no time: FFmpeg counts them. But all bytes belong to frames, or to tags.
_STREAMS_OF_FRAMES = frozenset(["aac", "ac3", "dts", "eac3", "loas", "mlp", "mp3", "truehd"])
# Whose length is told to the sample, while the last frame is filled up; and how much may follow that is no sound.
_EXACT = frozenset(["au", "mov,mp4,m4a,3gp,3g2,mj2", "nistsphere", "wav"])
_MOST_PADDING = 0.1
# FFmpeg counts the end of such files for their length.
_WITHOUT_LENGTH = frozenset(["mpeg", "mpegts"])
# Every frame has a checksum, and a frame that does not fit it is noise.
_CHECKED = frozenset(["ape", "flac", "mlp", "tak", "truehd", "tta", "wavpack"])
_ESTIMATED = "Estimating duration from bitrate"
# Pictures and films, which are not decoded.
_OF_OTHER_STREAMS = re.compile(r"not on whitelist|avformat_find_stream_info|Could not find codec parameters")
_UNSURE = "misdetection possible"
_ENDED_EARLY = "File ended prematurely"
# What FFmpeg says of a chunk that is shorter than its header has it: there these promise no other length.
_INCOMPLETE = "Packet corrupt"
_WITH_SIZED_CHUNKS = frozenset(["iff", "voc"])
_SKIP_MANUAL = Flags2.skip_manual.value
_LESSER = (
    Disposition.comment | Disposition.hearing_impaired | Disposition.visual_impaired | Disposition.descriptions
).value

# A sample format -> its type, what is subtracted, and the full scale.
_FORMATS: dict[str, tuple[str, float, float]] = {
    "u8": ("u1", 128, 1 << 7),
    "s16": ("i2", 0, 1 << 15),
    "s32": ("i4", 0, 1 << 31),
    "s64": ("i8", 0, 1 << 63),
    "flt": ("f4", 0, 1),
    "dbl": ("f8", 0, 1),
}


@dataclass(frozen=True, eq=False)
class Block:
    """Some samples of all channels, -1 to 1 [shape=(channels, n)], and their rate in Hz.

    `samples` is valid until the next block is read.
    """

    samples: Wave
    rate: int


@dataclass
class Facts:
    """What was found out while a file was decoded; complete once the last block is out.

    Attributes:
        seconds: what was decoded.
        damaged: seconds that could not be decoded.
        cut: seconds that should follow, by what the container promises.
        ended: whether the end of the file is an end.
        streams: how many streams of sound there are, and the number of the one that was decoded, from 1 on.
        rates: all sample rates that occur, in Hz.
        changes: how often rate or channels change.
        warnings: what codecs complained of.
        expected: seconds that the container says or guesses there are; known when the first block is out.
    """

    seconds: float = 0.0
    damaged: float = 0.0
    cut: float = 0.0
    ended: bool = True
    streams: tuple[int, int] = (1, 1)
    rates: list[int] = field(default_factory=list)
    changes: int = 0
    warnings: list[str] = field(default_factory=list)
    expected: float = 0.0


class NotAudio(DataError):
    """A file holds no sound that can be read."""


def decode(descriptor: int, size: int, facts: Facts) -> Iterator[Block]:
    """The samples of a file, in blocks of `BLOCK` but where rate or channels change, and at the end.

    Args:
        descriptor: of the open file, which stays open.
        size: of it, in bytes.
        facts: are filled in on the way.

    Raises:
        NotAudio: it is no audio file; the line is to follow its name.
        DataError: it cannot be decoded at all, or has a rate out of bounds.
        BrokenRead: it cannot be read, whatever it holds.
    """
    file = Window(descriptor, 0, size)
    try:
        yield from _decode_all(file, facts)
    except DataError:
        file.check()
        raise
    file.check()


def _decode_all(file: Window, facts: Facts) -> Iterator[Block]:
    links = [file]
    if file.at(0, 4) == b"OggS":
        links = [*ogg_links(file)]
        facts.ended = ogg_is_ended(file)
    kind: tuple[int, int] | None = None
    broken = heard = 0
    for link in links:
        try:
            part = _Part(link, facts.warnings)
        except NotAudio:
            if not heard:
                raise
            if facts.ended or link is not links[-1]:  # else what is cut is cut
                broken += len(link)
            continue
        with contextlib.closing(part):
            facts.expected = facts.expected or part.expected
            while block := part.read():
                if kind != (now := (len(block.samples), block.rate)):
                    facts.changes += kind is not None
                    if facts.changes > _MOST_CHANGES:
                        raise DataError(f"changes its sample rate or channels more than {_MOST_CHANGES} times")
                    facts.rates += [block.rate] if block.rate not in facts.rates else []
                    kind = now
                yield block
            facts.streams = facts.streams if heard else part.streams
            heard += len(link)
            part.settle(facts)
    if broken:
        facts.damaged += facts.seconds * broken / heard


class _Part:
    """A file, or a link of a chained one, while it is decoded."""

    def __init__(self, file: Window, warnings: list[str]) -> None:
        self._file, self._warnings = file, warnings
        self._own_warnings: list[str] = []
        try:
            with self._collecting():
                self._container = self._open()
                self._stream, self.streams = self._choose()
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            _pass_on_memory(error)
            raise self._not_opened() from error
        self._seconds_a_tick = float(self._stream.time_base or 0)
        self._untimed = self._container.format.name in _STREAMS_OF_FRAMES
        self._mixer: av.AudioResampler | None = None
        self._blocks = self._collect()
        self._shortened: int | None = None  # samples of the last frame that count
        # What is counted on the way.
        self._seconds = self._gaps = 0.0
        self._next_time: float | None = None
        self._packets = self._good_bytes = self._lost_bytes = 0
        # Of a stream of frames: bytes since the last good one; where packets begin, and where they end; the last tag.
        self._loose_bytes = self._begin = self._end = self._tag_end = 0

    @property
    def expected(self) -> float:
        """Seconds that the container says or guesses there are; 0 for none."""
        return float(self._container.duration or 0) / av.time_base

    def close(self) -> None:
        """Let the file go."""
        with self._collecting():
            self._container.close()

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[None]:
        """Take what FFmpeg says in this thread, in the block: nothing of it reaches standard error."""
        _listen()
        with av.logging.Capture() as lines:
            try:
                yield
            finally:
                for _, name, text in lines:
                    line = f"{name}: {text.strip()}" if name else text.strip()
                    if _OF_OTHER_STREAMS.search(line):
                        continue
                    for kept in (self._own_warnings, *([] if _ESTIMATED in line else [self._warnings])):
                        if len(kept) < _MOST_WARNINGS and line not in kept:
                            kept.append(line)

    def _open(self) -> Any:
        options = {"format_whitelist": ",".join(DEMUXERS), "codec_whitelist": _audio_codecs()}
        file = with_sizes(self._file)
        there, promised = wave_bytes(self._file) or (0, None)
        if promised == 0:
            raise NotAudio("holds no sound")
        if promised is not None:
            # What follows the sound is of no interest, and FFmpeg would walk through it, chunk by chunk.
            file = file.part(0, min(len(file), len(file) - there + promised + _CHUNKS_BEHIND))
            if promised >= 1 << 32 and file.at(0, 4) == b"RIFF":
                options["ignore_length"] = "1"
        return av.open(file, "r", container_options=options, metadata_errors="replace", io_open=_refuse)

    def _not_opened(self) -> NotAudio:
        head = self._file.at(0, HEAD_BYTES)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip") and not boxes_end(self._file):
            return NotAudio("is cut: its index, which stands at the end, is missing")
        if likeness := looks_like(head):
            return NotAudio(f"is no audio file (it looks like {likeness})")
        if not self._own_warnings or any(_UNSURE in line for line in self._own_warnings):
            return NotAudio("is no audio file (its content has no form that is known)")
        return NotAudio(f"cannot be decoded (FFmpeg: {self._own_warnings[-1]})")

    def _choose(self) -> tuple[AudioStream, tuple[int, int]]:
        """The stream to decode, the default one; and how many there are, and its number."""
        found = list(self._container.streams.audio)
        known = [stream for stream in found if stream.codec_context is not None]
        if not known:
            self._container.close()
            raise NotAudio("holds sound of a codec that is not known" if found else "holds no sound")

        def rank(stream: AudioStream) -> tuple[bool, bool]:
            disposition = int(stream.disposition)
            return bool(disposition & Disposition.default.value), not disposition & _LESSER

        chosen = max(known, key=rank)  # the first of equals
        for stream in self._container.streams:
            if stream is not chosen:
                stream.discard = Discard.all
        codec = chosen.codec_context
        codec.thread_count = 1  # processes use the cores; and what a codec says is said in this thread
        if codec.name in _CHECKED:
            codec.options = {"err_detect": "crccheck+explode"}
        if codec.name == "alac" and self._container.format.name == "caf":
            codec.flags2 |= _SKIP_MANUAL  # or the end of its last frame, which knows its own length, is taken off twice
        return chosen, (len(found), found.index(chosen) + 1)

    def read(self) -> Block | None:
        """The next block; None at the end."""
        with self._collecting():
            return next(self._blocks, None)

    def _collect(self) -> Iterator[Block]:
        """Frames put together; in local variables, since there are thousands of frames."""
        kind, filled = (0, 0), 0
        gather = _Gatherer(1)
        frames = self._without_padding() if self._container.format.name in _EXACT else self._decode()
        for frame in frames:
            channels, rate = frame.layout.nb_channels, frame.sample_rate
            if channels > _MOST_CHANNELS:
                frame, channels = self._mixed(frame, channels), 1
            if kind != (channels, rate):
                if filled:
                    yield self._block(gather, filled, kind[1])
                kind, filled = (channels, rate), 0
                if not RATES[0] <= kind[1] <= RATES[1]:
                    raise DataError(f"has a sample rate of {kind[1]:,} Hz: {RATES[0]:,} to {RATES[1]:,} Hz are read")
                gather = _Gatherer(kind[0])
            samples = frame.samples if self._shortened is None else self._shortened
            if filled + samples < BLOCK:
                gather(frame, 0, samples, filled)
                filled += samples
                continue
            offset = 0
            while offset < samples:
                n = min(samples - offset, BLOCK - filled)
                gather(frame, offset, n, filled)
                offset, filled = offset + n, filled + n
                if filled == BLOCK:
                    yield self._block(gather, filled, kind[1])
                    filled = 0
        if filled:
            yield self._block(gather, filled, kind[1])

    def _without_padding(self) -> Iterator[AudioFrame]:
        """All frames up to where the container says that the stream ends, which may be in the middle of one.

        Where many follow, it is wrong, and they count.
        """
        stream = self._stream
        end = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else math.inf
        seconds = 0.0
        beyond: list[AudioFrame] = []
        frames = self._decode()
        for frame in frames:
            before, seconds = seconds, seconds + frame.samples / max(frame.sample_rate, 1)
            if seconds <= end:
                yield frame
                continue
            if not beyond:
                self._shortened = round((end - before) * frame.sample_rate)
            beyond.append(frame)
            if seconds > end + _MOST_PADDING:
                self._shortened = None
                yield from beyond
                yield from frames
                return
        if beyond and self._shortened:
            yield beyond[0]

    def _block(self, gather: _Gatherer, n: int, rate: int) -> Block:
        self._seconds += n / rate
        return Block(gather.samples[:, :n], rate)

    def _decode(self) -> Iterator[AudioFrame]:
        """All frames, in the order of the file. Thousands of them: what is done to each counts."""
        decode = self._stream.codec_context.decode
        for packet in self._demux():
            size = packet.size
            position = self._pass_by(packet, size) if size and self._untimed else 0
            try:
                frames = decode(packet)
            except (av.FFmpegError, ValueError) as error:
                _pass_on_memory(error)
                self._lose(position, size)
                continue
            if frames:
                self._good_bytes += size
                if self._loose_bytes:
                    self._lost_bytes += self._loose_bytes
                    self._loose_bytes = 0
            elif size and self._packets > 2:  # the first may only prepare the decoder
                self._lose(position, size)
            self._packets += bool(size)
            for frame in frames:
                if not self._untimed:
                    self._look_for_gap(frame)
                yield frame

    def _demux(self) -> Iterator[Packet[AudioStream]]:
        for _ in range(_MOST_READ_ERRORS):
            try:
                yield from self._container.demux(self._stream)
            except (av.FFmpegError, OSError, ValueError) as error:
                _pass_on_memory(error)
            else:
                return

    def _pass_by(self, packet: Packet[AudioStream], size: int) -> int:
        """Where a packet begins; what was skipped before it is lost."""
        position = self._end if packet.pos is None else packet.pos
        if not self._packets:
            self._begin = position
        elif position > self._end:
            self._lose(self._end, position - self._end)
        self._end = position + size
        return position

    def _look_for_gap(self, frame: AudioFrame) -> None:
        time = self._next_time if frame.pts is None else frame.pts * self._seconds_a_tick
        if time is not None:
            if self._next_time is not None and time > self._next_time + _GAP:
                self._gaps += time - self._next_time
            self._next_time = time + frame.samples / max(frame.sample_rate, 1)

    def _mixed(self, frame: AudioFrame, channels: int) -> AudioFrame:
        """The mean of all channels."""
        if self._mixer is None:
            self._mixer = av.AudioResampler(format="flt")
        packed = self._mixer.resample(frame)[0]
        samples = np.frombuffer(memoryview(packed.planes[0]), np.float32, frame.samples * channels)
        mean = samples.reshape(-1, channels) @ np.full(channels, 1 / channels, np.float32)
        mixed = AudioFrame.from_ndarray(mean[None], format="fltp", layout="mono")
        mixed.rate = frame.rate
        return mixed

    def _lose(self, position: int, size: int) -> None:
        """Count bytes that gave no sound, but for tags, which stand between frames where files were joined."""
        self._tag_end = after_tags(self._file, max(position, self._tag_end))
        self._loose_bytes += max(0, min(size, position + size - self._tag_end))

    def settle(self, facts: Facts) -> None:
        """Compare what was decoded with what there should be, and add it to the facts.

        Raises:
            NotAudio: most of it was no sound.
        """
        form = self._container.format.name
        if form == "aac":  # whose packets have wrong places once something was skipped
            self._lost_bytes += max(0, len(self._file) - self._end - id3_bytes(self._file, self._begin))
        else:
            self._lose(self._end, len(self._file) - self._end)
        if self._loose_bytes * self._seconds > _MOST_AT_THE_END * self._good_bytes:
            self._lost_bytes += self._loose_bytes
        if not self._seconds or (self._untimed and self._lost_bytes > self._good_bytes):
            likeness = looks_like(self._file.at(0, HEAD_BYTES))
            raise NotAudio(
                f"is no audio file (it {f'looks like {likeness}' if likeness else 'holds hardly any sound'})"
            )
        damaged = self._seconds * self._lost_bytes / self._good_bytes if self._untimed else self._gaps
        cut = 0.0
        promised = self._promised_seconds()
        if promised is not None:
            lacking = max(0.0, promised - self._seconds)
            damaged = min(damaged, lacking)
            cut = lacking - damaged
        facts.seconds += self._seconds
        facts.damaged += damaged
        facts.cut += cut
        early = _INCOMPLETE if form in _WITH_SIZED_CHUNKS else _ENDED_EARLY
        if any(early in line for line in self._own_warnings):
            facts.ended = False
        if form.startswith("mov") and not boxes_end(self._file):
            facts.ended = False

    def _promised_seconds(self) -> float | None:
        """How long the container says that the stream is; None where it does not know."""
        form, container, stream = self._container.format.name, self._container, self._stream
        if (extent := wave_bytes(self._file)) is not None:
            there, promised = extent
            if promised is None:
                return None
            if promised > there:
                return self._seconds * promised / max(there, 1)
        others = [
            other
            for other in container.streams
            if other is not stream and other.type in ("audio", "video") and not _is_picture(other)
        ]
        # In FLV a second one is what damage makes of the first.
        alone = not others or (form == "flv" and all(other.type == "audio" for other in others))
        if form == "asf":
            return asf_seconds(self._file) if alone else None
        if form == "avi" and stream.frames and stream.time_base:  # its duration is made of the chunks that are there
            return float(stream.frames * stream.time_base)
        if form in ("aiff", "caf") and stream.frames:
            rate = stream.codec_context.sample_rate
            return stream.frames / rate if rate else None
        if form == "voc" and container.duration:  # counted from its size, in which headers of blocks are a hundredth
            return 0.99 * container.duration / av.time_base
        if form in _WITHOUT_LENGTH or any(_ESTIMATED in line for line in self._own_warnings):
            return None
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        # Matroska counts from the film's beginning, before which there may be no sound.
        start = float((stream.start_time or 0) * (stream.time_base or 0)) if form.startswith("matroska") else 0.0
        if tagged := _clock(stream.metadata.get("DURATION", "")):
            return tagged - max(0.0, start)
        return container.duration / av.time_base - max(0.0, start) if alone and container.duration else None


class _Gatherer:
    """Samples of frames as float, each to its place in a block."""

    def __init__(self, channels: int) -> None:
        self.samples = np.empty((channels, BLOCK), np.float32)
        self._rows = list(self.samples)
        self._views = [row.data.cast("B") for row in self._rows]

    def __call__(self, frame: AudioFrame, offset: int, n: int, place: int) -> None:
        """Take `n` samples from `offset` on, to `place`."""
        name, planes = frame.format.name, frame.planes
        if name == "fltp":  # what most codecs give; numpy would take twice the time
            first, last, start, end = 4 * offset, 4 * (offset + n), 4 * place, 4 * (place + n)
            for view, plane in zip(self._views, planes):  # noqa: B905 - behind the last plane may stand anything
                view[start:end] = memoryview(plane)[first:last]
            return
        kind, centre, scale = _FORMATS[name.removesuffix("p")]
        channels = len(self._rows)
        for channel, row in enumerate(self._rows):
            if frame.format.is_planar:
                samples = np.frombuffer(memoryview(planes[channel]), kind, frame.samples)
            else:
                samples = np.frombuffer(memoryview(planes[0]), kind, frame.samples * channels)[channel::channels]
            samples = samples[offset : offset + n]
            if centre:
                samples = samples - np.float32(centre)
            with np.errstate(over="ignore", invalid="ignore"):  # what float files hold is looked at later
                np.multiply(samples, 1 / scale, out=row[place : place + n], casting="same_kind")


def _is_picture(stream: Any) -> bool:
    return bool(int(stream.disposition) & Disposition.attached_pic.value)


def _clock(text: str) -> float | None:
    """Seconds of hours:minutes:seconds, as Matroska's tags have it."""
    parts = text.split(":")
    try:
        return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    except ValueError:
        return None


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("it names another file, which is not opened")


def _pass_on_memory(error: Exception) -> None:
    if isinstance(error, MemoryError):
        raise MemoryError("decoding takes more memory than there is") from error


@lru_cache(maxsize=1)
def _audio_codecs() -> str:
    """For FFmpeg's look at the beginning of a file: pictures and films in it are not decoded."""
    names = []
    for name in sorted(av.codecs_available):
        with contextlib.suppress(ValueError, LookupError):
            codec = av.Codec(name, "r")
            names += [codec.name] if codec.type == "audio" else []
    return ",".join(dict.fromkeys(names))


@lru_cache(maxsize=1)
def _listen() -> None:
    """Have FFmpeg's warnings go to PyAV, which gives them to whoever collects in that thread."""
    if (av.logging.get_level() or 0) < av.logging.WARNING:
        av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    # What nobody collects goes to Python's logging: without a handler that would end on standard error.
    logging.getLogger("libav").addHandler(logging.NullHandler())
