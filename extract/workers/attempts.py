"""One broken track never stops a run: what goes wrong with a track becomes its failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from m2e.cache import DataError
from m2e.cache.failures import Failure
from m2e.extract.audio.unheard import Unheard, UnheardError
from m2e.extract.job.plan import Task
from m2e.extract.workers import limits
from m2e.extract.workers.handover import NoRoom
from m2e.extract.workers.schedule import Lost

T = TypeVar("T")

_LONGEST_REASON = 400
_DEATHS = {
    "SIGKILL": "was killed, most often for want of memory",
    limits.DEATH: "was stopped, since it took far longer than any track of its size",
    "SIGSEGV": "crashed, most often in a decoder that the file misleads",
}


def attempt(task: Task, action: Callable[[], T]) -> T | Failure | Unheard:
    """What the action gives, or why it gives nothing. Raises NoRoom, which is no track's fault."""
    try:
        return action()
    except NoRoom:
        raise
    except UnheardError as error:
        return Unheard(task.track_id, str(error)[:_LONGEST_REASON], error.missing)
    except DataError as error:
        return failure(task, "audio", str(error))
    except Exception as error:  # whatever a codec or a model does with a hostile file
        return failure(task, "features", f"{type(error).__name__}: {error}")


def failure(task: Task, stage: str, reason: str) -> Failure:
    """A task's failure at one stage ("audio", "features", "worker"), for a reason of which a line is kept."""
    line = (reason.strip().splitlines() or ["no message"])[0][:_LONGEST_REASON]
    about = str(task.path), stage, line, task.audio_bytes
    return Failure(task.track_id, *about, task.attempts + 1, task.keeps, task.modified)


def given_up(lost: Lost[Task]) -> Failure:
    """Of a task at which worker processes died twice."""
    # One attempt more than it has: it was tried twice.
    return failure(lost.item.tried(), "worker", twice_dead(lost.death))


def twice_dead(death: str) -> str:
    """A line on a file at which worker processes died twice, the last time by `death`."""
    return f"its worker process {_DEATHS.get(death, 'ended')} ({death}), and again with nothing else running"
