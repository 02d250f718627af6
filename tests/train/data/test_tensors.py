"""Which caches are trained together, what of them is used, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from support.caches import CONFIG, make_cache, make_labels

from m2e.cache import DataError, FeatureCache, FeatureTable, Labels, write_labels
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.report.report import cautions

CPU = torch.device("cpu")
PAPER = TrainConfig()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_cache(tmp_path / "demo-jamendo", make_labels("demo-jamendo", "J", 20, ("happy", "sad")))
    make_cache(tmp_path / "demo-deam", make_labels("demo-deam", "D", 10))
    return tmp_path


def load(folder: Path, *names: str, config: TrainConfig = PAPER) -> list[EmotionData]:
    return load_data(open_caches(folder, names), config, CPU)


def relabel(folder: Path, labels: Labels, **changes: object) -> None:
    """Write labels that no `Labels` would hold, too."""
    changed = replace(labels)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    write_labels(folder / labels.dataset, changed)


@pytest.mark.parametrize("names", [("J", "D"), ("j", " d"), ("demo-jamendo", "DEMO-DEAM")])
def test_letters_and_names_in_any_case(folder: Path, names: tuple[str, str]) -> None:
    assert [cache.labels.dataset for cache in open_caches(folder, names)] == ["demo-jamendo", "demo-deam"]


def test_tensors_hold_what_the_cache_holds(folder: Path) -> None:
    tagged, rated = load(folder, "J", "D")
    cache = FeatureCache.open(folder / "demo-deam")
    assert list(rated.targets) == ["valence_arousal"]
    assert list(tagged.targets) == ["tags"]
    assert rated.width == 16
    ids = cache.labels.track_ids
    rows = rated.splits["test"]
    assert [cache.labels.splits[i] for i in rows] == ["test"] * 2
    inputs = rated.whole(rows)
    for i, row in enumerate(rows.tolist()):
        expected = cache.embeddings(ids[row])[:, :2].mean(axis=0).ravel()
        np.testing.assert_allclose(inputs.features[i], expected, atol=1e-6)
        np.testing.assert_array_equal(rated.targets["valence_arousal"][row], cache.labels.valence_arousal[row])
        key = cache.key(ids[row])
        assert inputs.mode[i] == (key is not None and key.mode == "minor")
    train = tagged.splits["train"]
    torch.testing.assert_close(tagged.tag_rate, tagged.targets["tags"][train].mean(dim=0))


def test_layers_follow_the_config(folder: Path) -> None:
    cache = FeatureCache.open(folder / "demo-deam")
    (data,) = load(folder, "D", config=TrainConfig.preset("release"))
    mean = cache.embeddings(cache.labels.track_ids[0])[:, 1:].mean(axis=0).ravel()
    np.testing.assert_allclose(data.whole(torch.tensor([0])).features[0], mean, atol=1e-6)


def test_chords_beyond_the_cap_are_cut_and_counted(folder: Path) -> None:
    (data,) = load(folder, "D", config=TrainConfig(max_chords=5))
    assert data.whole(torch.arange(3)).root.shape == (3, 5)
    assert any("10 tracks have more than 5 chords" in note for note in data.notes)


def test_tracks_that_cannot_be_used_are_counted(folder: Path) -> None:
    labels = make_labels("demo-deam", "D", 11)
    va = labels.valence_arousal.copy()
    va[2] = np.nan
    relabel(folder, labels, valence_arousal=va, splits=("", *labels.splits[1:]))
    (data,) = load_data(open_caches(folder, ["D"]), PAPER, CPU, allow_missing=True)
    assert sum(len(rows) for rows in data.splits.values()) == 8
    assert [note.split(": ")[1].split(" tracks")[0] for note in data.notes] == ["1 of 11", "1 of 11"]
    assert [word in note for word, note in zip(("split", "valence"), data.notes, strict=True)] == [True] * 2
    assert data.lack == "demo-deam: 1 of 9 labelled tracks (11.1%) have no features"
    assert data.without_features == (1, 9)


def test_tracks_with_several_records_are_said(folder: Path) -> None:
    make_cache(folder / "demo-deam", make_labels("demo-deam", "D", 10), seed=1)  # other audio under the same ids
    (note,) = load(folder, "D")[0].notes
    assert note.startswith("demo-deam: 10 tracks have records of different audio")


def lacking(folder: Path, n: int, splits: tuple[str, ...] | None = None) -> None:
    """Labels of 20 tracks beside features of all but the first `n`."""
    labels = make_labels("mine", "", 20)
    whole = replace(labels, splits=splits) if splits else labels
    make_cache(folder / "mine", replace(whole, **{name: getattr(whole, name)[n:] for name in ROWS}))
    write_labels(folder / "mine", whole)


ROWS = ("track_ids", "splits", "tags", "valence_arousal", "clip_group", "artist")


def test_a_data_set_of_which_much_is_missing_is_refused(folder: Path) -> None:
    lacking(folder, 2)
    (data,) = load(folder, "mine")
    assert (data.without_features, data.is_partial) == ((2, 20), False)
    lacking(folder / "other", 3)
    with pytest.raises(DataError) as caught:
        load(folder / "other", "mine")
    said = str(caught.value)
    assert "mine: 3 of 20 labelled tracks (15%) have no features" in said
    assert f"`m2e-extract --dataset mine.csv --cache {folder / 'other'}` goes on" in said
    assert said.endswith("to use what is there: --allow-missing")
    assert "\n" not in said
    (data,) = load_data(open_caches(folder / "other", ["mine"]), PAPER, CPU, allow_missing=True)
    assert data.is_partial
    assert cautions([data])[-1].endswith("have no features: these are results of a part of it")


def test_who_only_tests_needs_the_test_tracks(folder: Path) -> None:
    lacking(folder, 5, (*["train"] * 10, *["test"] * 10))
    (data,) = load_data(open_caches(folder, ["mine"]), PAPER, CPU, to_learn=False)
    assert (data.without_features, data.lack) == ((0, 10), "")
    lacking(folder / "other", 5, (*["test"] * 10, *["train"] * 10))
    with pytest.raises(DataError, match="5 of 10 labelled tracks"):
        load_data(open_caches(folder / "other", ["mine"]), PAPER, CPU, to_learn=False)


def test_tracks_in_no_split_or_without_labels_need_no_features(folder: Path) -> None:
    lacking(folder, 5, (*[""] * 5, *["train"] * 15))
    (data,) = load(folder, "mine")
    assert data.without_features == (0, 15)


def test_a_set_with_both_kinds_of_labels_has_both_tasks(folder: Path) -> None:
    labels = make_labels("demo-jamendo", "J", 20, ("happy", "sad"))
    relabel(folder, labels, valence_arousal=np.full((20, 2), 4, np.float32))
    (data,) = load(folder, "J")
    assert list(data.targets) == ["tags", "valence_arousal"]


def test_empty_validation_and_test_are_said(folder: Path) -> None:
    labels = make_labels("demo-deam", "D", 10)
    relabel(folder, labels, splits=("train",) * 10)
    (data,) = load(folder, "D")
    assert [("validation" in note, "test" in note) for note in data.notes] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("P", r"no cache of 'P'.*there are D demo-deam, J demo-jamendo; `m2e-extract --dataset pmemo --cache "),
        ("demo-dean", "did you mean demo-deam"),
        ("x", "m2e-extract --dataset x"),
        ("", "no cache of ''"),
        ("../demo-deam", "no cache of"),
    ],
)
def test_unknown_data_sets_say_what_there_is_and_what_to_run(folder: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(folder, "J", name)
    assert "\n" not in str(caught.value)


def test_ambiguous_and_doubled_data_sets_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="names demo-deam twice"):
        load(folder, "D", "demo-deam")
    make_cache(folder / "deam", make_labels("deam", "D", 10))
    with pytest.raises(DataError, match=r"fits two caches in .*, deam and demo-deam"):
        load(folder, "D")
    assert load(folder, "deam")[0].name == "deam"
    with pytest.raises(DataError, match="deam and demo-deam share a letter"):
        load(folder, "deam", "demo-deam")


def test_a_name_that_is_spelt_just_so_comes_before_one_in_another_case(tmp_path: Path) -> None:
    for name, letter in (("songs", ""), ("Songs", ""), ("d", ""), ("deam", "D")):
        make_cache(tmp_path / f"{name}-of-{letter}", make_labels(name, letter, 10))
    assert [cache.labels.dataset for cache in open_caches(tmp_path, ["Songs", "songs", "d", "D"])] == [
        "Songs",
        "songs",
        "d",
        "deam",
    ]
    with pytest.raises(DataError, match="fits two caches"):
        open_caches(tmp_path, ["SONGS"])


def test_wrong_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="m2e-extract"):
        load(tmp_path / "nothing", "J")
    with pytest.raises(DataError, match=f"--cache {folder}"):
        load(folder / "demo-deam", "D")


def test_a_data_set_that_would_name_a_folder_elsewhere_is_refused(folder: Path) -> None:
    write_labels(folder / "demo-deam", make_labels("../../evil", "D", 10))
    with pytest.raises(DataError, match="no slashes"):
        load(folder, "J")


def test_caches_with_different_settings_are_refused(folder: Path) -> None:
    other = replace(CONFIG, tail="keep")
    make_cache(folder / "deam2", make_labels("deam2", "", 10), other)
    with pytest.raises(DataError, match=r"different settings .tail: 'keep', not 'drop'"):
        load(folder, "J", "deam2")


def test_caches_of_different_encoders_are_refused(folder: Path) -> None:
    make_cache(folder / "deam2", make_labels("deam2", "", 10), replace(CONFIG, encoder="other"))
    with pytest.raises(DataError, match=r"different settings .encoder: 'other', not 'test'"):
        load(folder, "J", "deam2")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    # A writer takes none; a forged file with fitting digests may hold some.
    plain = FeatureCache.load

    def forged(cache: FeatureCache, track_ids: Sequence[str]) -> FeatureTable:
        table = plain(cache, track_ids)
        embeddings = table.embeddings.copy()
        embeddings[3, 0, 5] = value
        return replace(table, embeddings=embeddings)

    monkeypatch.setattr(FeatureCache, "load", forged)
    with pytest.raises(DataError, match="demo-deam holds tracks whose features are empty or not finite") as caught:
        load(folder, "D")
    assert "\n" not in str(caught.value)


def test_a_digest_covers_what_training_reads(folder: Path) -> None:
    (data,) = load(folder, "D")
    none = torch.zeros(0, dtype=torch.long)
    assert replace(data, splits={**data.splits, "test": none}).digest == data.digest == load(folder, "D")[0].digest
    changes: list[dict[str, Any]] = [
        {"splits": {**data.splits, "train": data.splits["train"].flip(0)}},
        {"splits": {**data.splits, "validation": none}},
        {"sums": data.sums + 1e-6},
        {"mode": 1 - data.mode},
        {"root": data.root + 1},
        {"targets": {"valence_arousal": data.targets["valence_arousal"] + 1e-3}},
    ]
    digests = [replace(data, **change).digest for change in changes]
    assert len({data.digest, *digests}) == 1 + len(changes)


def test_missing_layers_are_refused_with_the_remedy(tmp_path: Path) -> None:
    make_cache(tmp_path / "d", make_labels("d", "D", 10), replace(CONFIG, layers=(6, 7)))
    with pytest.raises(DataError, match=r"holds layers 6,7; this run needs 5,6: extract again with --layers 5,6,7"):
        load(tmp_path, "D")


def test_different_tags_and_widths_are_refused(folder: Path) -> None:
    make_cache(folder / "mine", make_labels("mine", "", 10, ("calm",)))
    with pytest.raises(DataError, match="mine and demo-jamendo have different tags"):
        load(folder, "J", "mine")
    make_cache(folder / "wide", make_labels("wide", "", 10), dim=9)
    with pytest.raises(DataError, match="wide are 18 wide, those of demo-deam 16"):
        load(folder, "D", "wide")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": ("test",) * 10}, "no train tracks"),
        ({"splits": ("",) * 10}, "no tracks with a split.*10 of 10 tracks are in no split"),
        ({"valence_arousal": np.full((10, 2), np.nan, np.float32)}, "neither tags nor valence and arousal"),
        ({"valence_arousal": np.full((10, 2), 0.5, np.float32)}, "must both be on 1-9.*reach 0.5 to 0.5"),
        ({"valence_arousal": np.full((10, 2), np.inf, np.float32)}, "must both be on 1-9"),
        ({"tag_names": ("a",), "tags": np.full((10, 1), 7, np.uint8)}, "tags must be 0 or 1"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    relabel(folder, make_labels("demo-deam", "D", 10), **changes)
    with pytest.raises(DataError, match=message) as caught:
        load(folder, "D")
    assert "\n" not in str(caught.value)


def test_a_set_of_test_tracks_alone_can_be_tested_on(folder: Path) -> None:
    relabel(folder, make_labels("demo-deam", "D", 10), splits=("test",) * 10)
    (data,) = load_data(open_caches(folder, ["D"]), TrainConfig(), torch.device("cpu"), to_learn=False)
    assert len(data.splits["test"]) == 10


def test_a_damaged_cache_is_refused(folder: Path) -> None:
    (shard,) = (folder / "demo-deam").glob("features-*/shard-*.h5")
    with h5py.File(shard, "r") as file:
        offset = file["embeddings"].id.get_offset()
    content = bytearray(shard.read_bytes())
    content[offset + 3] ^= 0x40
    shard.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        load(folder, "D")
