"""Several data sets one after the other, with the same workers, until they are done or somebody says stop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import TYPE_CHECKING

from m2e.common.interrupts import interruptible
from m2e.extract.job.job import Session
from m2e.extract.workers.schedule import Engine

if TYPE_CHECKING:
    from m2e.extract.models import Models


def run_sessions(
    sessions: list[Session], workers: Callable[[Models], AbstractContextManager[Engine]], strict: bool, as_json: bool
) -> bool:
    """Run each data set; whether all came out well enough for exit code 0.

    Args:
        sessions: at least one.
        workers: starts or finds them, once it is known what they are to load (`m2e.extract.workers.choose`).
        strict: whether failed and missing tracks spoil the result.
        as_json: print a summary of each on standard output.

    Raises:
        DataError: as `Session.run`.
        SystemExit: 130 after Ctrl-C and 143 after SIGTERM, when the workers have sealed what they had.
    """
    complete = True
    current = sessions[0]
    with interruptible(lambda: current.interrupted(sys.argv[1:])), ExitStack() as stack:

        @cache
        def engine(models: Models) -> Engine:
            return stack.enter_context(workers(models))

        for current in sessions:
            complete &= current.run(engine, strict, as_json)
    return complete
