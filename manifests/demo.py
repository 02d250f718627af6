"""Four synthetic stand-ins for the paper's sets: each a manifest.csv in the form of `table`, with audio beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from m2e.manifests import table
from m2e.manifests.dataset import DataSet
from m2e.manifests.track import Manifest


def parse(name: str, letter: str, root: Path) -> Manifest:
    """The manifest of the synthetic set at `root`."""
    labels = "synthetic labels of synthetic audio, for demonstration only"
    return table.read(root / "manifest.csv", root, name, letter, labels)


DATASETS = tuple(
    DataSet(
        name=name,
        letter=letter,
        description=f"synthetic stand-in for {stands_for}: made in seconds, learns nothing about music",
        holds="manifest.csv and the folder audio",
        source="`python -m m2e.extract.demo`",
        parse=partial(parse, name, letter),
    )
    for name, letter, stands_for in (
        ("demo-jamendo", "J", "MTG-Jamendo"),
        ("demo-deam", "D", "DEAM"),
        ("demo-emomusic", "E", "EmoMusic"),
        ("demo-pmemo", "P", "PMEmo"),
    )
)
