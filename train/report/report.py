"""What a run found, in one object."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from m2e.cache.settings import ExtractionConfig
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData
from m2e.train.report.grids import Grid, run_grids, table_grid
from m2e.train.report.paper import PaperTable
from m2e.train.report.results import LEAK_FREE, METRICS, Curves, Result, summarise
from m2e.train.scoring.agreement import exchanged_labels
from m2e.train.scoring.evaluate import Evaluation
from m2e.train.scoring.leaks import Leak

if TYPE_CHECKING:
    from pandas import DataFrame

SYNTHETIC = "SYNTHETIC data: not comparable with the paper"
UNTRAINED = "the encoder is untrained: its features are random projections"


@dataclass(frozen=True, eq=False)
class Report:
    """A run and its results.

    Attributes:
        title: a line.
        results, leaks: see `m2e.train.report.results`.
        evaluations: the outputs behind the results.
        curves: of each model that was trained, by name.
        sets: the data sets.
        config: of the models; a table's rows differ from it in their inputs.
        seeds: of the models.
        cautions: what must stand wherever the numbers stand.
        left_out: a line on each thing that could not be done.
        table: the paper's table that was asked for.
        device, seconds: where it ran, and how long.
    """

    title: str
    results: Sequence[Result]
    leaks: Sequence[Leak]
    evaluations: Sequence[Evaluation]
    curves: dict[str, Curves]
    sets: Sequence[EmotionData]
    config: TrainConfig
    seeds: Sequence[int]
    cautions: Sequence[str]
    left_out: Sequence[str]
    table: PaperTable | None
    device: str
    seconds: float

    @property
    def extraction(self) -> ExtractionConfig:
        """The settings behind the features."""
        return self.sets[0].extraction

    def grids(self) -> list[Grid]:
        """The results as tables of text."""
        return [table_grid(self.table, self.results)] if self.table else run_grids(self.results)

    def to_frame(self) -> DataFrame:
        """The results as a pandas table, a row a metric: model, trained_on, inputs, seeds, dataset, test, tracks,
        metric, mean and sd over seeds, low and high of its interval, the paper's number, and the difference from it."""
        import pandas as pd

        frame = pd.DataFrame(list(self.rows()))
        numbers = ["mean", "sd", "low", "high", "paper", "difference"]
        return frame.astype(dict.fromkeys(numbers, float))

    def rows(self) -> Iterator[dict[str, Any]]:
        """A metric of each result."""
        for each in self.results:
            made = each.made
            for _, field in METRICS[each.task]:
                yield {
                    "model": made.model,
                    **{name: "+".join(map(str, getattr(made, name))) for name in ("trained_on", "inputs", "seeds")},
                    "dataset": each.dataset,
                    "test": each.test,
                    "tracks": each.tracks,
                    "metric": field,
                    "mean": each.value(field),
                    "sd": each.spread(field),
                    "low": each.low(field),
                    "high": each.high(field),
                    "paper": each.of_paper(field),
                    "difference": each.difference(field),
                }

    def facts(self) -> list[tuple[str, str]]:
        """Terms and texts: where labels, splits, features and chords come from, and what to know of the numbers."""
        extraction = self.extraction
        revisions = (extraction.encoder_revision, extraction.chords_revision)
        encoder, chords = (revision.removeprefix("sha256:").removeprefix("git-blob:")[:12] for revision in revisions)
        layers = ", ".join(str(layer) for layer in self.config.layers)
        seeds = ", ".join(str(seed) for seed in self.seeds)
        training = [f"preset {self.config.based_on}, at most {self.config.epochs} epochs"]
        training += [f"inputs {', '.join(self.config.inputs)}"] * (self.table is None)
        training += [f"seed{'s' * (len(self.seeds) > 1)} {seeds}"] * bool(self.seeds)
        return [
            *(("labels", f"{data.name}: {data.provenance}") for data in self.sets),
            *(("splits", f"{data.name}: {_counts(data)} tracks") for data in self.sets),
            ("encoder", f"{extraction.encoder} {encoder}, layers {layers}"),
            ("chords", f"{extraction.chords} {chords}".rstrip()),
            ("training", ", ".join(training)),
            ("intervals", "95 %, bootstrap over test tracks (1000 resamples, percentiles around the number)"),
            *(("leak", str(leak)) for leak in self.leaks),
            *([("leak", LEAK_NOTE)] if self.leaks else []),
            *(("left out", line) for line in self.left_out),
            *(("note", line) for line in exchanged_labels(self.sets)),
            *(("note", data.lack) for data in self.sets if data.lack),
            *(("note", note) for data in self.sets for note in data.notes),
            *(("note", line) for line in dict.fromkeys(_absent_classes(self.results))),
        ]

    def as_json(self) -> dict[str, Any]:
        """Everything but the outputs; all values are plain JSON."""
        return {
            "title": self.title,
            "cautions": list(self.cautions),
            "left_out": list(self.left_out),
            "results": [result.as_json() for result in self.results],
            "leaks": [asdict(leak) for leak in self.leaks],
            "models": {
                name: {
                    "epochs": len(curves.training),
                    "best_epoch": curves.best_epoch,
                    "training_loss": curves.training,
                    "validation_loss": curves.validation,
                }
                for name, curves in self.curves.items()
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
                for data in self.sets
            ],
            "seeds": list(self.seeds),
            "config": json.loads(self.config.to_json()),
            "extraction": json.loads(self.extraction.to_json()),
            "features": self.extraction.fingerprint,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in ("m2e", "torch", "numpy", "scikit-learn")},
            },
            "device": self.device,
            "seconds": round(self.seconds, 1),
        }


