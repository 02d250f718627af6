"""One at a time: what replaces files of a cache holds its pack.lock. Readers and writers of new files need no lock."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.cache.files import is_dead, temporary_name
from m2e.cache.regular import read_regular

LOCK_FILE = "pack.lock"
_MOST_BYTES = 4096
# A lock without an owner is being written, or its owner was killed before it wrote its name.
_NAMELESS_SECONDS = 10.0


@contextlib.contextmanager
def pack_lock(folder: Path, break_lock: bool = False) -> Iterator[None]:
    """Hold pack.lock of a data set's cache folder while its files are packed, forgotten, merged or relabelled.

    A lock whose process is dead, on this host, is taken over.

    Args:
        folder: the data set's folder, such as ``features/deam``.
        break_lock: take the lock whoever holds it.

    Raises:
        DataError: another process holds it, or the folder cannot be written.
    """
    path = folder / LOCK_FILE
    mine = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}\n"
    while not _take(path, mine):
        owner = _read(path)
        if owner is None:
            continue  # it was let go just now
        if not break_lock and not _is_stale(path, owner):
            host, _, process = owner.rpartition(" ")[0].partition(" ")
            by = f"process {process} on {host}" if process else "a process that has just begun"
            raise DataError(
                f"{folder} is being packed, merged or relabelled by {by}: wait, or where that is dead run again with "
                f"--break-lock (the lock is {path})"
            )
        break_lock = False
        _take_away(path, owner)
    try:
        yield
    finally:
        if _read(path) == mine:
            _remove(path)


def _take(path: Path, mine: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    try:
        os.write(descriptor, mine.encode())
    except OSError as error:
        path.unlink()
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return True


def _read(path: Path) -> str | None:
    try:
        return read_regular(path, _MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _is_stale(path: Path, owner: str) -> bool:
    try:
        host, process, _ = owner.split()
        return is_dead(host, int(process))
    except ValueError:
        with contextlib.suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime > _NAMELESS_SECONDS
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot remove {path}: {error.strerror}") from error


def _take_away(path: Path, owner: str) -> None:
    """Remove the lock of `owner` and no other, though others may do the same at this moment.

    It is moved aside, read again, and put back where it is not theirs.
    """
    aside = path.with_name(temporary_name())
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"cannot remove {path}: {error.strerror}") from error
    if _read(aside) != owner:
        with contextlib.suppress(OSError):
            os.link(aside, path)
    _remove(aside)
