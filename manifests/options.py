"""The options that say how a data set is read: the same on every command that reads one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from m2e.manifests import is_table
from m2e.manifests.dataset import AUTO, DEFAULT_CHOICES, NONE, Choices, DeamLabels

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Its folder.  [default: NAME in $M2E_DATA, or in data; for a CSV file, where it is]",
)
splits_option = click.option(
    "--splits",
    type=click.Path(path_type=Path, file_okay=False),
    help="For one data set: folder with train.txt, validation.txt, test.txt, an id a line, in place of its own splits.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def choices_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --deam-labels, --jamendo-split, --scale and --align, which reach it together as `choices`."""

    @click.option(
        "--deam-labels",
        type=click.Choice(get_args(DeamLabels)),
        default=DEFAULT_CHOICES.deam_labels,
        show_default=True,
        help="DEAM's songs 2-1000 have valence and arousal exchanged: kept, as in published results, or repaired.",
    )
    @click.option(
        "--jamendo-split",
        type=click.IntRange(0, 4),
        default=DEFAULT_CHOICES.jamendo_split,
        show_default=True,
        help="Which official split of MTG-Jamendo.",
    )
    @click.option(
        "--scale",
        type=float,
        nargs=2,
        metavar="LOW HIGH",
        default=DEFAULT_CHOICES.scale,
        show_default=True,
        help="Ends of the scale of valence and arousal in a CSV of your own; mapped to 1 and 9.",
    )
    @click.option(
        "--align",
        default=DEFAULT_CHOICES.align,
        metavar="NAME[=DIR]|FILE.csv|none",
        help="For one data set: clips that data set NAME holds too take its split.  [default: for deam emomusic, where "
        "its annotations are found]",
    )
    @wraps(command)
    def with_choices(
        deam_labels: Any, jamendo_split: int, scale: tuple[float, float], align: str, **others: Any
    ) -> Any:
        if not 0 < scale[1] - scale[0] < math.inf:
            raise click.BadParameter(f"{scale[0]:g} to {scale[1]:g} is no range", param_hint="--scale")
        if align.startswith("=") or align.endswith("=") or not align:
            raise click.BadParameter(f"{align!r} is not NAME or NAME=DIR", param_hint="--align")
        return command(choices=Choices(deam_labels, jamendo_split, scale, align), **others)

    return with_choices


def check_choices(choices: Choices, datasets: Sequence[str]) -> None:
    """Refuse a choice that concerns none of the data sets (names or CSV files), or several where it is of one.

    Raises:
        click.UsageError: with the option's name.
    """
    tables = any(is_table(dataset) for dataset in datasets)
    for option, given, concerned in (
        ("--deam-labels concerns deam", choices.deam_labels != DEFAULT_CHOICES.deam_labels, "deam" in datasets),
        ("--jamendo-split concerns mtg-jamendo", choices.jamendo_split != 0, "mtg-jamendo" in datasets),
        ("--scale concerns CSV files of your own", choices.scale != DEFAULT_CHOICES.scale, tables),
        ("--align none concerns deam", choices.align == NONE, "deam" in datasets),
    ):
        if given and not concerned:
            raise click.UsageError(f"{option}, and none of {', '.join(datasets)} (a built manifest has it made)")
    if choices.align not in (AUTO, NONE) and len(datasets) > 1:
        raise click.UsageError("--align is of one data set")


def as_arguments(splits: Path | None, choices: Choices) -> list[str]:
    """What to say on a command line to have the same splits and choices again."""
    arguments = ["--splits", str(splits)] if splits else []
    for field in fields(choices):
        value = getattr(choices, field.name)
        if value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            arguments += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return arguments
