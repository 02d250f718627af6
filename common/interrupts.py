"""Ctrl-C and SIGTERM: what is kept is said in a last line, and the exit code is 130 or 143."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

# Until a signal whose exception was lost is sent once more: by then what swallowed it has mostly ended.
_AGAIN_SECONDS = 0.01


class _Terminated(BaseException):
    """SIGTERM arrived; an exception, so that what is unfinished can be sealed on the way out."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _send_again(lost: SimpleQueue[signal.Signals | None]) -> None:
    while number := lost.get():
        time.sleep(_AGAIN_SECONDS)
        os.kill(os.getpid(), number)


@contextmanager
def interruptible(farewell: Callable[[], None]) -> Iterator[None]:
    """Both signals leave the block by an exception; a second one hurries whatever is then on its way out.

    Args:
        farewell: says what is kept and how to go on, once the block is left.

    Raises:
        SystemExit: with 130 after Ctrl-C and 143 after SIGTERM.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    report_lost = sys.unraisablehook
    lost_signals: SimpleQueue[signal.Signals | None] = SimpleQueue()
    # Started here: a signal could find the starting of a thread, too.
    threading.Thread(target=_send_again, args=(lost_signals,), daemon=True).start()

    def take_down(lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a finalizer or a callback, wherever a signal happens to find one."""
        if not isinstance(lost.exc_value, KeyboardInterrupt | _Terminated):
            report_lost(lost)
            return
        number = signal.SIGTERM
        try:  # the next signal's exception would be dropped here
            number = signal.SIGINT if isinstance(lost.exc_value, KeyboardInterrupt) else number
        finally:
            lost_signals.put(number)

    sys.unraisablehook = take_down
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as interruption:
        # For as long as the process lives: another signal is to change neither the last line nor the exit code.
        handlers = dict.fromkeys(handlers, signal.SIG_IGN)
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        farewell()
        raise SystemExit(130 if isinstance(interruption, KeyboardInterrupt) else 143) from None
    finally:
        lost_signals.put(None)
        sys.unraisablehook = report_lost
        for number, handler in handlers.items():
            signal.signal(number, handler)
