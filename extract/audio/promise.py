"""What containers say of their own length and structure, where FFmpeg does not pass it on: to find files that were cut.

Each reader gets the first bytes of a form that FFmpeg has recognised, and believes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from m2e.extract.audio.window import Window

# More than any real file has, and little enough to walk through.
_MOST_CHUNKS = 1_000
_MOST_BOXES = 500_000
_MOST_LINKS = 10_000

_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
_UNKNOWN = b"\xff\xff\xff\xff"
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ID3 = re.compile(rb"ID3[\x02-\x04]\0[\0-\xff]([\0-\x7f]{4})", re.DOTALL)
_OGG_PAGE = b"OggS\0"
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255
# The first page of a stream: its flag, no samples yet, page number 0.
_OGG_FIRST = re.compile(rb"OggS\0[\x02\x06]\0{8}.{4}\0{4}", re.DOTALL)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Chunk:
    """Of a file that consists of chunks: where its size stands and its content begins, and its bytes by that size."""

    name: bytes
    size_at: int
    start: int
    size: int


@dataclass(frozen=True)
class _Chunks:
    """How chunks follow each other: where the first begins, the bytes of names and sizes, and how they are aligned.

    `own`: a size counts the chunk's own header.
    """

    first: int
    order: Literal["big", "little"]
    name_bytes: int = 4
    size_bytes: int = 4
    align: int = 2
    own: bool = False

    def of(self, file: Window) -> Iterator[_Chunk]:
        start, header = self.first, self.name_bytes + self.size_bytes
        for _ in range(_MOST_CHUNKS):
            head = file.at(start, header)
            if len(head) < header:
                return
            size = int.from_bytes(head[self.name_bytes :], self.order) - (header if self.own else 0)
            yield _Chunk(head[: self.name_bytes], start + self.name_bytes, start + header, size)
            if size < 0:
                return
            start += header + size + -size % self.align

    def end_with(self, file: Window) -> bool:
        """Whether the last one ends where the file does, as where a program was done with it."""
        ends = [chunk.start + chunk.size for chunk in self.of(file)]
        return bool(ends) and ends[-1] <= len(file) <= ends[-1] + -ends[-1] % self.align


def _wave_chunks(file: Window) -> _Chunks | None:
    head = file.at(0, 16)
    if head == _W64_RIFF:
        return _Chunks(40, "little", 16, 8, 8, own=True)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _Chunks(12, "big" if head[:4] == b"RIFX" else "little")
    return None


def wave_bytes(file: Window) -> tuple[int, int | None] | None:
    """Of RIFF WAVE, RF64 and Wave64: the bytes of sound that are there, and that the header promises, if it does.

    A recorder that crashed leaves 0, a pipe the largest number or one just below; and in 32 bits 5 GB are 1 GB.
    """
    chunks = _wave_chunks(file)
    promised_64 = 0
    for chunk in chunks.of(file) if chunks else ():
        if chunk.name in (b"data", _W64_DATA):
            there, size = len(file) - chunk.start, promised_64 or chunk.size
            if chunk.name == _W64_DATA or promised_64:
                return there, size if 0 < size < 1 << 62 else None
            if not size:
                return there, 0 if chunks and chunks.end_with(file) else None
            if _is_unknown(size) and size >= there:
                return there, None
            return there, size + (max(0, there - size) >> 32 << 32)
        if chunk.name == b"ds64":
            promised_64 = int.from_bytes(file.at(chunk.start + 8, 8), "little")
    return None


def _is_unknown(size: int) -> bool:
    return size == 0 or 0x7FFF_0000 <= size <= 0x8000_0000 or size >= 0xFFFF_0000


def with_sizes(file: Window) -> Window:
    """The same file, whose header has sizes where a pipe, or a recorder that crashed, has left none.

    FFmpeg does not read these without: RF64, Wave64, AIFF and AU. In a RIFF WAVE it can go without.
    """
    head = file.at(0, 16)
    if head[:4] == b".snd" and _is_unknown(int.from_bytes(head[8:12], "big")):
        return file.corrected((8, _UNKNOWN))
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        chunks = _Chunks(12, "big")
        for chunk in chunks.of(file):
            if chunk.name == b"SSND" and (_is_unknown(chunk.size) or chunk.size <= 8) and not chunks.end_with(file):
                return file.corrected((4, (len(file) - 8).to_bytes(8, "big")[4:]), (chunk.size_at, _UNKNOWN))
        return file
    extent, wave_chunks = wave_bytes(file), _wave_chunks(file)
    if not wave_chunks or extent is None or extent[1] is not None:
        return file
    size = extent[0].to_bytes(8, "little")
    for chunk in wave_chunks.of(file):
        if chunk.name == b"ds64":
            return file.corrected((chunk.start + 8, size))
        if chunk.name == _W64_DATA:
            whole = len(file).to_bytes(8, "little")
            return file.corrected((16, whole), (chunk.size_at, (extent[0] + 24).to_bytes(8, "little")))
    return file


def asf_seconds(file: Window) -> float | None:
    """How long an ASF (wma, wmv) file says it is; None for a broadcast, which does not know."""
    head = file.at(0, 1 << 16)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        return None
    play, preroll, flags = (
        int.from_bytes(head[at + offset : at + offset + size], "little") for offset, size in ((64, 8), (80, 8), (88, 4))
    )
    return None if flags & 1 else play / 1e7 - preroll / 1e3


def boxes_end(file: Window) -> bool:
    """Whether the boxes of an MP4 or QuickTime file follow each other up to its end.

    What stands behind the last box is nobody's loss, but in a fragmented file, where there is no index of all.
    """
    at = 0
    fragmented = False
    for _ in range(_MOST_BOXES):
        header = file.at(at, 16)
        size, name = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        elif size == 0 and re.match(rb"[a-z]", name):
            return True  # the last one, up to the end
        if size < 8 or not re.fullmatch(rb"[\x20-\x7e\xa9]{4}", name):
            return not fragmented or _only_zeros(file, at)
        fragmented |= name == b"moof"
        at += size
        if at >= len(file):
            return at == len(file)
    return True


def _only_zeros(file: Window, start: int) -> bool:
    return not any(any(file.at(at, _BLOCK)) for at in range(start, len(file), _BLOCK))


def after_tags(file: Window, position: int) -> int:
    """Where the tags that begin at `position` end: ID3, APE, Lyrics3. `position` itself where there are none."""
    for _ in range(_MOST_CHUNKS):
        head = file.at(position, 16)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            position += size + (20 if head[5] & 16 else 10)
        elif head[:8] == b"APETAGEX" and len(head) == 16:
            position += 32 + int.from_bytes(head[12:], "little")
        elif head[:3] == b"TAG":
            position += 128
        elif head[:11] == b"LYRICSBEGIN":
            text = file.at(position, 1 << 16)
            end = max(text.find(b"LYRICS200"), text.find(b"LYRICSEND"))
            if end < 0:
                return position
            position += end + 9
        else:
            return position
    return position


def id3_bytes(file: Window, start: int) -> int:
    """What ID3 tags from `start` on take: streams that were joined, such as those of HLS, have one in every piece."""
    found = 0
    for at in range(start, len(file), _BLOCK):
        # A tag that begins in one block may end in the next.
        for match in _ID3.finditer(file.at(at, _BLOCK + 9)):
            found += 10 + sum((byte & 127) << shift for byte, shift in zip(match[1], (21, 14, 7, 0), strict=True))
    return found


def ogg_links(file: Window) -> Iterator[Window]:
    """The links of an Ogg file, each of which is a file of its own: Icecast begins a new one with every song.

    At most 10,000; the last one then has the rest.
    """
    starts = [0]
    group_ends = 0
    overlap = b""
    for at in range(0, len(file), _BLOCK):
        block = overlap + file.at(at, _BLOCK)
        for match in _OGG_FIRST.finditer(block):
            start = at - len(overlap) + match.start()
            if start > group_ends and len(starts) < _MOST_LINKS:
                starts.append(start)
            if start >= group_ends:  # streams that sound together begin one after the other
                group_ends = start + _page_bytes(file, start)
        overlap = block[-(_OGG_FIRST_BYTES - 1) :]
    for start, end in zip(starts, [*starts[1:], len(file)], strict=True):
        yield file.part(start, end)


_OGG_FIRST_BYTES = 22


def ogg_is_ended(file: Window) -> bool:
    """Whether the last page of an Ogg file is whole, and bears the mark of the end."""
    start = max(0, len(file) - _LARGEST_OGG_PAGE)
    tail = file.at(start, _LARGEST_OGG_PAGE)
    last = tail.rfind(_OGG_PAGE)
    return (
        last >= 0
        and bool(tail[last + 5 : last + 6] and tail[last + 5] & 4)
        and (start + last + _page_bytes(file, start + last) <= len(file))
    )


def _page_bytes(file: Window, start: int) -> int:
    header = file.at(start, 27 + 255)
    segments = header[26] if len(header) > 26 else 0
    return 27 + segments + sum(header[27 : 27 + segments])
