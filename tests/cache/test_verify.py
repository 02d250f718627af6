"""Damage is found, set aside, and what is good is saved."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter
from m2e.cache.errors import NewerError, UnreadableError
from m2e.cache.files import content_digest
from m2e.cache.folders import CONFIG_FILE, LABELS_FILE, feature_files, features_folder
from m2e.cache.pack import pack
from m2e.cache.repair import repair
from m2e.cache.schema import Source
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


@pytest.mark.parametrize("there", [True, False])
def test_the_command_names_a_table_of_ones_own_where_it_is_known(tmp_path: Path, there: bool) -> None:
    table = tmp_path / "songs.csv"
    if there:
        table.touch()
    labels = replace(make_labels("songs", "", 10), source=Source(str(tmp_path), *np.full((2, 10), 7, "u8")))
    folder = make_cache(tmp_path / "features" / "songs", labels)
    flip(feature_files(features_folder(folder, CONFIG))[0], "embeddings", 0)
    (command,) = repair(folder).commands
    named = f"--dataset {table}" if there else "--dataset YOUR.csv --name songs"
    assert command.startswith(f"m2e-extract {named} --cache ")


def test_repair_takes_no_good_record_out(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in feature_files(features_folder(folder, CONFIG))}
    with FeatureWriter(folder, CONFIG) as writer:
        writer.add(random_track("t0000", seed=99))
        writer.add(random_track("new", seed=100))
    done = repair(folder)
    assert (done.damage, done.left, done.redo) == ((), (), ())
    assert before.items() <= {p.name: p.read_bytes() for p in feature_files(features_folder(folder, CONFIG))}.items()
    assert set(FeatureCache.open(folder).track_ids) == {*FeatureCache.open(folder).labels.track_ids, "new"}


Spoil = Callable[[Path, pytest.MonkeyPatch], object]


def forbid(path: Path, patch: pytest.MonkeyPatch) -> None:
    """What mode 000 does to all but root."""
    fail(path, patch, errno.EACCES)


def fail(path: Path, patch: pytest.MonkeyPatch, number: int) -> None:
    real = os.open

    def opened(name: Any, *words: Any, **named: Any) -> int:
        if os.fspath(name) == str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(name, *words, **named)

    patch.setattr(os, "open", opened)


def make_newer(path: Path, patch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 9
    if path.name != LABELS_FILE:
        rename_by_content(path)


def rename_by_content(path: Path) -> None:
    path.rename(path.with_name(f"{path.name.partition('-')[0]}-{content_digest(path.read_bytes())}.h5"))


def put_elsewhere(path: Path, patch: pytest.MonkeyPatch) -> None:
    other = make_cache(path.parents[2] / "other", make_labels("deam", "D", 2), replace(CONFIG, tail="keep"))
    (foreign,) = feature_files(features_folder(other, replace(CONFIG, tail="keep")))
    foreign.rename(path.with_name(foreign.name))


UNUSABLE: dict[str, tuple[Spoil, type[DataError], str]] = {
    "forbidden": (forbid, UnreadableError, "Permission denied"),
    "a failing disk": (lambda path, patch: fail(path, patch, errno.EIO), UnreadableError, "Input/output error"),
    "too many open files": (lambda path, patch: fail(path, patch, errno.EMFILE), UnreadableError, "Too many open"),
    "newer": (make_newer, NewerError, "update m2e"),
    "of other settings": (put_elsewhere, DataError, "made with other settings"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_not_known_to_be_damaged_is_never_moved(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, error, says = UNUSABLE[name]
    features = features_folder(folder, CONFIG)
    spoil(feature_files(features)[0], monkeypatch)
    there = {path.name for path in features.iterdir()}
    with pytest.raises(error, match=says):
        FeatureCache.open(folder)
    with pytest.raises(error, match=says):
        pack(features)
    done = repair(folder)
    assert (done.damage, done.saved, done.redo, done.commands) == ((), (), (), ())
    assert [says in its.reason for its in done.left] == [True]
    assert {path.name for path in features.iterdir()} == there


@pytest.mark.parametrize("name", ["forbidden", "a failing disk", "newer"])
def test_neither_are_labels(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, error, says = UNUSABLE[name]
    spoil(folder / LABELS_FILE, monkeypatch)
    with pytest.raises(error, match=says):
        FeatureCache.open(folder)
    done = repair(folder)
    assert done.damage == ()
    assert [says in its.reason for its in done.left] == [True]
    assert (folder / LABELS_FILE).exists()


def test_nor_settings_of_a_newer_m2e(folder: Path) -> None:
    features = features_folder(folder, CONFIG)
    values = {**json.loads((features / CONFIG_FILE).read_text()), "invented": 1}
    (features / CONFIG_FILE).write_text(json.dumps(values))
    with pytest.raises(NewerError, match="invented, of a newer m2e: update m2e"):
        FeatureCache.open(folder)
    done = repair(folder)
    assert done.damage == ()
    assert [its.kind for its in done.left] == ["newer"]
    assert json.loads((features / CONFIG_FILE).read_text()) == values


def test_a_damaged_file_behind_a_link_stays_where_it_is_and_is_named(folder: Path, tmp_path: Path) -> None:
    features = features_folder(folder, CONFIG)
    path = feature_files(features)[0]
    kept = path.rename(tmp_path / "another disk")
    path.symlink_to(kept)
    assert len(FeatureCache.open(folder).track_ids) == 100
    flip(kept, "embeddings", 5)
    done = repair(folder)
    assert done.damage == ()
    assert [f"{path} is a link to {kept}" in its.reason for its in done.left] == [True]
    assert path.is_symlink()
    assert kept.exists()


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
