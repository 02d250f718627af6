"""One thread for numerical libraries, for the length of a block.

Processes, not threads, use the cores of a machine: two of one thread beat one of two, and a sum's order never varies
with the number of threads. Whoever calls into m2e has numbers of threads of their own, and keeps them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class _Blocks:
    """The blocks that threads of this process are in, and what was before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.threads = 1
        self.restore: Callable[[], None] = lambda: None


_BLOCKS = _Blocks()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch and the BLAS of numpy compute in one thread; in this thread torch, and in the last to leave the BLAS, are
    as they were before the first came."""
    import torch
    from threadpoolctl import threadpool_limits

    with _BLOCKS.lock:
        if not _BLOCKS.count:
            # A thread that asks later is told what another has set.
            _BLOCKS.threads = torch.get_num_threads()
            _BLOCKS.restore = threadpool_limits(1, user_api="blas").restore_original_limits
        _BLOCKS.count += 1
        threads = _BLOCKS.threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        with _BLOCKS.lock:
            _BLOCKS.count -= 1
            if not _BLOCKS.count:
                _BLOCKS.restore()