LEAK_NOTE = f"rows marked {LEAK_FREE} leave these tracks out; the paper's numbers are on all tracks"


def make_report(
    title: str,
    evaluations: Sequence[Evaluation],
    sets: Sequence[EmotionData],
    config: TrainConfig,
    device: str,
    *,
    seconds: float = 0.0,
    curves: dict[str, Curves] | None = None,
    seeds: Sequence[int] = (),
    more_cautions: Sequence[str] = (),
    left_out: Sequence[str] = (),
    table: PaperTable | None = None,
    trained: Sequence[EmotionData] = (),
) -> Report:
    """Measure what models said of test sets, and put it together; the fields are those of `Report`.

    Args:
        trained: data sets that the models were trained on, where these are others than `sets`.
    """
    results, leaks = summarise(evaluations, [*sets, *trained])
    return Report(
        title=title,
        results=results,
        leaks=leaks,
        evaluations=evaluations,
        curves=curves or {},
        sets=sets,
        config=config,
        seeds=seeds,
        cautions=[*cautions(sets), *more_cautions],
        left_out=left_out,
        table=table,
        device=device,
        seconds=seconds,
    )


def cautions(sets: Sequence[EmotionData]) -> list[str]:
    """What the data alone make one say."""
    synthetic = any(data.name.startswith("demo-") or "synthetic" in data.provenance.lower() for data in sets)
    return [
        *[SYNTHETIC] * synthetic,
        *[UNTRAINED] * (sets[0].extraction.encoder == "tiny"),
        *(f"{data.lack}: these are results of a part of it" for data in sets if data.is_partial),
    ]


def _counts(data: EmotionData) -> str:
    return ", ".join(f"{len(rows)} {split}" for split, rows in data.splits.items())


def _absent_classes(results: Sequence[Result]) -> list[str]:
    counted = (
        ("without_positives", "no positive", "whose average precision counts as 0 and whose ROC-AUC is undefined"),
        ("without_negatives", "no negative", "whose ROC-AUC is undefined"),
    )
    return [
        f"{each.dataset} ({each.test}): {n} tag{'s' * (n > 1)} with {what} test track, {how} and left out of the mean, "
        "as scikit-learn has it"
        for each in results
        for field, what, how in counted
        if (n := getattr(each, field))
    ]
