"""Bytes of an open file, as a file that FFmpeg reads: without a name, and with no way to any other file."""

from __future__ import annotations

import errno
import os


class BrokenRead(Exception):
    """The disk, or a network, failed. No OSError: FFmpeg's are such, and say something about the content."""


class Window:
    """The bytes from `start` to `end` of the file behind `descriptor`, which stays the caller's."""

    def __init__(self, descriptor: int, start: int, end: int, broken: list[BrokenRead] | None = None) -> None:
        """`broken` takes in what could not be read, of all parts together."""
        self._descriptor, self._start, self._end = descriptor, start, end
        self._position = 0
        self._broken: list[BrokenRead] = [] if broken is None else broken

    def __len__(self) -> int:
        return self._end - self._start

    def part(self, start: int, end: int) -> Window:
        """The bytes from `start` to `end` of these."""
        return Window(self._descriptor, self._start + start, self._start + end, self._broken)

    def at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position` on. Raises BrokenRead."""
        try:
            return os.pread(self._descriptor, max(0, min(size, len(self) - position)), self._start + position)
        except OSError as error:
            self._broken.append(BrokenRead(error.strerror or str(error)))
            raise self._broken[-1] from error

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
