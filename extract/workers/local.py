"""Worker processes on this machine: an `Engine` of joblib's loky.

Each worker is a pool of one process of its own. A pool of many would kill all its workers when one dies, and could not
say which item was to blame; and a single process with one task is what lets `submit` and `collect` stay simple.

What a worker is at is noted in a small file, written before each item and read only when the worker is dead. SIGTERM,
and the death of this process, make a worker leave the function by an exception, so that it seals what it has, and end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from functools import partial
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from m2e.common.cores import cpu_count
from m2e.common.errors import DataError
from m2e.common.system import check_processes
from m2e.common.temporary import folder_for_temporaries
from m2e.extract.workers import limits
from m2e.extract.workers.schedule import BATCH_SECONDS, Function, Item, Outcome, Returned

# A worker's note: its process id, and how many items of its batch it has begun.
_NOTE = struct.Struct("<qq")
# How long a worker that was told to end may take, for the call that it is in and to seal.
_GRACE_SECONDS = 20.0


class LocalWorkers:
    """Up to `jobs` worker processes, started when they are needed and kept until the `with` block ends.

    The end of the block, whatever the reason, stops the workers; those at work seal what they have first.
    """

    def __init__(self, jobs: int) -> None:
        """Raises DataError when the folder for temporary files cannot be written, or no process can be started."""
        check_processes()
        self.width = jobs
        self._pools: dict[int, Executor] = {}
        self._free = list(range(jobs))
        self._busy: dict[Future[tuple[int, Sequence[Any]]], tuple[int, Sequence[Any]]] = {}
        folder = folder_for_temporaries()
        try:
            self._notes = tempfile.NamedTemporaryFile(prefix="m2e-workers-", buffering=0, dir=folder)  # noqa: SIM115
            self._notes.write(bytes(jobs * _NOTE.size))
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror}; set TMPDIR") from error

    def submit(self, function: Function[Item, Outcome], batch: Sequence[Item]) -> None:
        """Hand a batch to a free worker, starting one where there is none."""
        slot = self._free.pop(0)
        self._note(slot, clear=True)
        work = partial(_work, function, batch, self._notes.name, slot)
        try:
            future = self._start(slot, work)
        except BrokenExecutor:  # it died while it had nothing to do
            self._end(slot)
            future = self._start(slot, work)
        self._busy[future] = (slot, batch)

    def collect(self) -> Returned[Any, Any]:
        """Wait for any batch to come back. Raises what the function raised."""
        finished, _ = wait(self._busy, return_when=FIRST_COMPLETED)
        future = finished.pop()
        slot, batch = self._busy.pop(future)
        self._free.append(slot)
        try:
            begun, outcomes = future.result()
        except BrokenExecutor as error:
            self._end(slot)
            # loky names exit codes in its message alone.
            cause = re.search(r"\b(SIG[A-Z0-9]+|EXIT\(\d+\))", str(error))
            return Returned(batch, self._note(slot)[1], None, cause[1] if cause else "unknown cause")
        return Returned(batch, begun, outcomes)

    def _start(self, slot: int, work: Callable[[], tuple[int, Sequence[Any]]]) -> Future[tuple[int, Sequence[Any]]]:
        try:
            pool = self._pool(slot)
            with without_interrupts():
                return pool.submit(work)
        except OSError as error:  # containers often have little or nothing of what processes share
            raise DataError(
                f"worker processes cannot be started: {error.strerror or error}. They need a few kB in /dev/shm: mount "
                "it so that it can be written, with room (docker run --shm-size 64m)"
            ) from error

    def _pool(self, slot: int) -> Executor:
        if slot not in self._pools:
            cpu_count()  # the first import of joblib, without its complaint
            from joblib.externals.loky import ProcessPoolExecutor

            # Without psutil and pgrep loky says at length that it cannot look for a worker's children: it has none.
            warnings.filterwarnings("ignore", "Failed to kill subprocesses", UserWarning)
            self._pools[slot] = ProcessPoolExecutor(1, initializer=_begin, initargs=(os.getpid(),))
        return self._pools[slot]

    def _note(self, slot: int, clear: bool = False) -> tuple[int, int]:
        """(process, items begun) as a worker noted it, or zeros for the next to come."""
        place = slot * _NOTE.size
        if clear:
            os.pwrite(self._notes.fileno(), bytes(_NOTE.size), place)
        process, begun = _NOTE.unpack(os.pread(self._notes.fileno(), _NOTE.size, place))
        return process, begun

    def _end(self, slot: int) -> None:
        """End a worker at once; what it holds that is not sealed is lost."""
        if pool := self._pools.pop(slot, None):
            pool.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]

    def kill(self) -> None:
        """End all workers, for good; those at work at once, and what they hold that is not sealed is lost."""
        for slot, _ in self._busy.values():
            self._end(slot)
        self._busy.clear()
        # The others can leave in peace, and end what they have started themselves.
        for pool in self._pools.values():
            pool.shutdown(wait=False)
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools.clear()
        self._notes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            told = [future for future, (slot, _) in self._busy.items() if self._tell_to_end(slot)]
            wait(told, timeout=_GRACE_SECONDS)
        finally:  # a second Ctrl-C ends the wait
            self.kill()

    def _tell_to_end(self, slot: int) -> bool:
        process, _ = self._note(slot)
        with contextlib.suppress(ProcessLookupError):
            if process:
                os.kill(process, signal.SIGTERM)
                return True
        return False  # it has not begun: there is nothing to seal


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, for good in the processes and threads that start here.

    It reaches every process of the terminal, but the parent alone decides what follows, and tells its workers.
    """
    resource_tracker.ensure_running()  # starting it later would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Stopped(BaseException):
    """The worker was told to end; an exception, so that what it holds is sealed on the way out."""


