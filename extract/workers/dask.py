"""Workers of a Dask cluster: an `Engine` of dask.distributed.

Dask moves batches, results and news of workers; who does what is decided here, so that a scheduler that nobody has set
up for us will do. Every batch is bound to one worker, and a worker has at most one: left to itself the scheduler would
start a batch whose worker died on another one, and then another, unseen.

Beside the caches, on the folder that all share, lie for as long as a run lasts

- its sign: workers that see it share the folder; when it goes they seal what they have, and stop;
- a note a batch: how many of its items its worker has begun, read only when the worker is gone. A batch that the
  scheduler starts again all the same, on a worker that came back under the same address, finds its note and leaves it.

A worker that is new says first which version it has and whether it can do the work (`m2e.extract.workers.requirement`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2e.common.console import say
from m2e.common.errors import DataError
from m2e.common.files import temporary_folder, write_atomically
from m2e.extract.workers import limits
from m2e.extract.workers.local import without_interrupts
from m2e.extract.workers.schedule import BATCH_SECONDS, Function, Item, Outcome, Returned

if TYPE_CHECKING:
    from distributed import Client, Future

_CONNECT_SECONDS = 10.0
# How often to ask which workers there are.
_LOOK_SECONDS = 1.0
# How long workers that are there may take to say whether they can do the work: another run's batch may have to end.
_MEETING_SECONDS = BATCH_SECONDS + 30.0
# How long to go on without any worker.
_PATIENCE_SECONDS = 600.0
# How long workers may take, when the run ends early, for the track that they are at and to seal.
_GRACE_SECONDS = 20.0


@contextlib.contextmanager
def dask_workers(
    scheduler: str, shared: Path, requirement: Callable[[], str], resources: Mapping[str, float]
) -> Iterator[DaskWorkers]:
    """The workers of a cluster, for the length of the block; at its end those at work seal what they have first.

    Args:
        scheduler: its address, such as "tcp://10.0.0.1:8786", or "local:N" for N workers on this machine.
        shared: folder that this process and all workers share.
        requirement: called on each worker: why it cannot be used, or "". Picklable.
        resources: what a worker must have been given, and what a batch takes of it, such as {"GPU": 1}.

    Raises:
        DataError: the scheduler cannot be reached, none of its workers can be used, or the folder cannot be written.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said in one line, here
    # A later run removes the folder that a killed one leaves, by which its workers stop.
    with temporary_folder(shared.absolute(), mode=0o777) as folder, _connected(scheduler) as client:
        workers = DaskWorkers(client, scheduler, folder, requirement, resources)
        try:
            workers.meet()
            yield workers
        finally:
            workers.leave()


@contextlib.contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        address: object = scheduler
        kind, _, count = scheduler.partition(":")
        if kind == "local":
            options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
            with without_interrupts():
                address = stack.enter_context(LocalCluster(n_workers=int(count), **options))
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"no Dask scheduler answers at {scheduler} ({type(error).__name__}): "
                "start one with `dask scheduler` and give the address that it prints"
            ) from error
        yield stack.enter_context(client)


_SIGN = "run"


@dataclass(frozen=True)
class _Attempt:
    """A batch that is with a worker."""

    worker: str
    batch: Sequence[Any]
    note: Path


