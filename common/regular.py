"""Files from outside, opened without waiting and looked at before they are believed: regular ones, of a bounded size.

What lies under a name may be a pipe that nobody writes to, or a device without an end, and may change between a look
and the opening. So it is opened first, and what was opened is looked at. Links are followed: where a file is kept is
its owner's business.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from m2e.common.errors import DataError

# Names that a system lacks stand for nothing there.
_UNASKED = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path, most_bytes: int | None = None) -> io.FileIO:
    """A regular file, open for reading and unbuffered.

    Args:
        path: of the file, or of a link to it.
        most_bytes: a larger file is refused.

    Raises:
        OSError: as open().
        DataError: it is a pipe, a device, a socket or a folder, a link to nothing, or too large.
    """
    return _looked_at(path, os.O_RDONLY, most_bytes)


def append_regular(path: Path) -> io.FileIO:
    """A regular file, made where there is none, open for writing at its end, unbuffered; raises as `open_regular`."""
    return _looked_at(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, None)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """All of a regular file; raises as `open_regular`."""
    with io.BufferedReader(open_regular(path, most_bytes)) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def _looked_at(path: Path, flags: int, most_bytes: int | None) -> io.FileIO:
    try:
        descriptor = os.open(path, flags | _UNASKED, 0o666)
    except FileNotFoundError as error:
        if path.is_symlink():  # not gone, as what a packer replaces
            raise DataError(f"{path} is a link to {path.readlink()}, which is not there") from error
        raise
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise _refused(path, path.stat().st_mode) from error  # a socket; to write, a pipe that nobody reads
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, status.st_mode)
        if most_bytes is not None and status.st_size > most_bytes:
            raise DataError(f"{path} has {status.st_size:,} bytes, and no such file has over {most_bytes:,}")
        return io.FileIO(os.fspath(path), "ab" if flags & os.O_APPEND else "rb", opener=lambda name, mode: descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _refused(path: Path, mode: int) -> DataError:
    kind = next((name for test, name in _KINDS if test(mode)), "something else")
    return DataError(f"{path} is {kind}, not a regular file: move it away")
