"""m2e-cache relabel: other labels and splits for a cache, without touching audio or features."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from m2e.common.console import Command, say
from m2e.common.errors import DataError
from m2e.manifests.dataset import Choices
from m2e.manifests.options import check_choices, choices_options, root_option, splits_option

if TYPE_CHECKING:
    from m2e.cache.types import Labels

EPILOG = """\b
Examples:
  m2e-cache relabel features/deam --root data/deam --deam-labels repaired
  m2e-cache relabel features/emomusic --splits my-lists
  m2e-cache relabel features/deam --manifest deam.csv
"""


@click.command(cls=Command, epilog=EPILOG)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--manifest",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take labels and splits from this CSV file, such as `m2e-manifest build` writes, not from the official files.",
)
@root_option
@splits_option
@choices_options
@click.option("--break-lock", is_flag=True, help="Go on though another process holds the cache's lock.")
@click.option("--json", "as_json", is_flag=True, help="Print what changed as JSON on standard output.")
def relabel(
    folder: Path,
    table: Path | None,
    root: Path | None,
    splits: Path | None,
    choices: Choices,
    break_lock: bool,
    as_json: bool,
) -> None:
    """Replace labels and splits in the cache FOLDER of a data set, at once and whole; features stay as they are.

    They come from the data set's official files (audio need not be there) or from a CSV file.
    """
    from m2e.cache.folders import training_command
    from m2e.cache.labels import write_labels
    from m2e.cache.lock import pack_lock
    from m2e.manifests import DATASETS, load
    from m2e.manifests.store import manifest_labels, with_standing

    if table is not None and table.suffix.lower() != ".csv":
        raise click.BadParameter(f"{table} does not end in .csv", param_hint="--manifest")
    old = _labels(folder)
    name = old.dataset if old else folder.resolve().name
    source = str(table or name)
    if table is None and source not in DATASETS:
        raise DataError(f"{folder} is the cache of a table of your own: give it, for example --manifest {name}.csv")
    check_choices(choices, [source])
    manifest = load(source, root, splits, choices)
    known = old.source if old else None
    new = manifest_labels(manifest)
    same = old is not None and known is not None and manifest.root is not None and old.is_same(new)
    if same and manifest.name != name:  # the cache was given a name of its own
        manifest = dataclasses.replace(manifest, name=name)
        new = manifest_labels(manifest)
    if manifest.name != name:
        raise DataError(f"{folder} is the cache of {name}, and {source} is a manifest of {manifest.name}")
    if known and known.root and manifest.root is not None and not same:
        raise DataError(
            f"{folder} was made from another table of this name, in {known.root}: `m2e-extract --replace` puts one in "
            "the place of the other"
        )
    if old is None:
        say(f"{folder}: its labels are missing and cannot be compared", "note")
    if old is None or not old.is_equal(with_standing(new, old)):
        with pack_lock(folder, break_lock):
            old = _labels(folder)
            if old and not set(new.track_ids) & set(old.track_ids):
                raise DataError(
                    f"{folder} and {source} have no track in common: their ids are such as {old.track_ids[0]!r} and "
                    f"{new.track_ids[0]!r}"
                )
            write_labels(folder, with_standing(new, old))
    changed = changes(old, new)
    if as_json:
        click.echo(json.dumps({"dataset": new.dataset, "provenance": new.provenance, **changed}))
    for note in manifest.notes:
        say(note, "note")
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in changed.items())
    say(
        f"{folder}/labels.h5 is replaced: {counts}. "
        + (f"It said: {old.provenance}. " if old and old.provenance != new.provenance else "")
        + f"It now says: {new.provenance}. Next: {training_command(new.letter or new.dataset, folder)}"
    )


def _labels(folder: Path) -> Labels | None:
    """The labels that are there; None where there are none, beside features that need some."""
    from m2e.cache.labels import has_labels, read_labels

    if has_labels(folder) or not any(folder.glob("features-*")):
        return read_labels(folder)
    return None


def changes(old: Labels | None, new: Labels) -> dict[str, int]:
    """How many tracks were added, removed, moved to another split, or given other labels."""
    if old is None:
        return {"tracks": len(new.track_ids)}
    before = {track_id: i for i, track_id in enumerate(old.track_ids)}
    both = [(before[track_id], i) for i, track_id in enumerate(new.track_ids) if track_id in before]
    return {
        "tracks": len(new.track_ids),
        "added": len(new.track_ids) - len(both),
        "removed": len(old.track_ids) - len(both),
        "other_split": sum(old.splits[i] != new.splits[j] for i, j in both),
        "other_valence_or_arousal": sum(_point(old, i) != _point(new, j) for i, j in both),
        "other_tags": sum(_tags(old, i) != _tags(new, j) for i, j in both),
    }


def _point(labels: Labels, row: int) -> tuple[float | None, ...]:
    return tuple(None if value != value else value for value in labels.valence_arousal[row].tolist())


def _tags(labels: Labels, row: int) -> set[str]:
    return {name for name, has in zip(labels.tag_names, labels.tags[row].tolist(), strict=True) if has}
