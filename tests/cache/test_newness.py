"""Which record of a track is the newest is the same before, during and after files are merged and repaired."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from support.caches import CONFIG, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter, TrackFeatures, write_labels
from m2e.cache.care import merge as merging
from m2e.cache.care.merge import merge
from m2e.cache.care.pack import pack
from m2e.cache.care.repair import repair
from m2e.cache.catalogue import scan
from m2e.cache.cli import main
from m2e.cache.failures import Failure, record_failure
from m2e.cache.feature_file import open_features
from m2e.cache.folders import SET_ASIDE, feature_files, features_folder
from m2e.cache.layout import HIGHEST_GENERATION, feature_image, feature_name, join, to_record
from m2e.common import files as writing
from m2e.common.files import content_digest

LABELS = make_labels("deam", "D", 6)
IDS = LABELS.track_ids


def shard(folder: Path, tracks: list[TrackFeatures], generation: int = 0, seconds: int = 1000) -> Path:
    """A shard that was modified at a time of our choice."""
    image = feature_image(join(map(to_record, tracks)), CONFIG, generation)
    path = features_folder(folder, CONFIG) / feature_name("shard", image)
    writing.write_atomically(path, image, seconds * 10**9)
    return path


def cache(folder: Path) -> Path:
    """Without features."""
    write_labels(folder, LABELS)
    FeatureWriter(folder, CONFIG)._write_settings()
    return folder


def audio(folder: Path) -> dict[str, bytes]:
    index = scan(features_folder(folder, CONFIG), CONFIG).index
    return {row["id"].decode(): row["audio_sha256"].tobytes() for row in index}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in feature_files(features_folder(folder, CONFIG))}


def flip(path: Path, dataset: str, at: int) -> None:
    """A bit of a dataset, as a disk forgets it: the file is as old as before."""
    before = path.stat().st_mtime_ns
    with h5py.File(path, "r") as file:
        offset = file[dataset].id.get_offset() + at
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before, before))


def done_again(folder: Path) -> None:
    """Tracks of several generations, and some of one generation that only time tells apart."""
    cache(folder)
    for seed in range(20):
        shard(folder, [random_track(i, seed=seed) for i in IDS[:3]], generation=seed % 4, seconds=1000 + seed * 7 % 20)
        shard(folder, [random_track(i, seed=100 + seed) for i in IDS[3:]], seconds=1000 + seed // 2)


def test_wherever_a_merge_is_killed_the_newest_record_counts_and_it_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_again(tmp_path / "a")
    sources = [tmp_path / "a", cache(tmp_path / "b")]
    newest = audio(sources[0])
    shard(sources[1], [random_track(IDS[0], seed=11), random_track("u0001", seed=1)], seconds=2000)
    assert random_track(IDS[0], seed=11).audio_sha256 == newest[IDS[0]]
    real, allowed = writing.write_atomically, [0]

    def write(path: Path, *words: Any) -> None:
        if path.suffix == ".h5" and path.name.startswith("shard-"):
            allowed[0] -= 1
            if allowed[0] < 0:
                raise KeyboardInterrupt
        real(path, *words)

    monkeypatch.setattr(merging, "write_atomically", write)
    for copied in range(0, 41, 3):
        into = tmp_path / str(copied)
        for first in (copied, 1, 100):  # twice killed, then run to its end
            allowed[0] = first
            if first < 100:
                with pytest.raises(KeyboardInterrupt):
                    merge(sources, into)
            else:
                merge(sources, into)
            found = audio(into)
            assert found.items() <= {**newest, "u0001": random_track("u0001", seed=1).audio_sha256}.items()
        assert len(found) == 7
    of = {
        path.name: path.stat().st_mtime_ns
        for source in sources
        for path in feature_files(features_folder(source, CONFIG))
    }
    assert of == {path.name: path.stat().st_mtime_ns for path in feature_files(features_folder(into, CONFIG))}


def test_a_file_that_the_target_has_is_as_new_as_in_the_source(tmp_path: Path) -> None:
    tracks = [random_track(IDS[0], seed=seed) for seed in (1, 2)]
    source, into = cache(tmp_path / "a"), cache(tmp_path / "b")
    shard(source, tracks[:1], seconds=1000)
    shard(source, tracks[1:], seconds=2000)
    shard(into, tracks[1:], seconds=5)
    merge([source], into)
    assert audio(into) == {IDS[0]: tracks[1].audio_sha256}


def test_of_files_of_one_time_the_name_decides_for_all_their_tracks(tmp_path: Path) -> None:
    """A file system that counts whole seconds: without an order of files a merge could not keep it."""
    folder = cache(tmp_path / "a")
    for seed in range(6):
        shard(folder, [random_track(track_id, seed=10 * seed + i) for i, track_id in enumerate(IDS)])
    last = feature_files(features_folder(folder, CONFIG))[-1].name
    catalogue = scan(features_folder(folder, CONFIG), CONFIG)
    assert {catalogue.files[number].name for number in catalogue.file} == {last}


@pytest.mark.parametrize("names", range(8))
def test_of_one_record_in_two_files_that_of_the_highest_generation_is_read(tmp_path: Path, names: int) -> None:
    folder, track = cache(tmp_path / "a"), random_track(IDS[0], seed=1)
    shard(folder, [track, random_track(IDS[1], seed=names)])
    newest = shard(folder, [track, random_track(IDS[2], seed=names)], generation=2)
    catalogue = scan(features_folder(folder, CONFIG), CONFIG)
    assert catalogue.files[catalogue.file[0]].path == newest


@pytest.mark.parametrize("generation", [0, 3])
def test_what_repair_saves_is_as_new_as_the_file_that_it_was_in(tmp_path: Path, generation: int) -> None:
    folder = cache(tmp_path / "a")
    older, newer = ([random_track(i, seed=seed + n) for n, i in enumerate(IDS)] for seed in (1, 11))
    shard(folder, older, seconds=1000)
    damaged = shard(folder, newer, generation, seconds=2000)
    shard(folder, [random_track(IDS[5], seed=99)], generation, seconds=3000)  # newer still
    before = audio(folder)
    flip(damaged, "embeddings", 1)  # of the first track
    assert len(repair(folder).saved) == 5
    after = audio(folder)
    assert [track_id for track_id in IDS if before[track_id] != after[track_id]] == [IDS[0]]
    (saved,) = {
        path for path in feature_files(features_folder(folder, CONFIG)) if path.stat().st_mtime_ns == 2000 * 10**9
    }
    assert open_features(saved.parent, saved.name, CONFIG)[0].generation == generation


def test_a_damaged_file_whose_records_are_all_good_is_mended_and_not_moved_away(tmp_path: Path) -> None:
    """What is saved has the very name of the file that it comes from."""
    folder = cache(tmp_path / "a")
    path = shard(folder, [random_track(track_id, seed=1) for track_id in IDS])
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + b"\1" + whole[2001:])  # between two datasets
    damaged = path.read_bytes()
    done = repair(folder)
    assert path.read_bytes() == whole
    assert [its.path.read_bytes() for its in done.damage] == [damaged]
    assert (len(done.saved), done.redo, done.commands) == (6, (), ())


def test_a_track_whose_newest_record_is_damaged_is_listed_and_compared_with_its_audio(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    old = shard(folder, [random_track(track_id, seed=i) for i, track_id in enumerate(IDS)])
    flip(shard(folder, [random_track(IDS[0], seed=50), random_track(IDS[1], seed=51)], generation=1), "embeddings", 1)
    said = CliRunner().invoke(main, ["repair", str(folder)], catch_exceptions=False)
    assert said.stdout.splitlines()[-1] == f"older  {IDS[0]}  {old.name}, of generation 0"
    assert "--check-audio" in said.stderr.splitlines()[-1]
    assert "--retry-failed" not in said.stderr
    again = repair(folder)
    assert (again.damage, again.older, again.commands) == ((), {}, ())


@pytest.mark.parametrize("read", ["newer", "the same", "of the same audio"])
def test_nothing_is_said_of_a_damaged_record_that_did_not_count(tmp_path: Path, read: str) -> None:
    folder, track = cache(tmp_path / "a"), random_track(IDS[0], seed=1)
    rest = [random_track(track_id, seed=7) for track_id in IDS[1:]]
    flip(shard(folder, [track, *rest], generation=1), "embeddings", 1)
    others = {
        "newer": random_track(IDS[0], seed=2),
        "the same": track,
        "of the same audio": replace(track, embeddings=track.embeddings * 2),
    }
    shard(folder, [others[read]], generation=1, seconds=3000)
    done = repair(folder)
    assert (len(done.damage), done.older, done.untold, done.commands) == (1, {}, 0, ())


Damage = Callable[[Path], None]
TELL_NOTHING: dict[str, Damage] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]) and None,
    "an id": lambda path: flip(path, "index", 4),
    "an id like another": lambda path: flip(path, "index", 4 + 154),  # t0001 becomes t0000
}


@pytest.mark.parametrize("name", TELL_NOTHING)
def test_a_file_that_does_not_tell_what_it_held_may_have_held_what_is_newest(tmp_path: Path, name: str) -> None:
    folder = cache(tmp_path / "a")
    shard(folder, [random_track(track_id, seed=i) for i, track_id in enumerate(IDS)])
    TELL_NOTHING[name](shard(folder, [random_track(i, seed=50) for i in IDS], generation=1))
    done = repair(folder)
    assert (done.untold, done.redo) == (1, ())
    assert [command.split()[-1] for command in done.commands] == ["--check-audio"]
    said = CliRunner().invoke(main, ["repair", str(folder)]).stderr
    assert "Nothing more to do" in said


@pytest.mark.parametrize("listed", [True, False])
def test_a_failure_on_record_settles_nothing_where_the_features_are_gone(tmp_path: Path, listed: bool) -> None:
    """Its audio became another, which could not be used; what it was has features, until they are damaged."""
    folder = cache(tmp_path / "a")
    shard(folder, [random_track(track_id, seed=2) for track_id in IDS[2:]])
    held = shard(folder, [random_track(track_id, seed=1) for track_id in IDS[:1]])
    for track_id in IDS[:2]:
        record_failure(held.parent, Failure(track_id, f"{track_id}.mp3", "audio", "it is empty", 0))
    assert repair(folder).redo == ()
    if listed:
        flip(held, "embeddings", 1)
    else:
        held.write_bytes(held.read_bytes()[:-9])
    done = repair(folder)
    assert done.redo == (IDS[:1] if listed else IDS[:2])
    assert [command.split()[-1] for command in done.commands] == ["--retry-failed"]


def forge(path: Path, generation: int) -> Path:
    """Another generation, under a digest that fits."""
    with h5py.File(path, "r+") as file:
        file.attrs["generation"] = np.uint64(generation)
    return path.rename(path.with_name(f"shard-{content_digest(path.read_bytes())}.h5"))


@pytest.mark.parametrize("generation", [HIGHEST_GENERATION + 1, 2**53, 2**63 - 1, 2**64 - 1])
def test_an_absurd_generation_is_named_and_moving_its_file_away_helps(tmp_path: Path, generation: int) -> None:
    folder = cache(tmp_path / "a")
    shard(folder, [random_track(track_id, seed=i) for i, track_id in enumerate(IDS)])
    path = forge(shard(folder, [random_track(IDS[0], seed=50)], generation=1), generation)
    for command in (["info"], ["pack"], ["failures"], ["repair"], ["verify", "--deep"]):
        result = CliRunner().invoke(main, [*command, str(folder)])
        assert result.exit_code == 1
        assert f"{path} has generation {generation}" in result.output
        assert "move it away" in result.output
    path.rename(tmp_path / path.name)
    with FeatureWriter(folder, CONFIG, generation=1) as writer:
        writer.add(random_track(IDS[0], seed=77))
    assert pack(path.parent).tracks == 6
    assert audio(folder)[IDS[0]] == random_track(IDS[0], seed=77).audio_sha256


def test_above_the_highest_generation_packing_makes_room(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    shard(folder, [random_track(IDS[0], seed=50)], generation=HIGHEST_GENERATION)
    features = features_folder(folder, CONFIG)
    following = int(scan(features, CONFIG).generations[0]) + 1
    with pytest.raises(DataError, match=f"`m2e-cache pack {folder}` begins at 0 again"):
        FeatureWriter(folder, CONFIG, following)
    assert CliRunner().invoke(main, ["pack", str(folder)]).exit_code == 0
    following = int(scan(features, CONFIG).generations[0]) + 1
    with FeatureWriter(folder, CONFIG, following) as writer:
        writer.add(random_track(IDS[0], seed=77))
    assert audio(folder)[IDS[0]] == random_track(IDS[0], seed=77).audio_sha256
    assert len(FeatureCache.open(folder).load().track_ids) == 1


def test_losers_that_cannot_be_kept_aside_stop_packing(tmp_path: Path) -> None:
    folder = cache(tmp_path / "a")
    loser = shard(folder, [random_track(IDS[0], seed=1)], seconds=1000)
    shard(folder, [random_track(IDS[0], seed=2)], seconds=2000)
    flip(loser, "embeddings", 1)
    with pytest.raises(DataError, match=f"{loser} is damaged: `m2e-cache repair"):
        pack(loser.parent)
    assert loser.exists()
    assert not (loser.parent / SET_ASIDE).exists()
