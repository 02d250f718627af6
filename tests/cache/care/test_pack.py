"""Packing and forgetting: the same tracks, in fewer files or fewer of them."""

import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter, write_labels
from m2e.cache.care import pack as packing
from m2e.cache.care.export import export
from m2e.cache.care.pack import pack
from m2e.cache.care.repair import repair
from m2e.cache.catalogue import scan
from m2e.cache.feature_file import read_file
from m2e.cache.folders import SET_ASIDE, feature_files, features_folder
from m2e.cache.lock import LOCK_FILE, pack_lock
from m2e.common.errors import LockedError
from m2e.common.files import remove_stale_temporaries, temporary_folder


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
    before = cache.load()
    pack(features_folder(folder, CONFIG))
    after = cache.load()
    assert before.track_ids == after.track_ids
    for name in ("embeddings", "first", "chord_records", "first_chord", "key_tonic", "key_mode"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


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
    with pack_lock(tmp_path):
        pass


def test_a_newer_record_counts_and_the_older_one_goes_when_it_is_packed(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 130))
    features = features_folder(folder, CONFIG)
    pack(features)
    before = FeatureCache.open(folder).load()
    newer = {f"t{i:04d}": random_track(f"t{i:04d}", seed=1000 + i) for i in (0, 1, 100)}
    with FeatureWriter(folder, CONFIG, generation=1) as writer:
        for track in newer.values():
            writer.add(track)
    with FeatureWriter(folder, CONFIG, generation=3) as writer:
        newer["t0001"] = random_track("t0001", seed=2001)
        writer.add(newer["t0001"])
    cache = FeatureCache.open(folder)
    assert cache.track_ids == before.track_ids
    assert cache.several == []
    assert scan(features, CONFIG).generations.tolist()[:3] == [1, 3, 0]
    done = pack(features)
    assert (done.tracks, done.replaced, done.notes) == (130, 3, ())
    assert [path.name[:5] for path in feature_files(features)] == ["pack-"]
    after = FeatureCache.open(folder)
    for i, track_id in enumerate(before.track_ids):
        stored = after.embeddings(track_id)
        if track_id in newer:
            np.testing.assert_allclose(stored, newer[track_id].embeddings, atol=1e-2)
        else:
            np.testing.assert_array_equal(stored, before.embeddings[before.first[i] : before.first[i + 1]])


