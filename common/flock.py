"""Locks of the kernel: a process that dies lets go of them, whatever its number and whichever container it ran in."""

from __future__ import annotations

import errno
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

_HELD = (errno.EACCES, errno.EAGAIN)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed, and wait for nobody.

    Returns:
        Whether it is locked now; False: another process has it locked; None: this file system has no such locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True
