"""Several data sets one after the other, with the same workers, until they are done or somebody says stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING

from m2e.extract.engine import Engine
from m2e.extract.session import Session

if TYPE_CHECKING:
    from m2e.extract.track import Models


class _Terminated(BaseException):
    """SIGTERM arrived; an exception, so that workers seal what they have on the way out."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def run_sessions(
    sessions: list[Session], workers: Callable[[Models], AbstractContextManager[Engine]], strict: bool, as_json: bool
) -> bool:
    """Run each data set; whether all came out well enough for exit code 0.

    Args:
        sessions: at least one.
        workers: starts or finds them, once it is known what they are to load (`m2e.extract.engines`).
        strict: whether failed and missing tracks spoil the result.
        as_json: print a summary of each on standard output.

    Raises:
        DataError: as `Session.run`.
        SystemExit: 130 after Ctrl-C and 143 after SIGTERM, when the workers have sealed what they had.
    """
    complete = True
    current = sessions[0]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        with ExitStack() as stack:

            @cache
            def engine(models: Models) -> Engine:
                return stack.enter_context(workers(models))

            for current in sessions:
                complete &= current.run(engine, strict, as_json)
    except (KeyboardInterrupt, _Terminated) as interruption:
        # Another signal need not cut the last line off.
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        current.interrupted(sys.argv[1:])
        raise SystemExit(130 if isinstance(interruption, KeyboardInterrupt) else 143) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return complete
