"""librosa's compiled functions, compiled by one process at a time.

librosa has numba compile some of its functions when they are imported or first called, and keep them on disk: 20 s,
once. numba keeps such a function and its array wrapper in two files that do not replace each other as a pair. Two
processes that compile at once can leave halves that do not belong together, and then every later process crashes with a
segmentation fault (numba issue 10128). So we keep them in a folder of our own, and hold a lock while anything may be
compiled.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from m2e.cache.errors import DataError


@contextlib.contextmanager
def compiling_alone() -> Iterator[None]:
    """Hold while librosa is imported and first used.

    Raises:
        DataError: the user's cache folder cannot be written.
    """
    import pooch
    from filelock import FileLock

    folder = Path(pooch.os_cache("m2e"))
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "numba.lock")
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"cannot write to {folder}: {error.strerror}. Set XDG_CACHE_HOME to a folder of yours"
        ) from error
    try:
        yield
    finally:
        lock.release()
