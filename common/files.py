"""Files that appear whole or not at all.

A cache file is never opened for append: its bytes are built in memory, written under a temporary name, synced and
renamed, and the folder is synced. h5py on a full disk can crash the process; this way cannot.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from m2e.common.errors import DataError
from m2e.common.flock import try_lock
from m2e.common.regular import open_regular

# Between making a file and locking it lies a moment; a folder has this name until it is locked.
_YOUNG_SECONDS = 10.0
_UNLOCKED = ".new"
# The whole of a name of ours: whatever else looks like a temporary is somebody's.
_TEMPORARY = re.compile(rf"\.tmp-m2e-[\w.-]+-\d+-[0-9a-f]{{12}}(?:{re.escape(_UNLOCKED)})?", re.ASCII)
_STALE_SECONDS = 24 * 3600.0
# Says that what an export writes into its folder, an export wrote.
EXPORT_MARK = ".m2e-export"
# What file systems say that cannot reserve space, or cannot sync a folder; neither is a failure of the disk.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def write_atomically(path: Path, content: bytes, modified: int | None = None) -> None:
    """Write `content` to `path` so that a reader, a kill or a power cut sees the old file or the new, never a part.

    It is durable when this returns: reserved, written, fsync, rename, fsync of the folder.

    Args:
        path: the file.
        content: what it is to hold.
        modified: when it is to have been modified, in nanoseconds as `st_mtime_ns` has them; None: now.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    temporary = path.parent / temporary_name()
    try:
        _make_folder(path.parent)
        try:
            _write(temporary, content, modified)
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
    """A new name that says, to people, which process on which host it belongs to."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII) or "_"
    return f".tmp-m2e-{host}-{os.getpid()}-{secrets.token_hex(6)}"


def _write(path: Path, content: bytes, modified: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try_lock(descriptor)
        if content and hasattr(os, "posix_fallocate"):
            with _tolerating(*_UNSUPPORTED):
                os.posix_fallocate(descriptor, 0, len(content))
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if modified is not None:
            os.utime(descriptor, ns=(modified, modified))
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


def check_export(folder: Path, names: Iterable[str]) -> None:
    """Whether files of these names can be written into a folder without replacing anybody's: none of them is there, or
    `mark_export` has marked the folder.

    Raises:
        DataError: one is there, and nothing says that it is an export's.
    """
    if os.path.lexists(folder / EXPORT_MARK):
        return
    for name in names:
        if os.path.lexists(folder / name):
            raise DataError(f"{folder / name} is there already, and not marked as an export: choose another folder")


def mark_export(folder: Path, names: Iterable[str]) -> None:
    """Make a folder for an export of files of these names, and mark it, so that an export may be written there again.

    Raises:
        DataError: see `check_export`; nothing is written then.
        OSError: the folder cannot be made or written.
    """
    check_export(folder, names)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPORT_MARK).touch()


class _tolerating(contextlib.AbstractContextManager[None]):
    """Let these errno values pass."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in self._numbers


@contextlib.contextmanager
def temporary_folder(base: Path, mode: int = 0o700) -> Iterator[Path]:
    """A new folder, its owner's alone, gone after the block; what killed processes left in `base` goes, too.

    Raises:
        DataError: it cannot be made.
    """
    remove_stale_temporaries(base)
    folder = base / temporary_name()
    unlocked = folder.with_name(folder.name + _UNLOCKED)
    try:
        unlocked.mkdir(mode=mode)
        descriptor = os.open(unlocked, os.O_RDONLY)
        try_lock(descriptor)
        unlocked.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write to {base}: {error.strerror}") from error
    try:
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_temporaries(folder: Path) -> None:
    """Delete the files and folders that killed processes left: those that have a name of ours and that nobody has
    locked. Links are left alone, and so is what an earlier m2e called ``.tmp-<host>-<process>-<hex>``."""
    for path in folder.glob(".tmp-m2e-*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                _remove_if_left(path)


def unsure_temporaries(folder: Path) -> list[Path]:
    """What looks like a temporary and has no name of ours: an earlier m2e's, or anybody's."""
    return [path for path in folder.glob(".tmp-*") if not _TEMPORARY.fullmatch(path.name)]


def _remove_if_left(path: Path) -> None:
    is_folder = stat.S_ISDIR(path.lstat().st_mode)
    # Some file systems lock only what is open for writing.
    way = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_WRONLY
    descriptor = os.open(path, way | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        locked, status = try_lock(descriptor), os.fstat(descriptor)
        least = 0.0 if is_folder else _YOUNG_SECONDS
        if locked is None or path.name.endswith(_UNLOCKED):
            least = _STALE_SECONDS
        if locked is False or time.time() - status.st_mtime < least or not os.path.samestat(status, path.lstat()):
            return
        if is_folder:
            shutil.rmtree(path)
        elif stat.S_ISREG(status.st_mode):
            path.unlink()
    finally:
        os.close(descriptor)


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
