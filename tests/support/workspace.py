"""A tiny project as the documentation describes one: data, caches, a trained run, songs. All of it synthetic.

Its layout is that of the commands' defaults, seen from the folder in which they are called. Four small sets stand in
for the paper's, under the paper's names, so that documented commands on their caches run as they are written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import soundfile
from click.testing import Result
from numpy.typing import NDArray
from support.lent import invoke

from m2e.cache import read_labels, write_labels

SETS = {"mtg-jamendo": "J", "deam": "D", "emomusic": "E", "pmemo": "P"}
TAGS = ("calm", "dark", "energetic", "happy")
SPLITS = ("train", "train", "train", "validation", "test") * 2
RUN = Path("runs/J-D-E-P-paper-0")
STUDENT = RUN / "student"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With `folder` as the working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(command: str, *arguments: str | Path) -> Result:
    """An m2e command by its name, in this process: nothing heavy is loaded twice. Its exceptions are ours."""
    return invoke(load_command(command), [str(each) for each in arguments], catch_exceptions=False)


def load_command(name: str) -> click.Command:
    """The command behind a name such as m2e-extract."""
    from importlib.metadata import entry_points

    (found,) = entry_points(group="console_scripts", name=name)
    return found.load()


def make_workspace(folder: Path) -> Path:
    """Make it in an empty folder."""
    with inside(folder):
        tables = [_write_set(Path(f"small-{name}.csv"), number) for number, name in enumerate(SETS)]
        named = [option for table in tables for option in ("--dataset", table)]
        _run("m2e-extract", *named, "--encoder", "tiny", "--chords", "template", "--device", "cpu", "--jobs", "1")
        for table, (name, letter) in zip(tables, SETS.items(), strict=True):
            labels = read_labels(Path("features", table.stem))
            Path("features", table.stem).rename(Path("features", name))
            provenance = "SYNTHETIC songs of a few tones"
            write_labels(Path("features", name), replace(labels, dataset=name, letter=letter, provenance=provenance))
        _run("m2e-train", "--datasets", "J,D,E,P", "--epochs", "2", "--out", RUN, "--device", "cpu")
        shutil.copytree(RUN, "demo/runs/JDEP")
        _write_set(Path("my-songs.csv"), 1)
        _write_music()
    return folder


def _run(command: str, *arguments: str | Path) -> None:
    result = call(command, *arguments)
    assert result.exit_code == 0, result.output


def _tones(number: int, seconds: float, rate: int = 22_050) -> NDArray[np.float64]:
    """A triad that goes up by a tone every second, in a key of its own."""
    t = np.arange(round(seconds * rate)) / rate
    root = 220 * 2 ** ((number % 12 + 2 * np.floor(t)) / 12)
    return sum(np.sin(2 * np.pi * np.cumsum(root * 2 ** (step / 12)) / rate) for step in (0, 4, 7)) / 4


def _write_set(table: Path, number: int) -> Path:
    """Ten songs of 2 s beside their table; set 0 has tags, the others valence and arousal."""
    Path(table.stem).mkdir()
    rows = [f"track_id,path,split,{'valence,arousal' if number else 'tags'}"]
    for i, split in enumerate(SPLITS):
        path = Path(table.stem, f"{i}.flac")
        soundfile.write(path, _tones(number + i, 2), 22_050)
        tags = ";".join(tag for bit, tag in enumerate(TAGS) if (i + 1) >> bit & 1)
        rows.append(f"{2001 + i},{path},{split},{f'{1 + i * 7 % 9},{9 - i % 9}' if number else tags}")
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def _write_music() -> None:
    """song.mp3 of two segments; music/: a short song, one of three segments and some more, a broken one."""
    soundfile.write("song.mp3", _tones(0, 65), 22_050)
    Path("music", "more").mkdir(parents=True)
    soundfile.write("music/short.ogg", _tones(3, 4), 22_050)
    soundfile.write("music/more/long.flac", _tones(5, 100), 22_050)
    Path("music/broken.mp3").write_bytes(b"not audio")
