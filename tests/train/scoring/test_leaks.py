"""Clips that are both trained on and tested on: found by what they are, counted, and left out of a second result."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import FeatureWriter, Labels, write_labels
from m2e.manifests import load
from m2e.manifests.store import manifest_labels
from m2e.train.cli import main
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.model.checkpoint import load_model
from m2e.train.scoring.evaluate import metrics, outputs_on_test, true_labels
from m2e.train.scoring.leaks import find_leaks, leaked

CPU = torch.device("cpu")


def write(folder: Path, labels: Labels, seeds: Sequence[int]) -> None:
    """A cache whose track i has the audio of `random_track` seeds[i]."""
    write_labels(folder / labels.dataset, labels)
    with FeatureWriter(folder / labels.dataset, CONFIG) as writer:
        for seed, track_id in zip(seeds, labels.track_ids, strict=True):
            writer.add(random_track(track_id, seed, segments=1))


def load_all(folder: Path, *names: str) -> list[EmotionData]:
    return load_data(open_caches(folder, names), TrainConfig(), CPU)


def test_shared_clips_are_found_by_group_and_by_audio_and_never_by_id(tmp_path: Path) -> None:
    # 20 tracks each, splits in turn: 12 train, 4 validation, 4 test (tracks 4, 9, 14, 19). All ids are the same.
    one, two = make_labels("one", "", 20, seed=1), make_labels("two", "", 20, seed=2)
    assert one.track_ids == two.track_ids
    write(tmp_path, one, range(20))
    write(tmp_path, two, range(100, 120))
    assert find_leaks(load_all(tmp_path, "one", "two"), load_all(tmp_path, "one", "two")) == []

    groups = list(two.clip_group)
    groups[9], groups[19], groups[8] = "one/t0000", "one/t0003", "one/t0001"  # train, validation of one; 8 is no test
    seeds = list(range(100, 120))
    seeds[4], seeds[14] = 5, 9  # train and test of one
    write(tmp_path / "b", one, range(20))
    write(tmp_path / "b", replace(two, clip_group=tuple(groups)), seeds)
    sets = load_all(tmp_path / "b", "one", "two")
    assert [str(leak) for leak in find_leaks(sets, sets)] == ["2 of 4 test tracks of two are in the train split of one"]
    assert leaked(sets[1], [sets[0]]).tolist() == [True, True, False, False]
    assert not leaked(sets[1], [sets[1]]).any()
    assert leaked(sets[1], []).tolist() == [False] * 4


def test_a_set_may_leak_into_itself(tmp_path: Path) -> None:
    labels = make_labels("one", "", 10)
    groups = ["", *labels.clip_group[1:4], "one/t0001", *labels.clip_group[5:9], ""]  # no group is no clip
    write(tmp_path, replace(labels, clip_group=tuple(groups)), range(10))
    (data,) = load_all(tmp_path, "one")
    assert [(leak.tested, leak.trained, leak.tracks) for leak in find_leaks([data], [data])] == [("one", "one", 1)]


def test_published_splits_of_deam_and_emomusic(reference: Path, tmp_path: Path) -> None:
    data = reference / "data"
    splits: dict[str, dict[str, set[str]]] = {}
    for name in ("deam", "emomusic"):
        labels = manifest_labels(load(name, data / name, data / "splits" / name))
        write(tmp_path, labels, np.random.default_rng(len(name)).integers(2**60, size=len(labels.track_ids)).tolist())
        pairs = list(zip(labels.track_ids, labels.splits, strict=True))
        splits[name] = {split: {track for track, at in pairs if at == split} for split in ("train", "test")}
    # Of these two sets alone, equal ids are equal clips.
    assert len(splits["emomusic"]["test"] & splits["deam"]["train"]) == 82
    assert len(splits["deam"]["test"] & splits["emomusic"]["train"]) == 66
    deam, emomusic = load_all(tmp_path, "D", "E")
    counts = {(leak.tested, leak.trained): leak.tracks for leak in find_leaks([deam, emomusic], [deam, emomusic])}
    # One of EmoMusic's test clips is the same song as another clip of it, under another id, that is trained on.
    assert counts == {("emomusic", "deam"): 83, ("deam", "emomusic"): 66, ("emomusic", "emomusic"): 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Caches of D and E, of which 6 of E's 12 test clips are in D's train split; a run on both, and what it said."""
    folder, out = tmp_path_factory.mktemp("features"), tmp_path_factory.mktemp("runs") / "DE"
    deam, emomusic = make_labels("deam", "D", 80, seed=1), make_labels("emomusic", "E", 60, seed=2, prefix="e")
    groups = list(emomusic.clip_group)
    for i in range(6):
        groups[5 * i + 4] = deam.clip_group[5 * i]
    make_cache(folder / "deam", deam, signal=1)
    make_cache(folder / "emomusic", replace(emomusic, clip_group=tuple(groups)), signal=1)
    where = ["--cache", str(folder), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(main, ["--datasets", "D,E", *where, "--epochs", "3", "--lr", "0.002"])
    assert result.exit_code == 0, result.output
    return folder, out, result.stderr


def test_a_run_warns_and_reports_both_results(run: tuple[Path, Path, str]) -> None:
    _, out, said = run
    leak = "6 of 12 test tracks of emomusic are in the train split of deam"
    assert said.index(leak) < said.index("Test metrics")
    report = json.loads((out / "report.json").read_text())
    assert report["leaks"] == [{"tested": "emomusic", "trained": "deam", "tracks": 6, "of": 12}]
    found = [(each["dataset"], each["model"], each["test"], each["tracks"]) for each in report["results"]]
    assert found == [
        ("deam", "student", "as published", 16),
        ("deam", "teacher", "as published", 16),
        ("emomusic", "student", "as published", 12),
        ("emomusic", "student", "leak-free", 6),
        ("emomusic", "teacher", "as published", 12),
        ("emomusic", "teacher", "leak-free", 6),
    ]
    # The paper's numbers are on all tracks: none stands beside a leak-free result.
    assert [each["paper"] is None for each in report["results"] if each["model"] == "teacher"] == [False, False, True]
    for suffix in ("csv", "md", "html"):
        text = (out / f"report.{suffix}").read_text()
        assert "leak-free" in text, suffix
        if suffix != "csv":
            assert leak in text, suffix


def test_leak_free_is_the_metric_of_the_other_tracks(run: tuple[Path, Path, str]) -> None:
    folder, out, _ = run
    sets = load_all(folder, "D", "E")
    kept = np.arange(12) >= 6  # the first six test tracks are shared
    models, _ = load_model(out / "student")
    outputs = outputs_on_test(models["valence_arousal"], sets[1], "valence_arousal")
    expected = metrics("valence_arousal", true_labels(sets[1], "valence_arousal")[kept], outputs[kept])
    report = json.loads((out / "report.json").read_text())
    (found,) = (each for each in report["results"] if (each["model"], each["test"]) == ("student", "leak-free"))
    assert expected is not None
    assert found["metrics"] == pytest.approx(vars(expected))
    low, high = found["interval"]["rmse_valence"]
    assert low < found["metrics"]["rmse_valence"] < high


def test_evaluating_a_checkpoint_knows_what_it_was_trained_on(run: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder, out, _ = run

    def evaluate(cache: Path, name: str) -> dict[str, object]:
        where = ["--cache", str(cache), "--out", str(tmp_path / name), "--device", "cpu", "--json"]
        result = CliRunner().invoke(main, ["--evaluate", str(out / "student"), "--datasets", "E", *where])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    # D is not tested on, but its cache is there: the clips of its train split are known.
    there = evaluate(folder, "there")
    assert there["leaks"] == [{"tested": "emomusic", "trained": "deam", "tracks": 6, "of": 12}]
    assert there["left_out"] == []
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "emomusic").symlink_to(folder / "emomusic")
    alone = evaluate(tmp_path / "alone", "missing")
    assert alone["leaks"] == []
    assert "trained on as part of deam" in str(alone["left_out"])
