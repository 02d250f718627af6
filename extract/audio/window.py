"""Bytes of an open file, as a file that FFmpeg reads: without a name, and with no way to any other file."""

from __future__ import annotations

import errno
import os


class BrokenRead(Exception):
    """The disk, or a network, failed. No OSError: FFmpeg's are such, and say something about the content."""


class Window:
    """The bytes from `start` to `end` of the file behind `descriptor`, which stays the caller's.

    `corrections`: positions in the window, and what stands there instead. `broken` takes in what could not be read, of
    all parts together.
    """

    def __init__(
        self,
        descriptor: int,
        start: int,
        end: int,
        corrections: tuple[tuple[int, bytes], ...] = (),
        broken: list[BrokenRead] | None = None,
    ) -> None:
        self._descriptor, self._start, self._end, self._corrections = descriptor, start, end, corrections
        self._position = 0
        self._broken: list[BrokenRead] = [] if broken is None else broken

    def __len__(self) -> int:
        return self._end - self._start

    def part(self, start: int, end: int) -> Window:
        """The bytes from `start` to `end` of these."""
        corrections = tuple((place - start, content) for place, content in self._corrections)
        return Window(self._descriptor, self._start + start, self._start + end, corrections, self._broken)

    def corrected(self, *corrections: tuple[int, bytes]) -> Window:
        """These bytes, but for others at some positions."""
        together = (*self._corrections, *corrections)
        return Window(self._descriptor, self._start, self._end, together, self._broken)

    def at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position` on. Raises BrokenRead."""
        try:
            data = os.pread(self._descriptor, max(0, min(size, len(self) - position)), self._start + position)
        except OSError as error:
            self._broken.append(BrokenRead(error.strerror or str(error)))
            raise self._broken[-1] from error
        for place, content in self._corrections:
            first, last = max(0, place - position), min(len(data), place - position + len(content))
            if first < last:
                data = data[:first] + content[first + position - place : last + position - place] + data[last:]
        return data

    def check(self) -> None:
        """Raise BrokenRead where anything could not be read: FFmpeg may have taken that for the end."""
        if self._broken:
            raise self._broken[0]

    def read(self, size: int) -> bytes:
        """The next bytes, up to `size`; none at the end."""
        data = self.at(self._position, size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position; a negative errno, as FFmpeg expects it, where there is no such."""
        position = offset + (0, self._position, len(self))[whence]
        if position < 0:
            return -errno.EINVAL
        self._position = position
        return position

    def tell(self) -> int:
        """Where `read` goes on."""
        return self._position
