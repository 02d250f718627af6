"""m2e-train: caches to models and a report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from m2e.cache.console import Command, cache_option, device_option, say

if TYPE_CHECKING:
    import torch

EPILOG = """\b
Examples:
  m2e-train --datasets J,D,E,P
  m2e-train --datasets emomusic --epochs 50 --out runs/try
  m2e-train --datasets J,E --preset release --device cuda

\b
Several data sets: a teacher each, then a student that learns from all teachers and labels.
One data set: a single model, as in the paper's row "single".

\b
Exit codes: 0 done; 1 the caches cannot be used, or the disk is full; 2 wrong usage.
"""


@click.command(cls=Command, epilog=EPILOG, context_settings={"max_content_width": 110})
@click.option("--datasets", required=True, metavar="J,D,...", help="Letters or names of data sets in --cache.")
@cache_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for models and report.  [default: runs/<datasets>-<preset>-<seed>]",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "release"]),
    default="paper",
    show_default=True,
    help="What the paper says, or what its released code does.",
)
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="At most so many.  [default: the preset's]")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Tracks of each data set a step.  [default: 8]")
@click.option(
    "--lr", type=click.FloatRange(0, 1, min_open=True), metavar="RATE", help="Learning rate of Adam.  [default: 1e-4]"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@device_option
@click.option("--features", metavar="PREFIX", help="Which settings, where a cache holds several.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
def main(
    datasets: str,
    cache: Path,
    out: Path | None,
    preset: str,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    seed: int,
    device: str,
    features: str | None,
    as_json: bool,
) -> None:
    """Train on feature caches and compare test metrics with the paper's; no audio is touched.

    On the CPU, the same command gives the same numbers and the same files again.
    """
    from m2e.cache.files import write_atomically
    from m2e.train import report
    from m2e.train.config import TrainConfig
    from m2e.train.data import load_data, open_caches
    from m2e.train.run import train_all

    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr}
    config = TrainConfig.preset(
        preset, seed=seed, **{name: value for name, value in given.items() if value is not None}
    )
    place = _choose_device(device)
    sets = load_data(open_caches(cache, datasets.split(","), features), config, place)
    for data in sets:
        counts = ", ".join(f"{len(rows)} {split}" for split, rows in data.splits.items())
        line = f"{data.name}: {counts} tracks, {int(data.n_segments.sum())} segments"
        say(line)
        for note in data.notes:
            say(note, "note")
    for caution in report.cautions(sets):
        say(caution, "note")
    out = out or Path("runs") / f"{'-'.join(data.label for data in sets)}-{preset}-{seed}"
    # First, so that a folder that cannot be written stops the run before its work, not after.
    write_atomically(out / "config.json", config.to_json().encode())

    started = time.monotonic()
    run = train_all(sets, config, out)
    trained, results = run.models, report.evaluate_run(run, sets)
    summary = report.as_json(results, trained, sets, config, str(place), time.monotonic() - started)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    write_atomically(out / "report.json", text.encode())
    report.print_report(results, sets, config)
    if as_json:
        click.echo(text, nl=False)
    say(
        f"{time.monotonic() - started:.0f} s. Models and report.json are in {out}. "
        f"Next, for the spread over seeds: the same command with --seed {seed + 1}"
    )


def _choose_device(device: str) -> torch.device:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.BadParameter("this machine has no CUDA device; use --device cpu", param_hint="--device")
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if place.type == "cpu":
        # The matrices are small: more threads are slower, and sum in another order.
        torch.set_num_threads(1)
    return place
