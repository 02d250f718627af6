"""One run: a teacher for each data set, then the student that learns from them all; every model saved as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from m2e.cache.console import progress_bar
from m2e.train.checkpoint import ModelCard, save_model
from m2e.train.config import TrainConfig
from m2e.train.data import EmotionData
from m2e.train.loop import Trained, train_student, train_teacher


@dataclass(frozen=True, eq=False)
class Run:
    """What a run trained.

    Attributes:
        teachers: by label (letter, or name) of the data set; of a run on one data set, its single model.
        student: None where there is one data set: nothing was distilled.
    """

    teachers: dict[str, Trained]
    student: Trained | None

    @property
    def models(self) -> dict[str, Trained]:
        """Every model under the name of its folder: "teacher-J" ... "student", or "single-J"."""
        if self.student is None:
            return {f"single-{label}": model for label, model in self.teachers.items()}
        return {**{f"teacher-{label}": model for label, model in self.teachers.items()}, "student": self.student}


def train_all(sets: Sequence[EmotionData], config: TrainConfig, out: Path) -> Run:
    """Train what these data sets need and save each model in its folder of `out`.

    Raises:
        DataError: a loss is no longer finite, or `out` cannot be written.
    """
    teachers: dict[str, Trained] = {}
    student = None
    with progress_bar("epochs") as progress:
        for data in sets:
            name = f"{'single' if len(sets) == 1 else 'teacher'}-{data.label}"
            teacher = train_teacher(data, config, _ticker(progress, name, config.epochs))
            save_model(out / name, teacher.models, ModelCard.of([data], config))
            teachers[data.label] = teacher
        if len(sets) > 1:
            taught = [teacher.models for teacher in teachers.values()]
            student = train_student(sets, taught, config, _ticker(progress, "student", config.epochs))
            save_model(out / "student", student.models, ModelCard.of(sets, config))
    return Run(teachers, student)


def _ticker(progress: Progress, name: str, epochs: int) -> Callable[[int], None]:
    """A row of the progress bar, moved once an epoch."""
    row = progress.add_task(name, total=epochs, rate=0.0)
    started = time.monotonic()

    def tick(epoch: int) -> None:
        progress.update(row, completed=epoch, rate=epoch / (time.monotonic() - started))

    return tick
