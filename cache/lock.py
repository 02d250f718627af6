"""One at a time: what replaces files of a cache holds its pack.lock. Readers and writers of new files need no lock.

The lock is the kernel's, on a file that stays; the file says who has it, for people. Where a file system has no such
locks, a second file stands for it while it is held, and nobody can tell whether its owner is alive: only a user can.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from m2e.common.console import say
from m2e.common.errors import DataError, LockedError
from m2e.common.flock import try_lock
from m2e.common.regular import append_regular, read_regular

LOCK_FILE = "pack.lock"
_STAND_IN = "pack.lock.held"
_MOST_BYTES = 4096
_PAUSE_SECONDS = 0.2


class _Patience:
    """Waits for another process to let a lock go; says so once, since it may take minutes."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._deadline = time.monotonic() + seconds
        self._said = False

    def wait(self, path: Path, remedy: str) -> None:
        """Wait a moment for the one who has the lock at `path`; raises LockedError where there is no time left."""
        owner = _owner(path)
        if time.monotonic() >= self._deadline:
            raise LockedError(f"{self._folder} is being packed, merged or relabelled by {owner}: {remedy}")
        if not self._said:
            most = f"at most {self._seconds:g} s"
            say(f"waiting for {owner}, which packs, merges or relabels {self._folder} ({most})", "note")
        self._said = True
        time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def pack_lock(folder: Path, break_lock: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Hold pack.lock of a data set's cache folder while its files are packed, merged, repaired or relabelled.

    Args:
        folder: the data set's folder, such as ``features/deam``.
        break_lock: where the file system has no locks, take it whoever left it.
        wait: seconds for another process to let it go; that it waits is said in a line.

    Raises:
        LockedError: another process holds it.
        DataError: the folder cannot be written.
    """
    path = folder / LOCK_FILE
    patience = _Patience(folder, wait)
    try:
        file = append_regular(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    with file:
        while (locked := try_lock(file.fileno())) is False:
            patience.wait(path, "wait for it")
        with contextlib.nullcontext() if locked else _stand_in(folder, break_lock, patience):
            with contextlib.suppress(OSError):  # a note for people
                os.ftruncate(file.fileno(), 0)
                file.write(_me())
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), 0)


@contextlib.contextmanager
def _stand_in(folder: Path, break_lock: bool, patience: _Patience) -> Iterator[None]:
    path = folder / _STAND_IN
    if break_lock:
        path.unlink(missing_ok=True)
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            break
        except FileExistsError:
            patience.wait(
                path,
                "wait, or where that is dead run again with --break-lock "
                f"(the lock is {path}, on a file system that has none of its own)",
            )
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}") from error
    try:
        with contextlib.suppress(OSError):
            os.write(descriptor, _me())
        yield
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _me() -> bytes:
    return f"{socket.gethostname()} {os.getpid()}\n".encode()


def _owner(path: Path) -> str:
    try:
        host, _, process = read_regular(path, _MOST_BYTES).decode(errors="replace").strip().rpartition(" ")
    except (OSError, DataError):
        host = ""
    return f"process {process} on {host}" if host else "another process"
