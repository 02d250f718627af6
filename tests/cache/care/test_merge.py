"""Caches of several machines become one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter, write_labels
from m2e.cache.care.merge import merge
from m2e.cache.care.pack import pack
from m2e.cache.failures import Failure, read_failures, record_failure
from m2e.cache.folders import feature_files, features_folder
from m2e.cache.types import FOREIGN, UNKNOWN, Source

LABELS = make_labels("deam", "D", 30)


def part(folder: Path, which: slice) -> Path:
    write_labels(folder, LABELS)
    with FeatureWriter(folder, CONFIG) as writer:
        for i, track_id in enumerate(LABELS.track_ids):
            if track_id in LABELS.track_ids[which]:
                writer.add(random_track(track_id, seed=i, segments=1 + i % 4))
    return folder


def test_parts_make_the_whole(tmp_path: Path) -> None:
    whole = make_cache(tmp_path / "whole", LABELS)
    parts = [part(tmp_path / "a", slice(0, 12)), part(tmp_path / "b", slice(10, 30))]
    record_failure(features_folder(parts[0], CONFIG), Failure("bad", "bad.mp3", "audio", "is empty", 0))
    target = tmp_path / "target"
    done = merge(parts, target)
    assert (done.new, done.tracks, done.files) == (30, 30, 2)
    assert merge(parts, target).new == 0
    for folder in (whole, target):
        pack(features_folder(folder, CONFIG))
    packs = [
        {path.name: path.read_bytes() for path in feature_files(features_folder(folder, CONFIG))}
        for folder in (whole, target)
    ]
    assert packs[0] == packs[1]
    assert FeatureCache.open(target).labels.track_ids == LABELS.track_ids
    assert set(read_failures(features_folder(target, CONFIG))) == {"bad"}
    assert len(feature_files(features_folder(parts[0], CONFIG))) == 1


def test_labels_of_both_are_kept(tmp_path: Path) -> None:
    more = make_labels("deam", "D", 5, prefix="u", seed=3)
    merge([part(tmp_path / "a", slice(0, 3)), make_cache(tmp_path / "b", more)], tmp_path / "target")
    labels = FeatureCache.open(tmp_path / "target").labels
    assert labels.track_ids == LABELS.track_ids + more.track_ids
    np.testing.assert_array_equal(labels.valence_arousal[30:], more.valence_arousal)


def test_what_cannot_be_one_cache_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    first = part(tmp_path / "a", slice(0, 5))
    changed = replace(LABELS, valence_arousal=10 - LABELS.valence_arousal)
    others = {
        "other labels": make_cache(tmp_path / "b", changed),
        "another data set": make_cache(tmp_path / "c", make_labels("pmemo", "P", 5)),
        "tail": make_cache(tmp_path / "d", LABELS, replace(CONFIG, tail="keep")),
        "another record": make_cache(tmp_path / "e", LABELS, seed=100),
    }
    for message, other in others.items():
        with pytest.raises(DataError, match=message):
            merge([first, other], tmp_path / "target")
        assert not list((tmp_path / "target").glob("**/*.h5"))


def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    source = part(tmp_path / "a", slice(0, 5))
    (path,) = feature_files(features_folder(source, CONFIG))
    content = bytearray(path.read_bytes())
    content[2050] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="repair"):
        merge([source], tmp_path / "target")


@pytest.mark.parametrize("name", ["a,b", " a", "a ", ".a"])
def test_a_target_that_no_list_of_data_sets_could_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}' cannot name a data set"):
        merge([part(tmp_path / "a", slice(0, 5))], tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_table_of_ones_own_is_known_in_the_end_as_well_as_in_all_of_its_parts(tmp_path: Path) -> None:
    """Paths, and the audio that features were compared with; half of the rows are in both."""
    heard = {"a": [FOREIGN, 7, 8, 9, 10], "b": [8, 9, UNKNOWN, 11, 12]}
    for name, first in (("a", 0), ("b", 2)):
        labels = make_labels("songs", "", 7)
        rows = np.arange(first, first + 5)
        labels = replace(
            labels,
            **{
                of: tuple(getattr(labels, of)[i] for i in rows)
                for of in ("track_ids", "splits", "clip_group", "artist")
            },
            tags=labels.tags[rows],
            valence_arousal=labels.valence_arousal[rows],
            source=Source(
                "/songs", 100 + rows.astype(np.uint64), np.array(heard[name], np.uint64), np.zeros((5, 32), "u1")
            ),
        )
        make_cache(tmp_path / name, labels)
        # Features of one track are of one audio.
        for path in feature_files(features_folder(tmp_path / name, CONFIG)):
            path.unlink()
        with FeatureWriter(tmp_path / name, CONFIG) as writer:
            for i in rows:
                writer.add(random_track(f"t{i:04d}", seed=int(i)))
    for _ in range(2):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "songs")
        source = FeatureCache.open(tmp_path / "songs").labels.source
        assert source
        assert (source.root, source.paths.tolist()) == ("/songs", list(range(100, 107)))
        assert source.heard.tolist() == [FOREIGN, 7, 8, 9, UNKNOWN, 11, 12]
    assert "t0000" not in FeatureCache.open(tmp_path / "songs").track_ids


def test_tables_of_one_name_that_have_other_paths_are_not_joined(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 100)):
        labels = make_labels("songs", "", 6)
        source = Source(str(tmp_path / name), *np.full((2, 6), 7, "u8"), np.zeros((6, 32), "u1"))
        source.paths[:] = first + np.arange(6)
        make_cache(tmp_path / name / "songs", replace(labels, source=source))
    with pytest.raises(DataError, match="is of another table called songs"):
        merge([tmp_path / "a" / "songs", tmp_path / "b" / "songs"], tmp_path / "songs")
    assert not (tmp_path / "songs").exists()


def test_labels_of_the_target_behind_a_link_that_leads_nowhere_stay_what_they_are(tmp_path: Path) -> None:
    source, into = part(tmp_path / "a", slice(0, 5)), tmp_path / "songs"
    into.mkdir()
    (into / "labels.h5").symlink_to(tmp_path / "gone.h5")
    with pytest.raises(DataError, match=r"is a link to .*gone\.h5, which is not there"):
        merge([source], into)
    assert (into / "labels.h5").is_symlink()