class DaskWorkers:
    """The workers of a scheduler that can do the work, as many as there are at any time."""

    def __init__(
        self,
        client: Client,
        scheduler: str,
        folder: Path,
        requirement: Callable[[], str],
        resources: Mapping[str, float],
    ) -> None:
        """As `dask_workers`, which makes one; `folder` is this run's own, in the one that all share."""
        self._client = client
        self._scheduler = scheduler
        self._requirement = requirement
        self._resources = dict(resources)
        self._sign = folder / _SIGN
        self._numbers = itertools.count()
        self._known: set[str] = set()
        self._usable: set[str] = set()
        self._joining: dict[Future, tuple[str, Path]] = {}
        self._busy: dict[Future, _Attempt] = {}
        self._back: deque[tuple[_Attempt, Future | None]] = deque()
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._next_look = 0.0
        self._refused: set[str] = set()
        self._unsaid: list[str] = []
        write_atomically(self._sign, _sign_of(folder))

    @property
    def width(self) -> int:
        """How many workers can be used now; 1 where there is none, since one may come."""
        return max(1, len(self._usable))

    def meet(self) -> None:
        """Get to know the workers that are there.

        Raises:
            DataError: none can be used.
        """
        deadline = time.monotonic() + _MEETING_SECONDS
        self._look()
        while self._joining and time.monotonic() < deadline:
            self._wait()
        if self._unsaid and not self._usable:
            raise DataError(self._unsaid[0])
        if self._usable:
            say(f"workers of the scheduler at {self._scheduler}: {len(self._usable)}")
        self._tell()

    def submit(self, function: Function[Item, Outcome], batch: Sequence[Item]) -> None:
        """Bind a batch to a free worker; waits for one where the last has gone.

        Raises:
            DataError: none came for ten minutes, or the scheduler is gone.
        """
        deadline, waiting = time.monotonic() + _PATIENCE_SECONDS, False
        while not (free := self._usable - {attempt.worker for attempt in self._busy.values()}):
            if not waiting:
                say(f"the scheduler at {self._scheduler} has no worker that can be used: waiting for one", "note")
                waiting = True
            if time.monotonic() > deadline:
                raise DataError(
                    f"the scheduler at {self._scheduler} had no worker for {_PATIENCE_SECONDS / 60:.0f} minutes. What "
                    "was committed is safe: start workers, then run the same command again"
                )
            self._wait()
        attempt = _Attempt(min(free), batch, self._new_path())
        future = self._send(attempt.worker, self._resources, _work, function, batch, attempt.note, self._sign)
        self._busy[future] = attempt

    def collect(self) -> Returned[Any, Any]:
        """Wait for any batch to come back. Raises what the function raised."""
        while not self._back:
            self._wait()
        attempt, future = self._back.popleft()
        result = self._result(future, attempt.worker) if future else None
        if result is not None:
            return Returned(attempt.batch, *result)
        try:
            begun = int(attempt.note.read_bytes() or b"0")
        except FileNotFoundError:  # it had not begun, or had sealed and ended in order: nothing is to blame
            return Returned(attempt.batch, 0, ())
        attempt.note.unlink(missing_ok=True)
        return Returned(attempt.batch, begun, None, f"{attempt.worker} was lost")

    def leave(self) -> None:
        """Tell workers to seal and stop, and wait until they have."""
        self._sign.unlink(missing_ok=True)
        deadline = time.monotonic() + _GRACE_SECONDS
        with contextlib.suppress(DataError):
            while self._busy and time.monotonic() < deadline:
                self._wait(leaving=True)

    def _new_path(self) -> Path:
        return self._sign.with_name(str(next(self._numbers)))

    def _send(self, worker: str, resources: Mapping[str, float], function: Callable[..., Any], *arguments: Any) -> Any:
        future = self._client.submit(
            function,
            *arguments,
            workers=[worker],
            allow_other_workers=False,
            resources=resources,
            pure=False,
            retries=0,
        )
        future.add_done_callback(self._ended.put)
        return future

    def _wait(self, leaving: bool = False) -> None:
        """Take in the next news: a batch or an answer that came, or workers that came or went."""
        if time.monotonic() >= self._next_look:
            self._look(leaving)
        try:
            future = self._ended.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return
        if future in self._joining:
            self._admit(future, *self._joining.pop(future))
        elif future in self._busy:
            self._back.append((self._busy.pop(future), future))
        self._tell()

    def _look(self, leaving: bool = False) -> None:
        """Ask the scheduler which workers there are."""
        there = set(self._asked(self._client.nthreads))
        if self._resources:
            information = self._asked(self._client.scheduler_info, n_workers=-1)["workers"]
            there = {worker for worker in there if self._is_given(information.get(worker, {}))}
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._known &= there
        self._usable &= there
        for future, (worker, _) in list(self._joining.items()):
            if worker not in there:
                del self._joining[future]
                future.cancel()
        for future, attempt in list(self._busy.items()):
            if attempt.worker not in there:
                self._back.append((self._busy.pop(future), None))
                future.cancel()
        if leaving:
            return
        try:
            self._sign.stat()
            os.utime(self._sign.parent)  # without locks others may take it for left behind when it is a day old
        except OSError as error:
            raise DataError(
                f"{self._sign}, by which workers know that this run goes on, is gone: run it again"
            ) from error
        self._invite(sorted(there - self._known))

    def _asked(self, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The scheduler's answer. Raises DataError where it is gone."""
        try:
            return question(*arguments, **options)
        except (OSError, CancelledError) as error:
            raise DataError(
                f"the scheduler at {self._scheduler} is gone ({type(error).__name__}). What was committed is safe: "
                "start it, then run the same command again"
            ) from error

    def _invite(self, workers: list[str]) -> None:
        """Ask workers that are new whether they can do the work."""
        if not workers:
            return
        # Asked apart, since a worker that cannot read a task's function does not say so but ends.
        versions = self._asked(self._client.run, _version, workers=workers, on_error="return")
        for worker, its in versions.items():
            if isinstance(its, OSError):
                continue  # it is gone already, or the next look finds it
            self._known.add(worker)
            if isinstance(its, Exception):
                self._refuse(worker, f"it cannot import m2e as it is here ({its})")
            elif its != _version():
                self._refuse(worker, f"it has m2e {its}, not {_version()}")
            else:
                reply = self._new_path()
                future = self._send(worker, {}, _introduce, self._requirement, self._sign, reply)
                self._joining[future] = (worker, reply)

    def _is_given(self, information: Mapping[str, Any]) -> bool:
        has = information.get("resources", {})
        return all(has.get(name, 0) >= amount for name, amount in self._resources.items())

    def _admit(self, future: Future, worker: str, reply: Path) -> None:
        """Make a worker one of the others, or say once why not."""
        try:
            objection = self._result(future, worker)
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise DataError(
                f"the scheduler at {self._scheduler} cannot read what it is to hand out: the same m2e is to be "
                "installed where the scheduler runs"
            ) from error
        if objection is None:
            self._known.discard(worker)
            return
        if not objection:
            try:
                same = reply.read_bytes() == _sign_of(self._sign.parent)
                reply.unlink()
            except OSError:
                same = False
            if same:
                self._usable.add(worker)
                return
            where = self._sign.parent.parent
            objection = f"what it writes to {where} is not seen here: the cache must be on a shared folder"
        self._refuse(worker, objection)

    def _refuse(self, worker: str, objection: str) -> None:
        if objection not in self._refused:
            self._refused.add(objection)
            self._unsaid.append(f"worker {worker} cannot be used: {objection}")

    def _tell(self) -> None:
        while self._usable and self._unsaid:
            say(self._unsaid.pop(0), "note")

    def _result(self, future: Future, worker: str) -> Any:
        """What a task gave, None when that is lost with its worker. Raises what the task raised."""
        from distributed import KilledWorker
        from distributed.scheduler import NoValidWorkerError

        while worker in self._known and not future.cancelled():
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except (KilledWorker, NoValidWorkerError, CancelledError):
                break
            except TimeoutError:
                if future.status == "error":
                    raise  # the task's own
                self._look()
        self._look()  # raises where the scheduler itself is gone
        return None


# In the workers.

# Whatever number of threads a worker has: torch's number of threads is one of the thread's, and a writer has one user.
_ALONE = ThreadPoolExecutor(1)


def _sign_of(folder: Path) -> bytes:
    """What stands in the file by which workers know that a run goes on: no other run's folder has that name."""
    return folder.name.encode()


def _version() -> str:
    return version("m2e")


def _introduce(requirement: Callable[[], str], sign: Path, reply: Path) -> str:
    """Why this worker cannot be used, or ""."""
    try:
        if sign.read_bytes() != _sign_of(sign.parent):
            return f"{sign} is another file there"
        reply.write_bytes(_sign_of(sign.parent))
    except OSError as error:
        return f"it cannot use {sign.parent.parent} ({error.strerror}): the cache must be on a shared folder"
    return requirement()


def _work(
    function: Function[Item, Outcome], batch: Sequence[Item], note: Path, sign: Path
) -> tuple[int, Sequence[Outcome]] | None:
    """How many items of the batch were begun, and what the function made of them; None: a worker has died at it."""
    from distributed import get_worker

    return _ALONE.submit(_do, function, batch, note, sign, get_worker()).result()


def _do(
    function: Function[Item, Outcome], batch: Sequence[Item], note: Path, sign: Path, worker: Any
) -> tuple[int, Sequence[Outcome]] | None:
    begun = 0

    def handed() -> Iterator[Item]:
        nonlocal begun
        started = time.monotonic()
        for item in batch:
            late = begun and time.monotonic() - started > BATCH_SECONDS
            if late or worker.status.name.startswith("clos") or not sign.exists():
                return
            begun += 1
            _write(note, begun)
            yield item

    try:
        _write(note, 0, os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return None
    limits.watch()
    try:
        outcomes = function(handed())
    finally:
        limits.rest()
        note.unlink(missing_ok=True)
    return begun, outcomes


def _write(note: Path, begun: int, flags: int = 0) -> None:
    """Closed each time: that is when other machines see it."""
    try:
        descriptor = os.open(note, os.O_WRONLY | flags, 0o666)
        try:
            os.pwrite(descriptor, b"%08d" % begun, 0)
        finally:
            os.close(descriptor)
    except FileExistsError:
        raise
    except OSError as error:
        raise DataError(f"cannot write {note}: {error.strerror}") from error