class _State:
    """Of this worker process."""

    working = False
    stopped = False


def _begin(parent: int) -> None:
    """Set up a new worker process."""
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = partial(_report_lost, sys.unraisablehook)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _report_lost(report: Callable[[sys.UnraisableHookArgs], object], lost: sys.UnraisableHookArgs) -> None:
    """Say what was raised where nothing can be, but for the order to end, which is known without."""
    if not isinstance(lost.exc_value, _Stopped):
        report(lost)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _State.stopped = True
    if not _State.working:
        os._exit(128 + number)
    raise _Stopped


def _follow(parent: int) -> NoReturn:
    """End this process soon after its parent has, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _work(
    function: Function[Item, Outcome], batch: Sequence[Item], notes: str, slot: int
) -> tuple[int, Sequence[Outcome]]:
    """In the worker: how many items of the batch were begun, and what the function made of them."""
    limits.watch()
    if "PYTHONFAULTHANDLER" not in os.environ:
        faulthandler.disable()  # loky's: a decoder's crash is recorded in one line, not dumped on the terminal
    begun = 0
    descriptor = os.open(notes, os.O_WRONLY)

    def note(items: int) -> None:
        os.pwrite(descriptor, _NOTE.pack(os.getpid(), items), slot * _NOTE.size)

    def handed() -> Iterator[Item]:
        nonlocal begun
        started = time.monotonic()
        for item in batch:
            if _State.stopped or (begun and time.monotonic() - started > BATCH_SECONDS):
                break
            begun += 1
            note(begun)
            yield item

    try:
        _State.working = True
        note(0)
        outcomes = function(handed())
        _State.working = False
        if _State.stopped:  # by a signal whose exception was lost in foreign code
            raise _Stopped
    except _Stopped:
        note(0)  # no item is to blame
        os._exit(128 + signal.SIGTERM)
    finally:
        _State.working = False
        limits.rest()
        os.close(descriptor)
    return begun, outcomes
