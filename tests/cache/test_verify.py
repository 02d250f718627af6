"""Damage is found, set aside, and what is good is saved."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import FeatureCache, FeatureWriter
from m2e.cache.folders import CONFIG_FILE, LABELS_FILE, feature_files, features_folder
from m2e.cache.repair import repair
from m2e.cache.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "deam", make_labels("deam", "D", 100))


def flip(path: Path, dataset: str, at: int) -> None:
    """A bit of a dataset."""
    with h5py.File(path, "r") as file:
        offset = file[dataset].id.get_offset() + at
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("deep", [False, True])
def test_the_damaged_track_is_named(folder: Path, deep: bool) -> None:
    features = features_folder(folder, CONFIG)
    assert verify(features, deep=deep) == []
    path = next(path for path in feature_files(features) if b"t0001" in path.read_bytes())
    flip(path, "embeddings", 3 * 8 * 2 + 5)  # t0000 has one segment
    (damage,) = verify(features, deep=deep)
    assert damage.path == path
    assert damage.tracks == ("t0001",)


def test_deep_finds_a_forged_record_under_a_fitting_name(folder: Path) -> None:
    from m2e.cache.files import content_digest

    features = features_folder(folder, CONFIG)
    path = feature_files(features)[0]
    flip(path, "chords", 3)
    path.rename(path.with_name(f"shard-{content_digest(path.read_bytes())}.h5"))
    assert verify(features) == []
    assert len(verify(features, deep=True)) == 1


def test_repair_saves_the_good_records_and_lists_the_rest(folder: Path) -> None:
    features = features_folder(folder, CONFIG)
    before = FeatureCache.open(folder).load()
    one, other = sorted(feature_files(features), key=lambda path: path.stat().st_size)
    flip(other, "index", 100)  # in a row of the index
    one.write_bytes(one.read_bytes()[:-10])
    held = 36
    done = repair(folder)
    assert {damage.path for damage in done.damage} == {features / "set-aside" / path.name for path in (one, other)}
    assert len(done.saved) == 63
    assert len(done.redo) == held + 1
    assert done.commands == (f"m2e-extract --dataset deam --cache {folder.parent} --encoder test --chords template",)
    after = FeatureCache.open(folder).load()
    assert set(after.track_ids) | set(done.redo) == set(before.track_ids)
    row = before.track_ids.index(after.track_ids[-1])
    np.testing.assert_array_equal(
        after.embeddings[after.first[-2] :], before.embeddings[before.first[row] : before.first[row + 1]]
    )
    assert repair(folder).damage == ()


def test_repair_takes_out_both_records_of_a_track(folder: Path) -> None:
    with FeatureWriter(folder, CONFIG) as writer:
        writer.add(random_track("t0000", seed=99))
        writer.add(random_track("new", seed=100))
    done = repair(folder)
    assert done.ambiguous == ("t0000",)
    assert done.redo == ("t0000",)
    assert set(FeatureCache.open(folder).track_ids) == {*FeatureCache.open(folder).labels.track_ids, "new"} - {"t0000"}


def test_repair_sets_labels_and_settings_aside(folder: Path) -> None:
    features = features_folder(folder, CONFIG)
    flip(folder / LABELS_FILE, "valence_arousal", 2)
    assert {damage.path.name for damage in repair(folder).damage} == {LABELS_FILE}
    (features / CONFIG_FILE).write_text("{")
    assert {damage.path.name for damage in repair(folder).damage} == {CONFIG_FILE}
    assert len(feature_files(features)) == 2
    FeatureWriter(folder, CONFIG)  # a run with these settings brings them back
    make_cache(folder, make_labels("deam", "D", 100))
    assert len(FeatureCache.open(folder).track_ids) == 100
