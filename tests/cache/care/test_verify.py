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
from click.testing import CliRunner
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter
from m2e.cache.care.merge import merge
from m2e.cache.care.pack import pack
from m2e.cache.care.repair import repair
from m2e.cache.care.verify import verify
from m2e.cache.cli import main
from m2e.cache.folders import CONFIG_FILE, LABELS_FILE, feature_files, features_folder
from m2e.cache.settings import BY_DIGEST, FEATURE_VERSION, fingerprints
from m2e.cache.types import Source
from m2e.common.errors import NewerError, UnreadableError
from m2e.common.files import content_digest


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
    # Nobody knows which tracks the shorter one held: of any an older record may be read now.
    command = f"m2e-extract --dataset deam --cache {folder.parent} --encoder test --chords template --check-audio"
    assert done.commands == (command,)
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
    source = Source(str(tmp_path), *np.full((2, 10), 7, "u8"), np.zeros((10, 32), "u1"))
    labels = replace(make_labels("songs", "", 10), source=source)
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


@pytest.mark.parametrize("encoder", ["0" * 40, f"{BY_DIGEST}00"])
def test_nor_settings_that_are_as_they_were_written_whatever_they_lack(tmp_path: Path, encoder: str) -> None:
    """Under the digest that is their folder's name."""
    config = replace(CONFIG, encoder_revision=encoder)
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 10), config)
    values = json.loads(config.to_json())
    del values["tail"]
    features = features_folder(folder, config).rename(folder / f"features-{fingerprints(values)[encoder[0] == '0']}")
    content = json.dumps(values, indent=2, sort_keys=True) + "\n"
    (features / CONFIG_FILE).write_text(content)
    done = repair(folder)
    assert done.damage == ()
    assert [(its.kind, "lacks tail" in its.reason) for its in done.left] == [("foreign", True)]
    assert (features / CONFIG_FILE).read_text() == content
    (features / CONFIG_FILE).write_text(content.replace("template", "cnn"))  # this is damage
    assert [its.path.name for its in repair(folder).damage] == [CONFIG_FILE]


def test_features_of_a_newer_version_stop_every_command(tmp_path: Path) -> None:
    newer = replace(CONFIG, feature_version=FEATURE_VERSION + 1)
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 10), newer)
    before = {path: path.read_bytes() for path in features_folder(folder, newer).iterdir()}
    for command in ("info", "verify", "repair", "pack", "failures", "export --out x", f"merge --into {tmp_path / 'x'}"):
        name, *options = command.split()
        result = CliRunner().invoke(main, [name, str(folder), *options])
        assert result.exit_code == 1
        assert f"features of version {FEATURE_VERSION + 1}, of a newer m2e: update m2e" in result.output
    assert before == {path: path.read_bytes() for path in features_folder(folder, newer).iterdir()}


def test_merging_changes_nothing_in_a_cache_of_a_newer_m2e(tmp_path: Path) -> None:
    source, into = (make_cache(tmp_path / name, make_labels("deam", "D", 3)) for name in "ab")
    path = features_folder(into, CONFIG) / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "invented": 1}))
    with pytest.raises(NewerError, match="update m2e"):
        merge([source], into)


def test_one_bad_file_of_settings_does_not_hide_what_else_is_wrong(folder: Path) -> None:
    other = replace(CONFIG, tail="keep")
    make_cache(folder, make_labels("deam", "D", 10), other)
    bad, good = sorted(features_folder(folder, config) for config in (CONFIG, other))
    (bad / CONFIG_FILE).write_text("{")
    for features in (bad, good):
        flip(feature_files(features)[0], "embeddings", 5)
    flip(folder / LABELS_FILE, "valence_arousal", 2)
    wrong = {bad / CONFIG_FILE, feature_files(bad)[0], feature_files(good)[0], folder / LABELS_FILE}
    for deep in ([], ["--deep"]):
        result = CliRunner().invoke(main, ["verify", str(folder), *deep], catch_exceptions=False)
        assert result.exit_code == 1
        assert {Path(line.split("\t")[0]) for line in result.stdout.splitlines() if "\t" in line} == wrong
    (bad / CONFIG_FILE).unlink()
    (good / CONFIG_FILE).unlink()
    result = CliRunner().invoke(main, ["verify", str(folder)], catch_exceptions=False)
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["lost", "lost", "damaged"]


def test_without_labels_it_is_said_which_tracks_are_there_and_nothing_is_to_be_extracted(folder: Path) -> None:
    for damage in (lambda: flip(folder / LABELS_FILE, "valence_arousal", 2), lambda: None):
        damage()
        done = CliRunner().invoke(main, ["repair", str(folder)], catch_exceptions=False)
        assert done.exit_code == 0
        assert "m2e-extract --" not in done.stderr
        assert "0 to extract" in done.stderr
        for said in (done.stderr, CliRunner().invoke(main, ["verify", str(folder)]).stdout):
            assert f"{folder} has lost its labels.h5: `m2e-cache relabel` writes it again" in said
            assert "100 tracks have features: t0000, t0001, " in said
            assert "and 80 more" in said
    found = json.loads(CliRunner().invoke(main, ["repair", str(folder), "--json"]).stdout)
    assert found["unlabelled"] == [f"t{i:04d}" for i in range(100)]
    flip(feature_files(features_folder(folder, CONFIG))[0], "embeddings", 5)
    done_again = repair(folder)
    assert len(done_again.redo) == len(done_again.commands) == 1


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
