"""m2e-train: caches to models and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from m2e.common.console import Command, cache_option, device_option, say
from m2e.common.errors import DataError
from m2e.common.interrupts import interruptible

EPILOG = """\b
Examples:
  m2e-train --datasets J,D,E,P
  m2e-train --datasets emomusic --epochs 50 --out runs/try
  m2e-train --datasets J,E --preset release --device cuda
  m2e-train --table 3 --seeds 0,1,2
  m2e-train --evaluate runs/J-D-E-P-paper-0/student --datasets J,D,E,P
  m2e-train --import-checkpoint J_all.ckpt --out runs/published
  torchrun --standalone --nproc-per-node 2 --no-python m2e-train --datasets J,D,E,P

\b
Several data sets: a teacher each, then a student that learns from all teachers and labels.
One data set: a single model, as in the paper's row "single".

\b
Every run writes report.html, .md, .csv and .json. Test clips that were also trained on, in the
same data set or in another, are counted, and results without them stand beside the others.

\b
Interrupted? The same command goes on from the last epoch that was kept, to the same result.

\b
Exit codes: 0 done; 1 the caches cannot be used, or the disk is full; 2 wrong usage;
130 or 143 interrupted.
"""

# As in m2e.train.config, which takes too long to load for --help.
_INPUTS = ("mert", "chords", "key")
_LARGEST_SEED = 2**63 - 1
# All that these modes take besides their own option; anything else that is given is an error, not ignored.
_SCORING = {"checkpoint", "datasets", "cache", "out", "device", "features", "allow_missing", "as_json"}
_IMPORTING = {"published", "out"}


def _read_seeds(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers, such as 0,1,2") from error
    if min(seeds) < 0 or max(seeds) > _LARGEST_SEED or len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"{text!r}: seeds are different numbers, 0 to {_LARGEST_SEED}")
    return seeds


def _read_inputs(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    given = {part.strip() for part in text.split(",")}
    if unknown := given - set(_INPUTS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))!r} is none of {', '.join(_INPUTS)}")
    return tuple(name for name in _INPUTS if name in given)


@click.command(cls=Command, epilog=EPILOG, context_settings={"max_content_width": 110})
@click.option("--datasets", metavar="J,D,...", help="Letters or names of data sets in --cache.")
@click.option(
    "--table",
    type=click.Choice(["2", "3", "4"]),
    help="In place of --datasets: train all that this table of the paper needs, and print it with the paper's numbers.",
)
@click.option(
    "--evaluate",
    "checkpoint",
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR|CKPT",
    help="Train nothing: test this model folder, or published checkpoint, on --datasets.",
)
@click.option(
    "--import-checkpoint",
    "published",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="CKPT",
    help="Train nothing: make a model folder, --out, of a published checkpoint (J_all.ckpt and the like).",
)
@cache_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for models and report.  [default: one in runs, named for what was asked]",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "release"]),
    default="paper",
    show_default=True,
    help="What the paper says, or what its released code does.",
)
@click.option(
    "--inputs",
    callback=_read_inputs,
    default=",".join(_INPUTS),
    show_default=True,
    metavar="NAME,...",
    help="What the models see: mert alone, chords,key without audio features, or all (Table II).",
)
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="At most so many.  [default: the preset's]")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Tracks of each data set a step.  [default: 8]")
@click.option(
    "--lr", type=click.FloatRange(0, 1, min_open=True), metavar="RATE", help="Learning rate of Adam.  [default: 1e-4]"
)
@click.option(
    "--seed", type=click.IntRange(0, _LARGEST_SEED), default=0, show_default=True, help="Of everything random."
)
@click.option(
    "--seeds",
    callback=_read_seeds,
    default="0",
    show_default=True,
    metavar="N,N,...",
    help="With --table: train everything once for each, and print mean and standard deviation.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bf16"]),
    help="Of matrix products in training; the others are for GPUs.  [default: float32]",
)
@click.option("--tensorboard", is_flag=True, help="Log the losses of every epoch in the folder tensorboard of --out.")
@device_option
@click.option("--features", metavar="PREFIX", help="Which settings, where a cache holds several.")
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Go on though more than a tenth of a data set's labelled tracks have no features.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
@click.pass_context
def main(
    context: click.Context,
    datasets: str | None,
    table: str | None,
    checkpoint: Path | None,
    published: Path | None,
    cache: Path,
    out: Path | None,
    preset: str,
    inputs: tuple[str, ...],
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    seed: int,
    seeds: tuple[int, ...],
    precision: str | None,
    tensorboard: bool,
    device: str,
    features: str | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Train on feature caches and compare test metrics with the paper's; no audio is touched.

    On the CPU, the same command gives the same numbers and the same files again.
    """
    mode = _mode(context)
    elsewhere = " and another --out" if out else ""
    if mode == "import":
        assert published
        _import(published, out or Path("runs") / published.stem)
        return

    from m2e.train import experiments
    from m2e.train.config import TrainConfig
    from m2e.train.learning.distributed import job_rank
    from m2e.train.report.forms import show_report

    place: dict[str, Any] = {
        "cache": cache,
        "out": out,
        "device": device,
        "features": features,
        "allow_missing": allow_missing,
    }
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr, "precision": precision}
    how: dict[str, Any] = {"inputs": inputs}
    how |= {name: value for name, value in given.items() if value is not None}
    names = (datasets or "").split(",")
    try:
        TrainConfig.preset(preset, **how)
    except DataError as error:  # all of it comes from options
        raise click.UsageError(str(error)) from error
    with interruptible(_say_what_is_kept):
        if mode == "evaluate":
            assert checkpoint
            found = experiments.evaluate(checkpoint, names, **place)
        elif table:
            found = experiments.reproduce(int(table), **place, preset=preset, seeds=seeds, **how)
        else:
            found = experiments.train(names, **place, preset=preset, seed=seed, tensorboard=tensorboard, **how)
    if job_rank():
        return
    report, folder = found.report, found.folder
    show_report(report)
    if as_json:
        click.echo((folder / "report.json").read_text(encoding="utf-8"), nl=False)
    more = ",".join(map(str, [*seeds, max(seeds) + 1, max(seeds) + 2]))
    next_step = {
        "train": f"for the spread over seeds: the same command with --seed {seed + 1}{elsewhere}",
        "table": f"for the spread over seeds: the same command with --seeds {more}; what is done is kept",
        "evaluate": "the curves of every tag, and every track: the page in a browser",
    }[mode]
    files = f"report.html, .md, .csv and .json are in {folder}"
    say(f"{report.seconds:.0f} s. {files if mode == 'evaluate' else f'Models, {files}'}. Next, {next_step}")


