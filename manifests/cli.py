"""m2e-manifest: get a data set, check it, look into it, write it as one CSV file."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from m2e.common.console import PluginGroup, say, tell
from m2e.common.errors import DataError
from m2e.manifests import is_table
from m2e.manifests.check.leaks_cli import leaks
from m2e.manifests.dataset import DEFAULT_CHOICES, Choices
from m2e.manifests.options import (
    as_arguments,
    check_choices,
    choices_options,
    json_option,
    root_option,
    splits_option,
)

if TYPE_CHECKING:
    from m2e.manifests.dataset import DataSet
    from m2e.manifests.types import Manifest, Track

EPILOG = """\b
Examples:
  m2e-manifest check                              which data sets there are, and which are here
  m2e-manifest check emomusic                     what to get, or what is there
  m2e-manifest fetch mtg-jamendo --root data/mtg-jamendo
  m2e-manifest check deam --splits lists/deam
  m2e-manifest build deam --align emomusic --out deam.csv
  m2e-manifest build my.csv --scale -1 1 --out my-on-1-9.csv
  m2e-manifest leaks --data D=data/deam --data E=data/emomusic
  m2e-manifest verify-audio deam                  decodes all audio: what is cut, damaged, silent, ...

\b
Data sets: mtg-jamendo (J), deam (D), emomusic (E), pmemo (P), demo-jamendo, demo-deam,
demo-emomusic, demo-pmemo, or a CSV of your own with the columns track_id, path and tags
and/or valence, arousal.
"""

name_argument = click.argument("name", metavar="NAME|FILE.csv")


@click.group(
    cls=PluginGroup, entry_points="m2e.manifest.commands", epilog=EPILOG, context_settings={"max_content_width": 110}
)
def main() -> None:
    """Get the data sets, check them, and see what is known of their labels and splits, before any audio is read."""


main.add_command(leaks)


def _load(name: str, root: Path | None, splits: Path | None, choices: Choices) -> Manifest:
    from m2e.manifests import load

    check_choices(choices, [name])
    return load(name, root, splits, choices)


@main.command(epilog="Example: m2e-manifest check deam --root data/deam --json")
@click.argument("name", metavar="[NAME|FILE.csv]", required=False)
@root_option
@splits_option
@choices_options
@json_option
def check(name: str | None, root: Path | None, splits: Path | None, choices: Choices, as_json: bool) -> None:
    """Say what is there of a data set, and how to get the rest; without a name, which data sets are here.

    Shows counts beside the paper's Table I, missing audio, unlabelled songs, duplicates, ranges of the labels, test
    songs that training sees, and every known issue. Exit code 1: its annotations are not there or damaged.
    """
    from m2e.manifests import DATASETS, default_root, find
    from m2e.manifests.check.report import describe, examine

    if name is None:
        if root or as_arguments(splits, choices):
            raise click.UsageError(
                "without a name the default folders are listed: name the data set that options concern"
            )
        _overview(as_json)
        return
    dataset = None if is_table(name) else find(name)
    folder = root or (Path(name).parent if dataset is None else default_root(name))
    steps = [step.format(root=shlex.quote(str(folder))) for step in dataset.steps] if dataset else []
    try:
        manifest = _load(name, root, splits, choices)
    except DataError as error:
        if as_json:
            click.echo(json.dumps({"dataset": name, "ready": False, "problem": str(error), "steps": steps}, indent=2))
        elif dataset and not _can_be_read(dataset, folder, choices):
            tell(f"{dataset.name} ({dataset.letter}): {dataset.description}")
            tell(f"{'licence':18}  {dataset.licence}")
            for issue in dataset.issues:
                tell(f"{'known issue':18}  {issue}")
            _echo_steps(steps)
            tell(f"{'then':18}  {_command('m2e-manifest check', name, root, splits, choices)}")
        raise
    facts = {"ready": True, **examine(manifest, dataset or DATASETS.get(manifest.name)), "steps": steps}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        tell(f"{manifest.name} ({manifest.letter or 'no letter'}): {dataset.description if dataset else name}")
        for line in describe(facts):
            tell(line)
        if facts["audio_missing"]:
            _echo_steps(steps)
    if facts["audio_found"]:
        say(f"Next: {_command('m2e-extract --dataset', name, root, splits, choices)}")
    elif steps:
        say("No audio is there yet: the steps above say how to get it. Then run this command again.")
    else:
        say(
            f"No audio is there yet. The paths in {name} are relative to {shlex.quote(str(folder))}; "
            "if the audio is elsewhere: --root DIR"
        )


def _can_be_read(dataset: DataSet, folder: Path, choices: Choices) -> bool:
    """Whether what a data set's folder holds is in order, and something else is wrong."""
    try:
        dataset.read(folder, choices)
    except DataError:
        return False
    return True


