"""Four synthetic stand-ins for the paper's sets: each a manifest.csv in the form of `table`, with audio beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from m2e.manifests.dataset import Choices, DataSet
from m2e.manifests.read import table
from m2e.manifests.read.root import Place
from m2e.manifests.types import Manifest


def parse(name: str, letter: str, root: Path, choices: Choices) -> Manifest:
    """The manifest of the synthetic set at `root`."""
    labels = "synthetic labels of synthetic audio, for demonstration only"
    file = Place(root).inside("manifest.csv", name)
    return replace(table.read(file, root, name=name, letter=letter, labels=labels), root=None)


DATASETS = tuple(
    DataSet(
        name=name,
        letter=letter,
        description=f"synthetic stand-in for {stands_for}: made in seconds, learns nothing about music",
        holds="manifest.csv and the folder audio",
        source="`python -m m2e.synthetic.sets`",
        licence="made by m2e itself; no rights of others",
        parse=partial(parse, name, letter),
        steps=("run `python -m m2e.synthetic.sets --out DIR`: it makes the four demo sets, {root} among them",),
        issues=("sound and labels are synthetic: results on this set say nothing about music",),
    )
    for name, letter, stands_for in (
        ("demo-jamendo", "J", "MTG-Jamendo"),
        ("demo-deam", "D", "DEAM"),
        ("demo-emomusic", "E", "EmoMusic"),
        ("demo-pmemo", "P", "PMEmo"),
    )
)
