"""Many songs in processes of their own; a broken one never stops the rest, whatever it does to its decoder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from m2e.common.errors import DataError
from m2e.common.temporary import folder_for_temporaries
from m2e.extract.workers.attempts import twice_dead
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import run_tasks
from m2e.predict.result import SongPrediction
from m2e.predict.setup import Setup

if TYPE_CHECKING:
    from m2e.predict.predictor import Predictor


@lru_cache(maxsize=1)
def load(setup: Setup) -> Predictor:
    """The predictor of this process, loaded once."""
    from m2e.predict.predictor import Predictor

    return Predictor(setup)


def predict_or_say(song: Path, setup: Setup) -> SongPrediction | str:
    """The prediction for a song, or one line on why there is none. Raises DataError where the model is unusable."""
    predictor = load(setup)
    try:
        return predictor.predict(song)
    except DataError as error:
        return str(error)
    except Exception as error:  # whatever a codec or a model does with a hostile file
        reason = next((line for line in str(error).splitlines() if line.strip()), "no message")
        return f"{song}: {type(error).__name__}: {reason.strip()}"


Hear = Callable[[Path, Setup], SongPrediction | str]


@dataclass(frozen=True)
class _Prediction:
    """What a worker does: a prediction may be long, so that it goes through a file, and its name through the pipe."""

    setup: Setup
    folder: Path
    hear: Hear

    def __call__(self, numbered: Iterator[tuple[int, Path]]) -> list[int | str]:
        outcomes: list[int | str] = []
        for number, song in numbered:
            result = self.hear(song, self.setup)
            if isinstance(result, str):
                outcomes.append(result)
            else:
                try:
                    (self.folder / f"{number}.json").write_text(json.dumps(result.as_json()), encoding="ascii")
                except OSError as error:
                    raise DataError(f"cannot write to {self.folder}: {error.strerror}; set TMPDIR") from error
                outcomes.append(number)
        return outcomes


def predict_songs(
    songs: Sequence[Path], setup: Setup, jobs: int, hear: Hear = predict_or_say
) -> Generator[SongPrediction | str, None, None]:
    """Of each song its prediction, or one line on why there is none, as they come: roughly in the order given.

    Args:
        songs: the files.
        setup: the model.
        jobs: processes.
        hear: what is done to each song.

    Raises:
        DataError: the model cannot be loaded, or processes cannot live for want of memory.
    """
    with (
        tempfile.TemporaryDirectory(prefix="m2e-", dir=folder_for_temporaries()) as name,
        LocalWorkers(jobs) as workers,
    ):
        folder = Path(name)
        for outcome in run_tasks(_Prediction(setup, folder, hear), list(enumerate(songs)), workers):
            if isinstance(outcome, int):
                path = folder / f"{outcome}.json"
                yield SongPrediction.from_json(json.loads(path.read_bytes()))
                path.unlink()
            elif isinstance(outcome, str):
                yield outcome
            elif outcome.final:
                yield f"{outcome.item[1]}: {twice_dead(outcome.death)}"