def _overview(as_json: bool) -> None:
    """A line a registered data set: whether its annotations and how many of its audio files are in its folder."""
    from m2e.manifests import DATASETS, default_root, load
    from m2e.manifests.read.root import is_folder

    rows: list[dict[str, Any]] = []
    for dataset in DATASETS.values():
        folder = default_root(dataset.name)
        row: dict[str, Any] = {"dataset": dataset.name, "letter": dataset.letter, "root": str(folder), "ready": False}
        try:
            tracks = load(dataset.name).tracks
            found = sum(track.has_audio for track in tracks)
            row |= {"ready": True, "tracks": len(tracks), "audio_found": found}
        except DataError as error:
            row["problem"] = str(error)
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row, dataset in zip(rows, DATASETS.values(), strict=True):
        there = "not there"
        if row["ready"]:
            there = f"audio of {row['audio_found']} of {row['tracks']} tracks"
        elif is_folder(Path(row["root"])):
            there = "incomplete or damaged"
        tell(f"{row['letter']}  {dataset.name:14}  {there} in {row['root']}; {dataset.description}")
    say("Next: m2e-manifest check NAME, which says how to get it and what is known of it")


def _echo_steps(steps: list[str]) -> None:
    for number, step in enumerate(steps, start=1):
        tell(f"{f'step {number}':18}  {step}")


def _command(
    command: str, name: str, root: Path | None, splits: Path | None = None, choices: Choices = DEFAULT_CHOICES
) -> str:
    where = ["--root", str(root)] if root else []
    return f"{command} {shlex.join([name, *where, *as_arguments(splits, choices)])}"


@main.command(epilog="Example: m2e-manifest build deam --deam-labels repaired --out deam.csv")
@name_argument
@root_option
@splits_option
@choices_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The .csv file to write.")
@json_option
def build(name: str, root: Path | None, splits: Path | None, choices: Choices, out: Path, as_json: bool) -> None:
    """Write a data set as one CSV file, which m2e-extract --dataset and m2e-cache relabel --manifest read."""
    from m2e.common.files import write_atomically
    from m2e.manifests import default_root
    from m2e.manifests.read import table

    if out.suffix.lower() != ".csv":
        raise click.BadParameter(f"{out} does not end in .csv", param_hint="--out")
    if not table.may_replace(out):
        raise DataError(f"{out}: is there already and was not written by m2e-manifest: choose another --out")
    manifest = _load(name, root, splits, choices)
    folder = root or (Path(name).parent if is_table(name) else default_root(name))
    write_atomically(out, table.write(manifest, folder))
    for note in manifest.notes:
        say(note, "note")
    if as_json:
        counts = Counter(track.split or "none" for track in manifest.tracks)
        click.echo(json.dumps({"dataset": manifest.name, "manifest": str(out), "splits": counts}))
    say(
        f"{len(manifest.tracks)} tracks of {manifest.name} are in {out}. "
        f"Next: {_command('m2e-extract --dataset', str(out), folder)}"
    )


@main.command(epilog="Example: m2e-manifest show deam 2 2001")
@name_argument
@click.argument("track_ids", nargs=-1, metavar="[TRACK_ID]...")
@root_option
@splits_option
@choices_options
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="How many, where none is named.")
@json_option
def show(
    name: str,
    track_ids: tuple[str, ...],
    root: Path | None,
    splits: Path | None,
    choices: Choices,
    limit: int,
    as_json: bool,
) -> None:
    """Show tracks as they will be extracted: audio, split, labels, clip group, artist."""
    manifest = _load(name, root, splits, choices)
    by_id = {track.track_id: track for track in manifest.tracks}
    if unknown := [track_id for track_id in track_ids if track_id not in by_id]:
        raise DataError(
            f"{manifest.name} has no track {unknown[0]!r}; its ids are such as {manifest.tracks[0].track_id!r}"
        )
    for track in [by_id[track_id] for track_id in track_ids] or manifest.tracks[:limit]:
        facts = _track_facts(track)
        line = json.dumps(facts) if as_json else "  ".join(f"{key}={value}" for key, value in facts.items())
        tell(line)
    if not track_ids and len(manifest.tracks) > limit:
        say(f"... {len(manifest.tracks) - limit} more: --limit N, or name the tracks")


def _track_facts(track: Track) -> dict[str, Any]:
    point = track.valence_arousal
    return {
        "track_id": track.track_id,
        "audio": str(track.audio_path),
        "audio_found": track.has_audio,
        "split": track.split,
        **({"valence": point.valence, "arousal": point.arousal} if point else {}),
        **({"tags": sorted(track.tags)} if track.tags is not None else {}),
        "clip_group": track.clip_group,
        "artist": track.artist,
    }


@main.command(epilog="Example: m2e-manifest fetch mtg-jamendo --root data/mtg-jamendo")
@click.argument("name")
@root_option
@click.option("--base-url", envvar="M2E_DATA_URL", show_envvar=True, metavar="URL", help="A mirror of the files.")
def fetch(name: str, root: Path | None, base_url: str | None) -> None:
    """Get a data set's metadata (not its audio) from pinned addresses, checked against known digests."""
    from m2e.manifests import default_root, find
    from m2e.manifests.fetch import fetch as fetch_files

    dataset = find(name)
    folder = root or default_root(name)
    files = fetch_files(dataset, folder, base_url)
    say(
        f"{len(files)} files are in {folder}, as published ({dataset.licence}). "
        f"Next, to learn how to get the audio: {_command('m2e-manifest check', name, root)}"
    )


if __name__ == "__main__":
    main()
