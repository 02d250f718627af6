"""Ctrl-C and SIGTERM: what is kept is said in a last line, and the exit code is 130 or 143."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Until a signal whose exception was lost is sent once more: by then what swallowed it has mostly ended.
_AGAIN_SECONDS = 0.01


class _Terminated(BaseException):
    """SIGTERM arrived; an exception, so that what is unfinished can be sealed on the way out."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


@contextmanager
def interruptible(farewell: Callable[[], None]) -> Iterator[None]:
    """Both signals leave the block by an exception; a second one hurries whatever is then on its way out.

    Args:
        farewell: says what is kept and how to go on, once the block is left.

    Raises:
        SystemExit: with 130 after Ctrl-C and 143 after SIGTERM.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _raise_terminated)
    report_lost = sys.unraisablehook

    def send_again(lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a finalizer or a callback, wherever a signal happens to find one."""
        if isinstance(lost.exc_value, KeyboardInterrupt | _Terminated):
            number = signal.SIGINT if isinstance(lost.exc_value, KeyboardInterrupt) else signal.SIGTERM
            threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
        else:
            report_lost(lost)

    sys.unraisablehook = send_again
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
        sys.unraisablehook = report_lost
        for number, handler in handlers.items():
            signal.signal(number, handler)
