"""What m2e asks of the operating system, looked for when a command starts: Linux and macOS have it, Windows has not."""

from __future__ import annotations

import importlib
import multiprocessing
import platform
import sys
from pathlib import Path

from m2e.common.errors import DataError

# Notes at a place in a shared file, signals held back in threads that start, locks, limits.
_NEEDED = (
    ("os", "pread"),
    ("os", "pwrite"),
    ("signal", "pthread_sigmask"),
    ("fcntl", "flock"),
    ("resource", "setrlimit"),
)
_SEMAPHORES = "/dev/shm"  # noqa: S108 - nothing is written there


def check_system() -> None:
    """Raise DataError where the operating system lacks what m2e is built on."""
    missing = [f"{module}.{name}" for module, name in _NEEDED if not _has(module, name)]
    if missing:
        raise DataError(
            f"{platform.system()} has not what m2e is built on (in Python's terms: {', '.join(missing)}). It is tested "
            "on Linux; on Windows use WSL 2 (README, Platforms)"
        )


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def check_processes() -> None:
    """Raise DataError where no worker processes can be started, as in a container without a usable /dev/shm."""
    if sys.platform == "linux" and not Path("/proc/self/statm").exists():
        raise DataError("no worker processes can be started here: what looks after them needs /proc: mount it")
    try:
        multiprocessing.get_context("fork").Lock()  # this one starts no process to keep books
    except (OSError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"no worker processes can be started here: the system gives no semaphores ({reason}). Linux keeps them in "
            f"{_SEMAPHORES}: mount it, or make room there"
        ) from error
