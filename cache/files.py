"""Files that appear whole or not at all.

A cache file is never opened for append: its bytes are built in memory, written under a temporary name, synced and
renamed, and the folder is synced. h5py on a full disk can crash the process; this way cannot.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.cache.regular import open_regular

_TEMPORARY = ".tmp-"
_STALE_SECONDS = 24 * 3600.0
# What file systems say that cannot reserve space, or cannot sync a folder; neither is a failure of the disk.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader, a kill or a power cut sees the old file or the new, never a part.

    It is durable when this returns: reserved, written, fsync, rename, fsync of the folder.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    temporary = path.parent / temporary_name()
    try:
        _make_folder(path.parent)
        try:
            _write(temporary, content)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. What was committed before is safe; "
            "make room or permit writing there, then run the same command again"
        ) from error


def temporary_name() -> str:
    """A new name that says which process on which host it belongs to, for `remove_stale_temporaries`."""
    return f"{_TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if content and hasattr(os, "posix_fallocate"):
            with _tolerating(*_UNSUPPORTED):
                os.posix_fallocate(descriptor, 0, len(content))
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with _tolerating(*_UNSUPPORTED):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _tolerating(contextlib.AbstractContextManager[None]):
    """Let these errno values pass."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in self._numbers


def remove_stale_temporaries(folder: Path) -> None:
    """Delete the files and folders that killed processes of this host left, and any that are a day old."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        host, _, process = path.name.removeprefix(_TEMPORARY).rpartition("-")[0].rpartition("-")
        with contextlib.suppress(OSError, ValueError):
            if is_dead(host, int(process)) or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_dead(host: str, process: int) -> bool:
    """Whether a process is known to have ended: it was on this host and is no more."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def content_digest(content: bytes) -> str:
    """What feature files are named by: BLAKE2b of all bytes, 12 hex digits."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def is_intact(path: Path) -> bool:
    """Whether a file still has the digest in its name, KIND-<digest>.SUFFIX; reads the whole file.

    Raises:
        OSError: it cannot be read.
        DataError: it is no regular file.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=6)).hexdigest()
    return path.stem.partition("-")[2] == digest
