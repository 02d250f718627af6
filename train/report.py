"""The end of a run: test metrics beside the paper's, as a table for people and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from m2e.cache.console import console, say
from m2e.train.config import TASKS, Task, TrainConfig
from m2e.train.data import EmotionData
from m2e.train.evaluate import measure
from m2e.train.loop import Trained
from m2e.train.metrics import Metrics, TagMetrics
from m2e.train.paper import paper_result
from m2e.train.run import Run

SYNTHETIC = "SYNTHETIC data: not comparable with the paper"
UNTRAINED = "the encoder is untrained: its features are random projections"


@dataclass(frozen=True)
class Result:
    """One model on one test set.

    Attributes:
        model: "student", "teacher", or "single" where nothing was distilled.
        trained_on: labels (letter, or name) of its data sets.
        dataset: name of the test set.
        task: what is measured.
        tracks: in the test split.
        best_epoch: of the weights that were tested.
        metrics: None where there are no test tracks.
        paper: the paper's two main metrics for the same combination, None where it has none.
    """

    model: str
    trained_on: tuple[str, ...]
    dataset: str
    task: Task
    tracks: int
    best_epoch: int
    metrics: Metrics | None
    paper: tuple[float, float] | None


def evaluate(model: str, trained: Trained, sets: Sequence[EmotionData]) -> list[Result]:
    """Results of a model on the test split of each of its data sets, each task with its own weights."""
    trained_on = tuple(data.label for data in sets)
    return [
        Result(
            model=model,
            trained_on=trained_on,
            dataset=data.name,
            task=task,
            tracks=len(data.splits["test"]),
            best_epoch=trained.best_epoch[task],
            metrics=measure(trained.models[task], data, task),
            paper=paper_result(trained_on, data.letter, task),
        )
        for data in sets
        for task in data.targets
    ]


def evaluate_run(run: Run, sets: Sequence[EmotionData]) -> list[Result]:
    """Results of every model of a run, data set by data set, the student's first."""
    kind = "single" if run.student is None else "teacher"
    results = [each for data in sets for each in evaluate(kind, run.teachers[data.label], [data])]
    if run.student is not None:
        results += evaluate("student", run.student, sets)
    order = [data.name for data in sets]
    return sorted(results, key=lambda result: (order.index(result.dataset), result.model))


def cautions(sets: Sequence[EmotionData]) -> list[str]:
    """What must stand wherever the numbers stand."""
    return [SYNTHETIC] * any(
        data.name.startswith("demo-") or "synthetic" in data.provenance.lower() for data in sets
    ) + [UNTRAINED] * (sets[0].extraction.encoder == "tiny")


def as_json(
    results: Sequence[Result],
    trained: dict[str, Trained],
    sets: Sequence[EmotionData],
    config: TrainConfig,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """The whole run, machine-readable; all values are plain JSON.

    Args:
        trained: each model under the name of its folder.
    """
    return {
        "cautions": cautions(sets),
        "results": [asdict(result) for result in results],
        "models": {
            name: {"epochs": model.epochs, "best_epoch": model.best_epoch, "validation_loss": model.validation}
            for name, model in trained.items()
        },
        "datasets": [
            {
                "name": data.name,
                "letter": data.letter,
                "provenance": data.provenance,
                "tasks": list(data.targets),
                "tags": len(data.tag_names),
                "tracks": {split: len(rows) for split, rows in data.splits.items()},
                "segments": int(data.n_segments.sum()),
                "notes": list(data.notes),
            }
            for data in sets
        ],
        "config": json.loads(config.to_json()),
        "extraction": json.loads(sets[0].extraction.to_json()),
        "features": sets[0].extraction.fingerprint,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("m2e", "torch", "numpy", "scikit-learn")},
        },
        "device": device,
        "seconds": round(seconds, 1),
    }


def print_report(results: Sequence[Result], sets: Sequence[EmotionData], config: TrainConfig) -> None:
    """Tables of the results, and where labels, splits, features and chords come from; 80 columns are enough."""
    for task in TASKS:
        rows = [result for result in results if result.task == task]
        if rows:
            title = f"Test metrics of {_TITLES[task]}, trained on {'+'.join(data.label for data in sets)}"
            table = Table(title="\n".join([escape(title), *(f"[bold red]{line}[/]" for line in cautions(sets))]))
            table.box, table.title_justify, table.collapse_padding, table.pad_edge = SIMPLE_HEAD, "left", True, False
            table.add_column("test set", no_wrap=True)
            table.add_column("model", no_wrap=True)
            table.add_column("n", justify="right", no_wrap=True)
            for i, (heading, _) in enumerate(_METRICS[task]):
                table.add_column(heading, justify="right", no_wrap=True)
                if i < 2:
                    table.add_column("paper", justify="right", style="dim", no_wrap=True)
            for row in rows:
                table.add_row(escape(row.dataset), row.model, str(row.tracks), *_cells(row))
            console.print(table)
    extraction = sets[0].extraction
    revisions = (extraction.encoder_revision, extraction.chords_revision)
    encoder, chords = (revision.removeprefix("sha256:")[:12] for revision in revisions)
    lines = [
        *(f"labels     {data.name}: {data.provenance}" for data in sets),
        f"encoder    {extraction.encoder} {encoder}, layers {', '.join(str(layer) for layer in config.layers)}",
        f"chords     {extraction.chords} {chords}".rstrip(),
        f"training   preset {config.based_on}, at most {config.epochs} epochs, seed {config.seed}",
        *(f"note       {note}" for data in sets for note in data.notes),
        *(
            f"note       {row.dataset}: {row.metrics.skipped} tags have no positive or no negative test track; "
            f"means are over the other {row.metrics.tags}"
            for row in results
            if isinstance(row.metrics, TagMetrics) and row.metrics.skipped and row.model != "teacher"
        ),
    ]
    for line in lines:
        say(line)


_TITLES: dict[Task, str] = {"tags": "tags", "valence_arousal": "valence (V) and arousal (A)"}
# Heading and field of Metrics; the first two are the ones that the paper gives.
_METRICS: dict[Task, tuple[tuple[str, str], ...]] = {
    "tags": (("PR-AUC", "pr_auc"), ("ROC-AUC", "roc_auc")),
    "valence_arousal": (
        ("R2 V", "r2_valence"),
        ("R2 A", "r2_arousal"),
        ("RMSE V", "rmse_valence"),
        ("RMSE A", "rmse_arousal"),
    ),
}


def _cells(row: Result) -> list[str]:
    values = asdict(row.metrics) if row.metrics else {}
    cells: list[str] = []
    for i, (_, field) in enumerate(_METRICS[row.task]):
        cells.append(_number(values.get(field)))
        if i < 2:
            cells.append(_number(row.paper[i] if row.paper else None))
    return cells


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