def _say_what_is_kept() -> None:
    say("interrupted: finished models and the last epoch are kept. Run the same command to go on.")


def _mode(context: click.Context) -> str:
    """Which of the four things is asked for; options that would have no effect are refused."""
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and context.get_parameter_source(parameter.name) == ParameterSource.COMMANDLINE
    }
    modes = {"table": "table", "checkpoint": "evaluate", "published": "import"}
    chosen = [name for name in modes if name in given]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(given[name] for name in chosen)} are different things: give one of them")
    mode = modes[chosen[0]] if chosen else "train"
    if mode in ("train", "evaluate") and "datasets" not in given:
        raise click.UsageError("which data sets? Give --datasets, such as --datasets J,D,E,P")
    idle = {
        "train": given.keys() & {"seeds"},
        "table": given.keys() & {"datasets", "inputs", "seed", "tensorboard"},
        "evaluate": given.keys() - _SCORING,
        "import": given.keys() - _IMPORTING,
    }[mode]
    if idle:
        options = ", ".join(sorted(given[name] for name in idle))
        raise click.UsageError(
            f"{options} cannot be given with {given[chosen[0]]}"
            if chosen
            else f"{options} is for --table; one run has --seed"
        )
    return mode


def _import(path: Path, folder: Path) -> None:
    from m2e.train.model.released import import_checkpoint
    from m2e.train.report.model_card import write_model_card

    card = import_checkpoint(path, folder)
    write_model_card(folder, card)
    names = ", ".join(data["name"] for data in card.datasets) or "its name does not say what"
    say(
        f"{path}: predicts {' and '.join(card.tasks).replace('_', ' and ')}, trained on {names}; "
        f"its features are layers {', '.join(map(str, card.train.layers))} of {card.extraction.encoder}"
    )
    say(f"The model is in {folder}. Next, to test it: m2e-train --evaluate {folder} --datasets J,D,E,P")
