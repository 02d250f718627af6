"""One thread for numerical libraries, for the length of a block.

Processes, not threads, use the cores of a machine: two of one thread beat one of two, and a sum's order never varies
with the number of threads. Whoever calls into m2e has numbers of threads of their own, and keeps them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class _Blocks(threading.local):
    """How many blocks this thread is in."""

    depth = 0


class _Process:
    """How many threads are in blocks, and what was before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.threads = 1
        self.restore: Callable[[], None] = lambda: None


_BLOCKS, _PROCESS = _Blocks(), _Process()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch and the BLAS of numpy compute in one thread.

    When a thread leaves its outermost block, torch is for it as it was before the first thread came, and when the last
    one has left, so is the BLAS.
    """
    if _BLOCKS.depth:
        yield
        return
    threads = _enter()
    _BLOCKS.depth = 1
    try:
        yield
    finally:
        _BLOCKS.depth = 0
        _leave(threads)


def _enter() -> int:
    import torch

    with _PROCESS.lock:
        if not _PROCESS.count:
            # A thread that asks torch later is told what another has set.
            _PROCESS.threads = torch.get_num_threads()
            _PROCESS.restore = _limit_blas()
        _PROCESS.count += 1
        torch.set_num_threads(1)
        return _PROCESS.threads


def _leave(threads: int) -> None:
    import torch

    with _PROCESS.lock:
        _PROCESS.count -= 1
        torch.set_num_threads(threads)
        if not _PROCESS.count:
            _PROCESS.restore()


def _limit_blas() -> Callable[[], None]:
    """Returns what undoes it. threadpoolctl lets only the thread that has limited a BLAS change it again, and ours come
    and go in any order: so it is one of its own."""
    from threadpoolctl import threadpool_limits

    limited, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with threadpool_limits(1, user_api="blas"):
            limited.set()
            may_end.wait()

    thread = threading.Thread(target=hold, name="m2e-blas", daemon=True)
    thread.start()
    limited.wait()

    def restore() -> None:
        may_end.set()
        thread.join()

    return restore
