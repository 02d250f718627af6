"""Data sets: official files to a table of tracks, splits and labels.

A new data set is one file beside these and one line in `DATASETS`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from m2e.common.errors import DataError
from m2e.manifests.dataset import AUTO, DEFAULT_CHOICES, NONE, Choices, DataSet
from m2e.manifests.datasets import deam, demo, emomusic, jamendo, pmemo
from m2e.manifests.read import table
from m2e.manifests.read.root import is_folder
from m2e.manifests.splits import align_splits, apply_splits
from m2e.manifests.types import SPLITS, Manifest, Split, Track, ValenceArousal

__all__ = ["DATASETS", "SPLITS", "Choices", "DataSet", "Manifest", "Split", "Track", "ValenceArousal", "find", "load"]

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        jamendo.DATASET,
        deam.DATASET,
        emomusic.DATASET,
        pmemo.DATASET,
        *demo.DATASETS,
    )
}


def default_root(name: str) -> Path:
    """Where a registered data set is looked for: its name in $M2E_DATA, or in data."""
    return Path(os.environ.get("M2E_DATA") or "data") / name


def find(name: str) -> DataSet:
    """The registered data set of this name.

    Raises:
        DataError: there is none; the line suggests the nearest.
    """
    if name in DATASETS:
        return DATASETS[name]
    if is_table(name):
        raise DataError(f"{name}: a table of your own is not published: this takes one of {', '.join(DATASETS)}")
    near = get_close_matches(name.lower(), DATASETS, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise DataError(
        f"no data set is called {name[:80]!r}: {guess}there are {', '.join(DATASETS)}, "
        "or give a CSV file of your own (a path that ends in .csv)"
    )


def is_table(dataset: str) -> bool:
    """Whether `dataset` is meant as a CSV file, not as a name."""
    return dataset.lower().endswith(".csv")


def load(
    dataset: str,
    root: Path | None = None,
    splits: Path | None = None,
    choices: Choices = DEFAULT_CHOICES,
    name: str = "",
) -> Manifest:
    """The manifest of a registered data set, or of a CSV file (see `m2e.manifests.read.table`).

    Args:
        dataset: a name in `DATASETS`, or a path that ends in .csv.
        root: folder of the data set; default: its name under $M2E_DATA or data, for a CSV file the file's own.
        splits: folder with train.txt, validation.txt and test.txt, in place of the data set's own splits.
        choices: what the data set leaves to the user.
        name: of the data set of a CSV file, in place of the file's.

    Raises:
        DataError: an unknown name; a folder or file that is missing, unreadable or damaged.
    """
    try:
        return _load(dataset, root, splits, choices, name)
    except OSError as error:
        raise DataError(f"{error.filename or dataset}: cannot be read: {error.strerror}") from error


def _load(dataset: str, root: Path | None, splits: Path | None, choices: Choices, name: str) -> Manifest:
    if is_table(dataset):
        manifest = table.read(Path(dataset), root, choices.scale, name, reserved=DATASETS)
    else:
        folder, registered = root or default_root(dataset), find(dataset)
        manifest = registered.read(folder, choices)
        if choices.align == AUTO and splits is None and registered.shares_clips_with:
            return _align_with_found(manifest, find(registered.shares_clips_with), folder)
    if splits is not None:
        manifest = apply_splits(manifest, splits)
    if choices.align not in (AUTO, NONE):
        whose, _, other = choices.align.partition("=")
        same_scale = replace(DEFAULT_CHOICES, scale=choices.scale)
        manifest = align_splits(manifest, load(whose, Path(other) if other else None, choices=same_scale))
    return manifest


def _align_with_found(manifest: Manifest, other: DataSet, root: Path) -> Manifest:
    """`manifest`, of the folder `root`, with the splits of `other` for clips of both, where `other` is found."""
    reason = "not there"
    # Not resolved: a root that is a link has its neighbours where the link is.
    beside, usual = Path(os.path.abspath(root)).parent / other.name, default_root(other.name)  # noqa: PTH100
    for folder in (beside, usual) if usual.absolute() != beside else (beside,):
        if is_folder(folder):
            try:
                return align_splits(manifest, other.read(folder))
            except DataError as error:
                reason = str(error).partition(f"; for {other.name}")[0]
    note = (
        f"the splits do not follow {other.name} ({reason}): training on both would see test clips; bring its "
        f"annotations (`m2e-manifest check {other.name}`) or say where they are (--align {other.name}=DIR)"
    )
    return replace(manifest, notes=(*manifest.notes, note))
