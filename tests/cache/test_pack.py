"""Packing and forgetting: the same tracks, in fewer files or fewer of them."""

import os
import pickle
import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter
from m2e.cache import pack as packing
from m2e.cache.catalogue import scan
from m2e.cache.folders import feature_files, features_folder
from m2e.cache.lock import LOCK_FILE, pack_lock
from m2e.cache.pack import forget, pack


def write(folder: Path, ids: list[str], at_once: int = 64) -> Path:
    """Tracks whose features depend on their id alone, in shards of `at_once`."""
    for start in range(0, len(ids), at_once):
        with FeatureWriter(folder, CONFIG) as writer:
            for track_id in ids[start : start + at_once]:
                writer.add(random_track(track_id, seed=int(track_id[1:]), segments=1 + int(track_id[1:]) % 3))
    return features_folder(folder, CONFIG)


def content(features: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in feature_files(features)}


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACK_TRACKS", 16)


@pytest.mark.usefixtures("small_packs")
def test_any_order_and_number_of_writers_gives_the_same_packs(tmp_path: Path) -> None:
    ids = [f"t{i:04d}" for i in range(70)]
    packed = []
    for seed, at_once in ((0, 64), (1, 7), (2, 1)):
        random.Random(seed).shuffle(ids)
        features = write(tmp_path / str(seed), ids, at_once)
        if seed == 1:  # packed twice on the way, with copies of some tracks
            write(tmp_path / str(seed), ids[:20], 10)
            pack(features)
            features = write(tmp_path / str(seed), ids[10:30], 5)
        pack(features)
        packed.append(content(features))
    assert len(packed[0]) == 5
    assert packed[0] == packed[1] == packed[2]


@pytest.mark.usefixtures("small_packs")
def test_packs_that_are_as_they_should_be_stay(tmp_path: Path) -> None:
    features = write(tmp_path, [f"t{i:04d}" for i in range(40)])
    first = pack(features)
    assert (first.tracks, first.packs, first.written, first.removed) == (40, 3, 3, 1)
    before = {path: path.stat().st_ino for path in feature_files(features)}
    assert pack(features).written == 0
    assert before == {path: path.stat().st_ino for path in feature_files(features)}
    write(tmp_path, ["t0050"])  # after all others: only the last pack changes
    assert pack(features).written == 1


@pytest.mark.usefixtures("small_packs")
def test_long_tracks_make_smaller_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = write(tmp_path, [f"t{i:04d}" for i in range(12)])
    monkeypatch.setattr(packing, "PACK_BYTES", 6 * 3 * 8 * 2)  # six segments
    pack(features)
    assert len(feature_files(features)) == 4
    monkeypatch.setattr(packing, "PACK_BYTES", 1)  # less than any track: a track a pack
    pack(features)
    assert len(feature_files(features)) == 12


@pytest.mark.parametrize("widths", [(2, 16, 17, 33, 64), (64, 2), (2, 3)])
def test_ids_of_any_length_stay_whole(tmp_path: Path, widths: tuple[int, ...]) -> None:
    ids = sorted(f"t{i:0{width - 1}d}" for width in widths for i in range(4))
    features = write(tmp_path, ids, at_once=1)  # files are scanned in the order of their digests: in none
    for _ in range(2):
        index = scan(features, CONFIG).index
        assert [track_id.decode() for track_id in index["id"].tolist()] == ids
        assert index["segments"].tolist() == [1 + int(track_id[1:]) % 3 for track_id in ids]
        assert pack(features).tracks == len(ids)  # every record is read and its digest compared


def test_packing_changes_nothing_for_a_reader_that_is_open(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 150))
    cache = FeatureCache.open(folder)
    before, mapped = cache.load(), cache.map()
    copy = pickle.dumps(mapped)
    pack(features_folder(folder, CONFIG))
    after = cache.load()
    assert before.track_ids == after.track_ids
    for name in ("embeddings", "first", "chord_records", "first_chord", "key_tonic", "key_mode"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    for i in (0, 77, 149):
        np.testing.assert_array_equal(mapped[i], before.embeddings[before.first[i] : before.first[i + 1]])
    with pytest.raises(DataError, match="map it again"):
        pickle.loads(copy)
    again = pickle.loads(pickle.dumps(cache.map(cache.track_ids[3:5])))
    np.testing.assert_array_equal(again[1], mapped[4])
    assert len(again) == 2
    with pytest.raises(ValueError, match="read-only"):
        again[0][0] = 0


def test_a_damaged_record_stops_packing_and_no_source_goes(tmp_path: Path) -> None:
    features = write(tmp_path, [f"t{i:04d}" for i in range(10)], at_once=5)
    victim = feature_files(features)[1]
    damaged = bytearray(victim.read_bytes())
    damaged[2048 + 5] ^= 1
    victim.write_bytes(damaged)
    before = content(features)
    with pytest.raises(DataError, match="repair"):
        pack(features)
    assert content(features) == before
    assert not (tmp_path / LOCK_FILE).exists()


def test_forgotten_tracks_are_gone_and_the_others_stay(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 130))
    features = features_folder(folder, CONFIG)
    before = FeatureCache.open(folder)
    assert forget(features, ["t0001", "t0100", "elsewhere"]) == 2
    after = FeatureCache.open(folder)
    assert set(before.track_ids) - set(after.track_ids) == {"t0001", "t0100"}
    np.testing.assert_array_equal(after.embeddings("t0002"), before.load(["t0002"]).embeddings)
    pack(features)
    assert forget(features, after.track_ids) == 128
    assert feature_files(features) == []
    assert forget(tmp_path / "none", ["a"]) == 0


def test_forgetting_takes_every_copy_out(tmp_path: Path) -> None:
    write(tmp_path, ["t0001", "t0002"])
    features = write(tmp_path, ["t0002", "t0003"])
    features = write(tmp_path, ["t0001", "t0002", "t0003"])
    assert len(feature_files(features)) == 3
    assert forget(features, ["t0002"]) == 1
    assert sorted(packing.scan(features, CONFIG).index["id"].tolist()) == [b"t0001", b"t0003"]


def test_the_lock_of_a_living_process_holds_and_that_of_a_dead_one_does_not(tmp_path: Path) -> None:
    features = write(tmp_path, ["t0001"])
    with pack_lock(tmp_path):
        with pytest.raises(DataError, match=f"process {os.getpid()} on {socket.gethostname()}.*--break-lock"):
            pack(features)
        with pytest.raises(DataError, match="--break-lock"):
            forget(features, ["t0001"])
        pack(features, break_lock=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / LOCK_FILE).write_text(f"{socket.gethostname()} {dead.pid} x\n")
    pack(features)
    assert not (tmp_path / LOCK_FILE).exists()
    (tmp_path / LOCK_FILE).write_text("another-host 1 x\n")
    with pytest.raises(DataError, match="process 1 on another-host"):
        pack(features)
    (tmp_path / LOCK_FILE).write_text("")  # killed before it wrote its name, long ago
    os.utime(tmp_path / LOCK_FILE, (0, 0))
    pack(features)
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_lock_that_was_broken_is_not_removed_by_its_first_owner(tmp_path: Path) -> None:
    with pack_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("another-host 1 x\n")
    assert (tmp_path / LOCK_FILE).read_text() == "another-host 1 x\n"
