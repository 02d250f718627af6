"""m2e-manifest leaks: test songs that training on several data sets together would see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import click

from m2e.common.console import Command, aligned, say
from m2e.manifests import DATASETS, is_table, load
from m2e.manifests.check.leaks import Leak, find_leaks
from m2e.manifests.dataset import AUTO, Choices
from m2e.manifests.options import check_choices, choices_options, json_option
from m2e.manifests.types import SPLITS, Manifest

T = TypeVar("T")


@click.command(
    cls=Command,
    epilog="Example: m2e-manifest leaks --data D=data/deam --data E=data/emomusic --splits E=lists/emomusic",
)
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="NAME=DIR|FILE.csv",
    help="A data set by name or letter, and its folder.",
)
@click.option(
    "--splits", multiple=True, metavar="NAME=DIR", help="Lists of ids in place of the splits of data set NAME."
)
@choices_options
@json_option
def leaks(data: tuple[str, ...], splits: tuple[str, ...], choices: Choices, as_json: bool) -> None:
    """Count test songs that training on these data sets together would see: a row a pair, a column a split.

    A table of your own is given as FILE.csv alone, its splits by its column or the default.
    """
    lists = _once([_pair(text, "--splits") for text in splits], "--splits")
    folders = _once(
        [(text, None) if "=" not in text and is_table(text) else _pair(text, "--data") for text in data], "--data"
    )
    if stray := lists.keys() - folders.keys():
        raise click.BadParameter(f"{min(stray)} is not among --data", param_hint="--splits")
    check_choices(choices, list(folders))
    manifests = [
        load(name, folder, lists.get(name), choices if name in lists else _aligned(name, folders, choices))
        for name, folder in folders.items()
    ]
    _once([(manifest.name, None) for manifest in manifests], "--data")
    found = find_leaks(manifests)
    if as_json:
        click.echo(json.dumps([asdict(leak) for leak in found], indent=2))
        return
    click.echo(_table(manifests, found))
    seen = [leak for leak in found if leak.split != "test" and leak.same + leak.duplicates]
    if any(leak.duplicates for leak in found):
        say("+n: the clip is there under another id: known duplicates.")
    if any(leak.tested != leak.seen for leak in seen):
        say(
            "Clips stay on one side where NAME follows OTHER: m2e-cache relabel features/NAME --align OTHER=DIR, or "
            "m2e-extract --dataset NAME --align OTHER=DIR"
        )
    elif not seen:
        say("No clip of a test set is in a train or validation split.")


def _once(pairs: Sequence[tuple[str, T]], option: str) -> dict[str, T]:
    """The pairs as a dictionary, of names that stand once."""
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.BadParameter(f"{twice[0]} is given twice", param_hint=option)
    return dict(pairs)


def _aligned(name: str, folders: Mapping[str, Path | None], choices: Choices) -> Choices:
    """`choices`, with the data set that `name` follows by default read from where the user says it is."""
    other = DATASETS[name].shares_clips_with if name in DATASETS else ""
    if choices.align != AUTO or other not in folders:
        return choices
    return replace(choices, align=f"{other}={folders[other]}")


def _pair(text: str, option: str) -> tuple[str, Path]:
    """NAME=DIR, where NAME may be a letter of the paper's tables."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise click.BadParameter(f"{text!r} is not NAME=DIR, such as D=data/deam", param_hint=option)
    of_letter = {dataset.letter: key for key, dataset in reversed(DATASETS.items())}
    return of_letter.get(name, name), Path(folder)


def _table(manifests: list[Manifest], found: list[Leak]) -> str:
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for leak in found:
        text = f"{leak.same}" + (f" +{leak.duplicates}" if leak.duplicates else "")
        cells.setdefault((leak.tested, leak.seen), {})[leak.split] = text
        if leak.artists is not None:
            cells.setdefault((leak.tested, f"{leak.seen}, by artist"), {})[leak.split] = f"{leak.artists}"
    tests = {manifest.name: sum(track.split == "test" for track in manifest.tracks) for manifest in manifests}
    rows = [["test set", "tracks", "also in", *SPLITS]]
    for (tested, seen), of_split in cells.items():
        rows.append([tested, f"{tests[tested]}", seen, *(of_split.get(split, "-") for split in SPLITS)])
    return aligned(rows)
