"""What m2e-train does, as functions: train, evaluate, and make a table of the paper anew."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from m2e.common.console import say
from m2e.common.devices import usable_device
from m2e.common.errors import DataError
from m2e.common.files import write_atomically
from m2e.common.json_files import parse_object
from m2e.common.regular import read_regular
from m2e.common.threads import one_thread
from m2e.train.aside import set_files_aside
from m2e.train.config import INPUTS, TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning.distributed import local_rank, process_group, rank
from m2e.train.learning.loop import Trained
from m2e.train.model.checkpoint import WEIGHTS_FILE
from m2e.train.report.forms import REPORT_FILE, REPORT_FILES, write_report
from m2e.train.report.model_card import write_model_cards
from m2e.train.report.paper import TABLES
from m2e.train.report.report import Report, cautions, make_report
from m2e.train.report.results import Curves
from m2e.train.run import train_all
from m2e.train.scoring.agreement import exchanged_labels
from m2e.train.scoring.leaks import find_leaks
from m2e.train.scoring.test_splits import score_checkpoint, score_run
from m2e.train.tables import open_available, train_table


@dataclass(frozen=True, eq=False)
class Experiment:
    """What `train`, `evaluate` or `reproduce` found.

    Attributes:
        report: the results; its `to_frame()` is a pandas table.
        folder: where models and report.html, .md, .csv and .json are.
        models: of `train`, every model under the name of its folder: "teacher-J" ... "student", or "single-J".
    """

    report: Report
    folder: Path
    models: dict[str, Trained] = field(default_factory=dict)


def train(
    datasets: Sequence[str],
    cache: str | Path = "features",
    out: str | Path | None = None,
    *,
    preset: str = "paper",
    seed: int = 0,
    device: str = "auto",
    features: str | None = None,
    allow_missing: bool = False,
    tensorboard: bool = False,
    **changes: Any,
) -> Experiment:
    """Train on feature caches: a teacher for each data set, then a student; or a single model on one data set.

    Finished models in `out` are taken as they are, and unfinished ones go on, where settings and data are the same.

    Args:
        datasets: letters or names of data sets in `cache`.
        cache: the folder of all caches.
        out: a folder for models and report; None: one in ``runs``, named for what is asked.
        preset: "paper" or "release".
        seed: of everything random.
        device: "cpu", "cuda", or "auto".
        features: the beginning of a fingerprint, where a cache holds features of several settings.
        allow_missing: go on though more than a tenth of a data set's labelled tracks have no features.
        tensorboard: log the losses in ``out/tensorboard``.
        changes: fields of `TrainConfig` that differ from the preset, such as ``epochs=20``.

    Raises:
        DataError: a cache or a setting cannot be used, a loss is no longer finite, or the disk is full.
    """
    config = TrainConfig.preset(preset, seed=seed, **changes)
    with _timed(device) as (place, finish):
        caches = open_caches(Path(cache), datasets, features)
        sets = load_data(caches, config, place, allow_missing=allow_missing)
        labels = [data.label for data in sets]
        variant = "" if config.inputs == INPUTS else f"-{'-'.join(config.inputs)}"
        folder = Path(out or Path("runs") / f"{'-'.join(labels)}{variant}-{config.based_on}-{config.seed}")
        _begin(sets, config, folder)
        run = train_all(sets, config, folder, tensorboard=folder / "tensorboard" if tensorboard else None)
        curves = {name: Curves.of(model) for name, model in run.models.items()}
        evaluations = score_run(run, sets, config)
        report = make_report(
            f"Trained on {'+'.join(labels)}",
            evaluations,
            sets,
            config,
            str(place),
            curves=curves,
            seeds=[config.seed],
        )
        if not rank():
            write_model_cards(folder, run.models, report.results)
        return finish(report, folder, run.models)


def evaluate(
    model: str | Path,
    datasets: Sequence[str],
    cache: str | Path = "features",
    out: str | Path | None = None,
    *,
    device: str = "auto",
    features: str | None = None,
    allow_missing: bool = False,
) -> Experiment:
    """Test a model's folder, or a published checkpoint, on the test splits of data sets; the other arguments are
    those of `train`.

    Raises:
        DataError: the model or a cache cannot be used, or they do not fit each other.
    """
    path = Path(model)
    with _timed(device) as (place, finish):
        report = score_checkpoint(path, Path(cache), datasets, place, features, allow_missing)
        _say_what_lacks(report.sets)
        labels = "-".join(data.label for data in report.sets)
        name = f"{path.resolve().parent.name}-{path.name}" if path.is_dir() else path.stem
        return finish(report, Path(out or Path("runs") / f"evaluate-{name}-on-{labels}"))


def reproduce(
    table: int,
    cache: str | Path = "features",
    out: str | Path | None = None,
    *,
    preset: str = "paper",
    seeds: Sequence[int] = (0,),
    device: str = "auto",
    features: str | None = None,
    allow_missing: bool = False,
    **changes: Any,
) -> Experiment:
    """Train all that a table of the paper needs, 2, 3 or 4, once for each seed; the other arguments are those of
    `train`, whose errors these are, too."""
    if table not in TABLES:
        raise DataError(f"the paper's tables of results are {', '.join(map(str, TABLES))}, not {table}")
    config = TrainConfig.preset(preset, seed=seeds[0], **changes)
    with _timed(device) as (place, finish):
        paper = TABLES[table]
        folder = Path(out or Path("runs") / f"table-{table}-{config.based_on}")
        caches, left_out = open_available(paper, Path(cache), features)
        sets = load_data(caches, config, place, allow_missing=allow_missing)
        for line in left_out:
            say(line, "left out")
        _begin(sets, config, folder)
        evaluations, curves = train_table(paper, sets, config, seeds, folder)
        report = make_report(
            f"Table {paper.numeral} of the paper, trained anew",
            evaluations,
            sets,
            config,
            str(place),
            curves=curves,
            seeds=seeds,
            left_out=left_out,
            table=paper,
        )
        return finish(report, folder)


CONFIG_FILE = "config.json"
_LARGEST = 1 << 30
# Random numbers are the process's, so one experiment at a time draws them; they are put back.
_ALONE = threading.Lock()


class _Finish:
    """The end of an experiment: the time it took goes into its report, and that to the disk."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, report: Report, folder: Path, models: dict[str, Trained] | None = None) -> Experiment:
        report = replace(report, seconds=time.monotonic() - self._started)
        if not rank():
            if _is_another(folder / REPORT_FILE, report):
                set_files_aside(folder, REPORT_FILES)
            write_report(report, folder)
        return Experiment(report, folder, models or {})


