"""The whole road on synthesised music: audio files, extraction, caches, training, report."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2e.cache import read_labels, write_labels
from m2e.synthetic.sets import DEMO_SETS, make_demo

NAMES = [demo_set.name for demo_set in DEMO_SETS]


def run(module: str, *arguments: str | Path, **environment: str) -> str:
    """A command in a process of its own; its standard error."""
    code = f"from m2e.{module}.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    return result.stderr


def extract_all(data: Path, cache: Path, names: Sequence[str] = NAMES) -> None:
    sets = [option for name in names for option in ("--dataset", name)]
    options = ["--encoder", "tiny", "--chords", "cnn", "--device", "cpu"]
    run("extract", *sets, "--cache", cache, *options, M2E_DATA=str(data))


def train(cache: Path, out: Path, *options: str, letters: str = "J,D,E,P") -> dict[str, Any]:
    said = run("train", "--datasets", letters, "--cache", cache, "--out", out, "--device", "cpu", *options)
    assert "SYNTHETIC" in said
    assert "untrained" in said
    report = json.loads((out / "report.json").read_text())
    assert report["cautions"]
    return report


@pytest.mark.timeout(900)  # three commands, half a minute on a quiet machine
@pytest.mark.parametrize("letters", ["J,D", pytest.param("J,D,E,P", marks=pytest.mark.long)])
def test_the_whole_road_and_training_without_the_audio(demo_data: Path, tmp_path: Path, letters: str) -> None:
    names = NAMES[: len(letters.split(","))]
    shutil.copytree(demo_data, tmp_path / "data")
    extract_all(tmp_path / "data", tmp_path / "features", names)
    first = train(tmp_path / "features", tmp_path / "first", "--epochs", "2", letters=letters)
    assert {result["dataset"] for result in first["results"]} == set(names)
    shutil.rmtree(tmp_path / "data")
    again = train(tmp_path / "features", tmp_path / "again", "--epochs", "2", letters=letters)
    assert again["results"] == first["results"]
    for model in ("student", "teacher-J"):
        paths = [tmp_path / run_ / model / "model.safetensors" for run_ in ("first", "again")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def shuffle_labels(cache: Path) -> None:
    """Give every track the labels of another, within its split."""
    labels = read_labels(cache)
    rng = np.random.default_rng(0)
    order = np.arange(len(labels.track_ids))
    for split in set(labels.splits):
        rows = np.flatnonzero(np.array(labels.splits) == split)
        order[rows] = rng.permutation(rows)
    write_labels(cache, replace(labels, tags=labels.tags[order], valence_arousal=labels.valence_arousal[order]))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_demo_is_learned_within_its_promised_range_and_shuffled_labels_are_not(tmp_path: Path) -> None:
    make_demo(tmp_path / "data")
    extract_all(tmp_path / "data", tmp_path / "features")
    learned = train(tmp_path / "features", tmp_path / "learned", "--epochs", "50", "--lr", "3e-4")["results"]
    for name in NAMES:
        shuffle_labels(tmp_path / "features" / name)
    shuffled = train(tmp_path / "features", tmp_path / "shuffled", "--epochs", "50", "--lr", "3e-4")["results"]
    for result in learned:
        if result["model"] == "student":
            for name, value in result["metrics"].items():
                if name.startswith("r2_"):
                    assert 0.15 < value < 0.90, result
                elif name == "roc_auc":
                    assert 0.60 < value < 0.95, result
    for result in shuffled:
        for name, value in result["metrics"].items():
            if name.startswith("r2_"):
                assert value < 0.15, result
            elif name == "roc_auc":
                assert 0.35 < value < 0.65, result
