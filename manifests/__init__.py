"""Data sets: official files to a table of tracks, splits and labels.

A new data set is one file beside these and one line in `DATASETS`.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests import deam, demo, emomusic, jamendo, pmemo, table
from m2e.manifests.dataset import DataSet
from m2e.manifests.splits import apply_splits
from m2e.manifests.track import SPLITS, Manifest, Split, Track, ValenceArousal

__all__ = ["DATASETS", "SPLITS", "DataSet", "Manifest", "Split", "Track", "ValenceArousal", "load"]

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


def load(dataset: str, root: Path | None = None, splits: Path | None = None) -> Manifest:
    """The manifest of a registered data set, or of a user's own CSV file (see `m2e.manifests.table`).

    Args:
        dataset: a name in `DATASETS`, or a path that ends in .csv.
        root: folder of the data set; default: its name under $M2E_DATA or data, for a CSV file the file's own.
        splits: folder with train.txt, validation.txt and test.txt, in place of the data set's own splits.

    Raises:
        DataError: an unknown name; a folder or file that is missing or damaged.
    """
    if dataset.lower().endswith(".csv"):
        # Under a registered name its clips and its cache would pass for that data set's.
        if Path(dataset).stem in DATASETS:
            raise DataError(f"{dataset}: rename the file; {Path(dataset).stem} is the name of a registered data set")
        manifest = table.read(Path(dataset), root)
    elif dataset in DATASETS:
        manifest = DATASETS[dataset].read(root or Path(os.environ.get("M2E_DATA") or "data") / dataset)
    else:
        near = get_close_matches(dataset.lower(), DATASETS, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"no data set is called {dataset!r}: {guess}there are {', '.join(DATASETS)}, "
            "or give a CSV file of your own (a path that ends in .csv)"
        )
    return manifest if splits is None else apply_splits(manifest, splits)
