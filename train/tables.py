"""Which models a table of the paper needs, and their training: every teacher once, however many rows learn from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from m2e.cache import FeatureCache
from m2e.common.console import say
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, MissingCacheError, open_caches
from m2e.train.report.paper import DATASETS, PaperRow, PaperTable
from m2e.train.report.results import Curves
from m2e.train.run import train_all
from m2e.train.scoring.evaluate import Evaluation, Made, evaluate

TEACHERS = "teachers"


@dataclass(frozen=True)
class Job:
    """Models of one row, one a seed: what they are trained on, and what the table tests them on (letters)."""

    row: PaperRow
    trained_on: tuple[str, ...]
    tested_on: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people, and for folders of students."""
        return "-".join(self.trained_on)


def jobs(table: PaperTable, available: Collection[str]) -> list[Job]:
    """What can be trained of a table with the data sets `available` (letters)."""
    wanted = []
    for row in table.rows:
        groups = [row.trained_on] if row.trained_on else [(letter,) for letter in row.results]
        for letters in groups:
            wanted.append(Job(row, letters, tuple(letter for letter in row.results if letter in letters)))
    return [job for job in wanted if set(job.trained_on) <= set(available)]


def open_available(
    table: PaperTable, folder: Path, features: str | None = None
) -> tuple[list[FeatureCache], list[str]]:
    """The caches in `folder` of the data sets that a table needs, and a line on each one that is missing.

    Raises:
        DataError: all are missing, or see `m2e.train.data.tensors.open_caches`.
    """
    needed = [letter for letter in DATASETS if any(letter in row.sets(letter) for row in table.rows if row.results)]
    found: list[str] = []
    missing: dict[str, MissingCacheError] = {}
    for letter in needed:
        try:
            open_caches(folder, [letter], features)
            found.append(letter)
        except MissingCacheError as error:
            missing[letter] = error
    if not any(jobs(table, found)):
        raise next(iter(missing.values()))
    lines = [
        f"{', '.join(_lost(table, letter))}: there is no cache of {letter}; "
        f"`m2e-extract --dataset {DATASETS[letter]} --cache {folder}` makes it"
        for letter in missing
    ]
    return open_caches(folder, found, features), lines


def _lost(table: PaperTable, letter: str) -> list[str]:
    """What of a table needs the data set `letter`."""
    return [
        row.name if row.trained_on else f"{row.name} ({letter})"
        for row in table.rows
        if letter in row.trained_on or (not row.trained_on and letter in row.results)
    ]


def train_table(
    table: PaperTable, sets: Sequence[EmotionData], config: TrainConfig, seeds: Sequence[int], out: Path
) -> tuple[list[Evaluation], dict[str, Curves]]:
    """Train what `table` needs of `sets` for every seed, each model in a folder of `out`, and test it.

    What an earlier run with the same settings finished is loaded; what it left unfinished goes on.

    Raises:
        DataError, KeyboardInterrupt: see `m2e.train.run.train_all`.
    """
    by_letter: Mapping[str, EmotionData] = {data.letter: data for data in sets}
    todo = jobs(table, by_letter)
    evaluations: list[Evaluation] = []
    curves: dict[str, Curves] = {}
    for i, job in enumerate(todo):
        members = [by_letter[letter] for letter in job.trained_on]
        models = []
        for seed in seeds:
            say(f"{i + 1} of {len(todo)}: {job.row.name}, trained on {'+'.join(job.trained_on)}, seed {seed}")
            settings = replace(config, inputs=job.row.inputs, seed=seed)
            run = train_all(members, settings, out / f"{job.name}-seed-{seed}", out / TEACHERS)
            trained = run.student or run.teachers[members[0].label]
            models.append(trained.models)
            curves[f"{job.name}, {'+'.join(job.row.inputs)}, seed {seed}"] = Curves.of(trained)
        kind = "single" if len(members) == 1 else "student"
        made = Made(kind, job.trained_on, job.row.inputs, tuple(seeds))
        evaluations += evaluate(made, models, [by_letter[letter] for letter in job.tested_on])
    return evaluations, curves
