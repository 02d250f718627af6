"""What is known of each model on each test set: metrics over seeds, intervals, the paper's numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from m2e.train.config import Task
from m2e.train.data.tensors import EmotionData
from m2e.train.learning.loop import Trained
from m2e.train.report.paper import Pair, paper_result
from m2e.train.scoring.evaluate import Evaluation, Made, metrics
from m2e.train.scoring.intervals import Intervals, intervals
from m2e.train.scoring.leaks import Leak, find_leaks, leaked
from m2e.train.scoring.metrics import TagMetrics

AS_PUBLISHED: Literal["as published"] = "as published"
LEAK_FREE: Literal["leak-free"] = "leak-free"

# Heading and field of each metric; the paper gives the first two.
METRICS: dict[Task, tuple[tuple[str, str], ...]] = {
    "tags": (("PR-AUC", "pr_auc"), ("ROC-AUC", "roc_auc")),
    "valence_arousal": (
        ("R2 V", "r2_valence"),
        ("R2 A", "r2_arousal"),
        ("RMSE V", "rmse_valence"),
        ("RMSE A", "rmse_arousal"),
    ),
}


@dataclass(frozen=True)
class Curves:
    """Losses of a model in every epoch: in training, mean over steps, and in validation a task; and the epochs that
    were chosen."""

    training: list[float]
    validation: dict[Task, list[float]]
    best_epoch: dict[Task, int]

    @classmethod
    def of(cls, trained: Trained) -> Self:
        """Those of a trained model."""
        return cls(trained.training, trained.validation, trained.best_epoch)


@dataclass(frozen=True)
class Result:
    """Models of one kind on one test set.

    Attributes:
        made: the models.
        dataset, letter: of the test set.
        task: what is measured.
        test: on all test tracks, or on those alone that no model of the run was trained on.
        tracks: how many these are.
        metrics: means over the seeds by field name, None where undefined; None altogether where there are no tracks.
        sd: standard deviations over the seeds (with n - 1); None of one seed.
        interval: 95 % over test tracks, see `m2e.train.scoring.intervals`.
        paper: the paper's two metrics for the same models and test set, None where it has none.
        without_positives, without_negatives: how many tags have none among these tracks, see `TagMetrics`.
    """

    made: Made
    dataset: str
    letter: str
    task: Task
    test: Literal["as published", "leak-free"]
    tracks: int
    metrics: dict[str, float | None] | None
    sd: dict[str, float | None] | None
    interval: Intervals | None
    paper: Pair | None
    without_positives: int = 0
    without_negatives: int = 0

    def value(self, field: str) -> float | None:
        """Of a metric, the mean over the seeds."""
        return self.metrics[field] if self.metrics else None

    def spread(self, field: str) -> float | None:
        """Its standard deviation over the seeds."""
        return self.sd[field] if self.sd else None

    def low(self, field: str) -> float | None:
        """Where its interval begins."""
        return bounds[0] if self.interval and (bounds := self.interval[field]) else None

    def high(self, field: str) -> float | None:
        """Where its interval ends."""
        return bounds[1] if self.interval and (bounds := self.interval[field]) else None

    def of_paper(self, field: str) -> float | None:
        """The paper's number for a metric."""
        fields = [name for _, name in METRICS[self.task][:2]]
        return self.paper[fields.index(field)] if self.paper and field in fields else None

    def difference(self, field: str) -> float | None:
        """Ours less the paper's."""
        ours, theirs = self.value(field), self.of_paper(field)
        return None if ours is None or theirs is None else ours - theirs

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        differences = {field: self.difference(field) for _, field in METRICS[self.task] if self.of_paper(field)}
        return {**values.pop("made"), **values, "difference": differences or None}


def summarise(evaluations: Sequence[Evaluation], sets: Sequence[EmotionData]) -> tuple[list[Result], list[Leak]]:
    """Results on all test tracks and, where test clips were trained on, also without those; and what is shared.

    All models on one test set are measured on the same tracks: a clip is left out of the second result if any of them
    was trained on it.

    Args:
        sets: the data sets that the models were trained on, as far as they are at hand.
    """
    results: list[Result] = []
    leaks: list[Leak] = []
    for each in evaluations:
        labels = {label for other in evaluations if other.data is each.data for label in other.made.trained_on}
        trained = [data for data in sets if data.label in labels]
        shared = leaked(each.data, trained)
        results.append(_result(each, np.ones(len(shared), bool), AS_PUBLISHED))
        if shared.any():
            results.append(_result(each, ~shared, LEAK_FREE))
            leaks += [leak for leak in find_leaks([each.data], trained) if leak not in leaks]
    return results, leaks


def _result(each: Evaluation, kept: NDArray[np.bool_], test: Literal["as published", "leak-free"]) -> Result:
    truth, outputs = each.truth[kept], each.outputs[:, kept]
    measured = [values for values in (metrics(each.task, truth, predicted) for predicted in outputs) if values]
    fields = [field for _, field in METRICS[each.task]]
    table = {field: [getattr(values, field) for values in measured] for field in fields}
    one = measured[0] if measured else None
    return Result(
        made=each.made,
        dataset=each.data.name,
        letter=each.data.letter,
        task=each.task,
        test=test,
        tracks=len(truth),
        metrics={field: _mean(values) for field, values in table.items()} if one else None,
        sd={field: _sd(values) for field, values in table.items()} if len(measured) > 1 else None,
        interval=intervals(each.task, truth, outputs) if one else None,
        # The paper measured on all test tracks.
        paper=paper_result(each.made.trained_on, each.data.letter, each.task, each.made.inputs)
        if test == AS_PUBLISHED
        else None,
        without_positives=one.without_positives if isinstance(one, TagMetrics) else 0,
        without_negatives=one.without_negatives if isinstance(one, TagMetrics) else 0,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def _sd(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.std(defined, ddof=1)) if len(defined) == len(values) else None