@contextmanager
def _timed(device: str) -> Iterator[tuple[torch.device, _Finish]]:
    kind = usable_device(device)
    place, finish = torch.device(kind, local_rank()) if kind == "cuda" else torch.device(kind), _Finish()
    # On a CPU the matrices are small: more threads are slower, and sum in another order.
    with _ALONE, one_thread(), torch.random.fork_rng(), process_group(place):
        yield place, finish


def _begin(sets: list[EmotionData], config: TrainConfig, out: Path) -> None:
    """Say what is there and what to know of it, and write the config."""
    for data in sets:
        counts = ", ".join(f"{len(rows)} {split}" for split, rows in data.splits.items())
        say(f"{data.name}: {counts} tracks, {int(data.n_segments.sum())} segments")
        for note in data.notes:
            say(note, "note")
    _say_what_lacks(sets)
    for line in (*cautions(sets), *exchanged_labels(sets)):
        say(line, "note")
    for leak in find_leaks(sets, sets):
        say(f"{leak}: where both are used, results without them stand beside the others", "leak")
    if rank():
        return
    if (out / WEIGHTS_FILE).exists():
        raise DataError(f"{out} is a model's folder, and a run's is asked for: choose another --out")
    settings = config.to_json().encode()
    former = _read(out / CONFIG_FILE)
    if former is not None and former != settings:
        set_files_aside(out, (CONFIG_FILE, *REPORT_FILES))
    # First, so that a folder that cannot be written stops the run before its work, not after.
    write_atomically(out / CONFIG_FILE, settings)


def _is_another(path: Path, report: Report) -> bool:
    """There is a report, and it differs from this one in more than the time that it took."""
    former = _read(path)
    try:
        return former is not None and {**parse_object(former), "seconds": 0} != {**_plain(report), "seconds": 0}
    except (ValueError, DataError):
        return True


def _plain(report: Report) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(report.as_json()))
    return values


def _read(path: Path) -> bytes | None:
    """None: nothing is there. What cannot be read is no file of this run's."""
    try:
        return read_regular(path, _LARGEST)
    except FileNotFoundError:
        return None
    except (OSError, DataError):
        return b""


def _say_what_lacks(sets: Sequence[EmotionData]) -> None:
    for data in sets:
        if data.lack:
            say(data.lack, "missing", "red")