@pytest.mark.usefixtures("small_packs")
def test_what_says_that_a_record_is_newer_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever file packing stops, the newer records are the ones that count."""
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 50))
    features = features_folder(folder, CONFIG)
    pack(features)
    for generation in (1, 2):
        with FeatureWriter(folder, CONFIG, generation) as writer:
            for i in range(0, 50, 3):
                writer.add(random_track(f"t{i:04d}", seed=1000 * generation + i))
            writer.add(random_track("a-new-track", seed=5))  # every pack begins elsewhere now
    right = FeatureCache.open(folder).load()
    real, allowed = Path.unlink, [0]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".h5":
            allowed[0] -= 1
            if allowed[0] < 0:
                raise OSError(5, "Input/output error")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    finished = False
    for removals in range(12):
        allowed[0] = removals
        try:
            pack(features)
            finished = True
        except DataError:  # the disk fails at the next file
            finished = False
        found = FeatureCache.open(folder).load()
        assert found.track_ids == right.track_ids
        np.testing.assert_array_equal(found.embeddings, right.embeddings)
    assert finished
    assert {path.name[:5] for path in feature_files(features)} == {"pack-"}


def test_of_two_processors_records_one_counts_whichever_comes_first(tmp_path: Path) -> None:
    """The same audio, and features that differ in their last bit."""
    track = random_track("t0000", seed=3)
    other = replace(track, embeddings=np.nextafter(track.embeddings.astype(np.float16), np.float16(9)).astype("f4"))
    read, packed = [], []
    for name, order in (("a", (track, other)), ("b", (other, track))):
        folder = make_cache(tmp_path / name / "deam", make_labels("deam", "D", 3), seed=50)
        features = features_folder(folder, CONFIG)
        for path in feature_files(features):
            path.unlink()
        for each in order:
            with FeatureWriter(folder, CONFIG) as writer:
                writer.add(each)
                writer.add(random_track("t0001", seed=1))
        cache = FeatureCache.open(folder)
        assert cache.track_ids == ("t0000", "t0001")
        assert ["1 tracks have records that differ though their audio" in note for note in cache.several] == [True]
        assert export(cache, tmp_path / f"{name}-out") == 2
        read.append(cache.embeddings("t0000"))
        assert len(pack(features).notes) == 1
        assert FeatureCache.open(folder).several == []
        packed.append(content(features))
        assert repair(folder).damage == ()
    np.testing.assert_array_equal(read[0], read[1])
    assert packed[0] == packed[1]


def test_of_records_of_different_audio_the_newer_file_counts_and_the_other_is_kept_aside(tmp_path: Path) -> None:
    tracks = [random_track("t0000", seed=seed) for seed in (1, 2)]
    for i, order in enumerate((tracks, tracks[::-1])):
        folder = tmp_path / str(i)
        write_labels(folder, make_labels("deam", "D", 3))
        for age, track in zip((100, 50), order, strict=True):
            with FeatureWriter(folder, CONFIG) as writer:
                writer.add(track)
                writer.add(random_track("t0001", seed=7 + age))
            (newest,) = set(feature_files(features_folder(folder, CONFIG))) - set(locals().get("known", ()))
            os.utime(newest, (time.time() - age,) * 2)
            known = feature_files(features_folder(folder, CONFIG))
        cache = FeatureCache.open(folder)
        assert "2 tracks have records of different audio" in cache.several[0]
        np.testing.assert_allclose(cache.embeddings("t0000"), order[1].embeddings, atol=1e-2)
        pack(features_folder(folder, CONFIG))
        (aside,) = (features_folder(folder, CONFIG) / SET_ASIDE).iterdir()
        records, whole = read_file(aside, CONFIG)
        assert whole.all()
        assert records.index["audio_sha256"][0].tobytes() == order[0].audio_sha256
        np.testing.assert_allclose(FeatureCache.open(folder).embeddings("t0000"), order[1].embeddings, atol=1e-2)
        known = []


def test_a_lock_that_is_held_holds_whatever_it_says_and_one_that_is_not_does_not(tmp_path: Path) -> None:
    """Two containers may have one host name and the same process numbers: only the kernel knows."""
    features = write(tmp_path, ["t0001"])
    with pack_lock(tmp_path):
        for note in (f"{socket.gethostname()} {os.getpid()}", "another-host 1", f"{socket.gethostname()} 4194303", ""):
            (tmp_path / LOCK_FILE).write_text(note)
            for break_lock in (False, True):
                with pytest.raises(LockedError, match="is being packed, merged or relabelled by"):
                    pack(features, break_lock=break_lock)
    for note in (f"{socket.gethostname()} {os.getpid()}", "another-host 1"):
        (tmp_path / LOCK_FILE).write_text(note)
        pack(features)
    with pack_lock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on {socket.gethostname()}"):
        pack(features)


def test_a_killed_process_lets_its_lock_go_and_one_waits_for_a_living_one(tmp_path: Path) -> None:
    features = write(tmp_path, ["t0001"])
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom m2e.cache.lock import pack_lock\n"
        "with pack_lock(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(float(sys.argv[2]))\n"
    )

    def hold(seconds: float) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seconds)], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        return process

    with hold(60) as holder:
        with pytest.raises(LockedError, match=f"process {holder.pid} on"):
            pack(features)
        holder.kill()
        holder.wait()
        pack(features)
    with hold(1):
        pack(features, wait=30)


@pytest.mark.parametrize("kernel", [True, False])
def test_that_it_waits_is_said_once_with_who_is_waited_for(
    tmp_path: Path, kernel: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write(tmp_path, ["t0001"])
    if not kernel:
        monkeypatch.setattr("m2e.cache.lock.try_lock", lambda descriptor: None)
    with pack_lock(tmp_path), pytest.raises(LockedError):
        pack(features, wait=0.5)
    (line,) = capsys.readouterr().err.splitlines()
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert line == f"note waiting for {me}, which packs, merges or relabels {tmp_path} (at most 0.5 s)"
    with pack_lock(tmp_path), pytest.raises(LockedError):
        pack(features)
    assert capsys.readouterr().err == ""


def test_without_locks_of_the_kernel_a_file_stands_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = write(tmp_path, ["t0001"])
    monkeypatch.setattr("m2e.cache.lock.try_lock", lambda descriptor: None)
    with pack_lock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on .*--break-lock"):
        pack(features)
    pack(features)
    (tmp_path / f"{LOCK_FILE}.held").write_text("another-host 1\n")
    with pytest.raises(LockedError, match="process 1 on another-host"):
        pack(features)
    pack(features, break_lock=True)
    assert not (tmp_path / f"{LOCK_FILE}.held").exists()


def test_a_living_writers_temporary_stays_and_a_dead_ones_goes(tmp_path: Path) -> None:
    """Whatever their names say."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom m2e.common import files\n"
        "real = files.os.fsync\n"
        "def fsync(descriptor):\n    print(flush=True)\n    time.sleep(60)\n"
        "files.os.fsync = fsync\nfiles.write_atomically(Path(sys.argv[1]) / 'file', b'x' * 1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        (mine,) = tmp_path.glob(".tmp-*")
        # Of a process that is no more.
        there = mine.rename(tmp_path / f".tmp-m2e-{socket.gethostname()}-4194303-{0:012x}")
        os.utime(there, (0, 0))
        remove_stale_temporaries(tmp_path)
        assert there.exists()
        writer.kill()
        writer.wait()
        remove_stale_temporaries(tmp_path)
        assert not there.exists()
    young = tmp_path / f".tmp-m2e-{socket.gethostname()}-1-{0:012x}"
    young.touch()
    remove_stale_temporaries(tmp_path)
    assert young.exists()
    with temporary_folder(tmp_path) as folder:
        os.utime(folder, (0, 0))
        remove_stale_temporaries(tmp_path)
        assert folder.is_dir()
    left = tmp_path / f".tmp-m2e-{socket.gethostname()}-{os.getpid()}-{1:012x}"
    left.mkdir()
    remove_stale_temporaries(tmp_path)
    assert not left.exists()
