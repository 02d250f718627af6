"""m2e-extract as a user runs it: what it keeps, skips, resumes and says."""

import errno
import json
import os
import re
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.encoded import cut, encode, noise, overwrite
from support.lent import invoke
from support.music import write_songs
from support.official import write_emomusic

from m2e.cache import FeatureCache
from m2e.cache import feature_file as stored
from m2e.cache.cli import main as care
from m2e.cache.failures import read_failures
from m2e.cache.folders import features_folders, fingerprint_of
from m2e.cache.layout import HIGHEST_GENERATION
from m2e.cache.lock import pack_lock
from m2e.common.files import content_digest
from m2e.extract.cli import main

TRY_OUT = ["--encoder", "tiny", "--chords", "template", "--device", "cpu"]


def extract(dataset: Path | str, cache: Path, *options: str, jobs: int = 1) -> Result:
    arguments = ["--dataset", str(dataset), "--cache", str(cache), *TRY_OUT, "--jobs", str(jobs), "--json", *options]
    return invoke(main, arguments, catch_exceptions=False)


def files(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("songs/features-*/*.h5")}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    """(table, cache, summary) of six songs and five broken ones, with two processes."""
    folder = tmp_path_factory.mktemp("songs")
    table = write_songs(folder, 6)
    (folder / "text.mp3").write_text("this is not music\n" * 100)
    (folder / "empty.wav").touch()
    (folder / "long.flac").write_bytes((folder / "1.flac").read_bytes()[:3000])
    import soundfile

    soundfile.write(folder / "short.wav", np.zeros(220), 22_050)
    with table.open("a") as file:
        for name in ("text.mp3", "empty.wav", "short.wav", "long.flac", "nowhere.mp3"):
            file.write(f"{name},{name},5,5\n")
    result = extract(table, folder / "cache", jobs=2)
    assert result.exit_code == 0, result.output
    return table, folder / "cache", json.loads(result.stdout)


def test_good_tracks_are_in_and_broken_ones_are_counted(
    extracted: tuple[Path, Path, dict[str, object]],
) -> None:
    _, cache, summary = extracted
    assert summary["tracks"] == 11
    assert summary["missing"] == 1
    kept = FeatureCache.open(cache / "songs")
    failures = kept.failures
    assert set(kept.track_ids) | set(failures) == {*(f"song{i:02d}" for i in range(6)), *failures}
    assert set(failures) == {"text.mp3", "empty.wav", "short.wav", "long.flac"}
    assert summary["kept"] == len(kept.track_ids)
    assert summary["failed"] == len(failures)
    assert all("\n" not in failure.reason for failure in failures.values())


def test_the_cache_holds_what_the_manifest_and_the_audio_say(
    extracted: tuple[Path, Path, dict[str, object]],
) -> None:
    _, cache, _ = extracted
    kept = FeatureCache.open(cache / "songs")
    assert kept.layers == (5, 6, 7)
    assert kept.embeddings("song00").shape == (1, 3, 64)
    for i in range(6):
        row = kept.labels.track_ids.index(f"song{i:02d}")
        assert kept.labels.valence_arousal[row].tolist() == [1 + i % 9, 9 - i % 9]
        assert kept.chords(f"song{i:02d}").intervals[-1, 1] <= 2.2
    assert not np.allclose(kept.embeddings("song00"), kept.embeddings("song05"))


def test_a_second_run_does_nothing(extracted: tuple[Path, Path, dict[str, object]]) -> None:
    table, cache, summary = extracted
    before = files(cache)
    again = json.loads(extract(table, cache).stdout)
    assert again["new"] == 0
    assert again["kept"] == summary["kept"]
    assert again["failed"] == summary["failed"]
    assert files(cache) == before


def test_one_process_and_two_give_the_same_features_and_a_part_holds_its_share(
    extracted: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    table, cache, _ = extracted
    result = extract(table, tmp_path, "--limit", "3", "--shard", "0/1")
    assert result.stderr.splitlines()[-1].startswith("songs: 3 of 11 tracks are in")
    part = extract(table, tmp_path, "--limit", "3", "--shard", "1/2")
    assert "Next, when all 2 parts are done: m2e-cache pack" in part.stderr
    assert json.loads(part.stdout)["shard"] == "1/2"
    one, two = FeatureCache.open(tmp_path / "songs"), FeatureCache.open(cache / "songs")
    assert one.track_ids == ("song00", "song01", "song02")
    for track_id in one.track_ids:
        np.testing.assert_array_equal(one.embeddings(track_id), two.embeddings(track_id))
        assert one.chords(track_id).labels == two.chords(track_id).labels
        assert one.key(track_id) == two.key(track_id)


def test_a_mended_file_is_tried_again_and_retry_failed_tries_all(tmp_path: Path) -> None:
    table = write_songs(tmp_path, 2)
    good = (tmp_path / "1.flac").read_bytes()
    for name in ("0.wav", "1.flac"):
        (tmp_path / name).write_text("broken")
    result = extract(table, tmp_path / "cache")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed"] == 2
    (tmp_path / "1.flac").write_bytes(good)
    result = extract(table, tmp_path / "cache")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["kept"], summary["new"], summary["failed"]) == (1, 1, 1)
    assert "song00" not in result.stderr  # known, not tried again
    assert "song00" in extract(table, tmp_path / "cache", "--retry-failed").stderr
    features = next((tmp_path / "cache" / "songs").glob("features-*"))
    assert read_failures(features)["song00"].attempts == 2
    assert extract(table, tmp_path / "cache", "--strict").exit_code == 1


def test_changed_audio_is_extracted_again_and_overwrite_replaces_all(
    extracted: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    table, _, _ = extracted
    shutil.copytree(table.parent, tmp_path / "songs")
    table, cache = tmp_path / "songs" / table.name, tmp_path / "songs" / "cache"
    before = FeatureCache.open(cache / "songs")
    embeddings = {track_id: before.embeddings(track_id) for track_id in before.track_ids}
    (table.parent / "0.wav").write_bytes((table.parent / "4.wav").read_bytes())  # of the same size
    shutil.copy(table.parent / "5.flac", table.parent / "1.flac")
    names = files(cache)
    asked = extract(table, cache, "--check-audio")
    assert asked.exit_code == 1
    assert "the audio of 2 of 6 tracks is another than when it was extracted" in asked.stderr
    said = "--accept-changes extracts them again; another data set needs another --name. Nothing was changed"
    assert said in asked.stderr
    assert files(cache) == names
    result = extract(table, cache, "--check-audio", "--accept-changes")
    assert result.exit_code == 0
    assert "the audio of 2 tracks changed since it was extracted" in result.stderr
    after = FeatureCache.open(cache / "songs")
    assert after.track_ids == before.track_ids
    for track_id, source in {"song00": "song04", "song01": "song05", "song02": "song02"}.items():
        np.testing.assert_array_equal(after.embeddings(track_id), embeddings[source])
    names = files(cache)
    result = extract(table, cache, "--overwrite", "--limit", "3")
    assert json.loads(result.stdout)["new"] == 3
    assert files(cache).keys() == names.keys()  # the same audio gives the same bytes


def test_a_damaged_file_stops_the_run_with_the_command_that_repairs_and_then_its_tracks_are_extracted_again(
    extracted: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    table, cache, summary = extracted
    shutil.copytree(cache, tmp_path / "cache")
    pack = next((tmp_path / "cache").glob("songs/features-*/pack-*.h5"))
    whole = pack.read_bytes()
    pack.write_bytes(whole[: len(whole) * 3 // 4])
    before = files(tmp_path / "cache")
    result = extract(table, tmp_path / "cache")
    assert result.exit_code == 1
    repair = f"m2e-cache repair {tmp_path / 'cache' / 'songs'}"
    assert f"`{repair}`" in result.stderr
    assert files(tmp_path / "cache") == before
    assert CliRunner().invoke(care, shlex.split(repair)[1:]).exit_code == 0
    result = extract(table, tmp_path / "cache")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["kept"] == summary["kept"]
    assert pack.read_bytes() == whole  # made again, to the byte


@pytest.mark.parametrize("how", ["forbidden", "newer", "newer settings"])
def test_what_cannot_be_read_or_is_newer_stops_the_run_and_stays(
    extracted: tuple[Path, Path, dict[str, object]], tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, cache, _ = extracted
    shutil.copytree(cache, tmp_path / "cache")
    pack = next((tmp_path / "cache").glob("songs/features-*/pack-*.h5"))
    if how == "forbidden":
        real = os.open

        def opened(name: Any, *words: Any, **named: Any) -> int:
            if os.fspath(name) == str(pack):
                raise PermissionError(errno.EACCES, "Permission denied", str(pack))
            return real(name, *words, **named)

        monkeypatch.setattr(os, "open", opened)
    elif how == "newer":
        import h5py

        with h5py.File(pack, "r+") as file:
            file.attrs["schema_version"] = 7
    config = pack.with_name("config.json")
    if how == "newer settings":
        config.write_text(json.dumps({**json.loads(config.read_text()), "invented": 1}))
    settings = config.read_bytes()
    before = files(tmp_path / "cache")
    result = extract(table, tmp_path / "cache", "--overwrite")
    assert result.exit_code == 1
    assert ("Permission denied" if how == "forbidden" else "update m2e") in result.stderr
    assert files(tmp_path / "cache") == before
    assert config.read_bytes() == settings


@pytest.mark.parametrize("what", ["damaged", "unreadable"])
def test_what_packing_finds_to_be_damaged_or_unreadable_is_named_after_the_summary(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that nothing looks at before: the tracks are kept, and others are extracted."""
    table, cache = write_songs(tmp_path, 3), tmp_path / "cache"
    extract(table, cache)
    pack = next(cache.glob("songs/features-*/pack-*.h5"))
    if what == "damaged":
        content = bytearray(pack.read_bytes())
        content[2048] ^= 1  # of the first embedding
        pack.write_bytes(content)
    else:
        real = stored._fill

        def fill(raw: Any, *words: Any) -> bool:
            if raw.name == str(pack):
                raise OSError(errno.EIO, "Input/output error")
            return real(raw, *words)

        monkeypatch.setattr(stored, "_fill", fill)
    shutil.copy(tmp_path / "0.wav", tmp_path / "more.wav")
    with table.open("a") as file:
        file.write("more,more.wav,5,5\n")
    result = extract(table, cache)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["kept"] == 4
    summary, last = result.stderr.splitlines()[-2:]
    assert "4 of 4 tracks are in" in summary
    assert last.startswith("error not packed: ")
    assert str(pack) in last
    assert ("is damaged" if what == "damaged" else "Input/output error") in last
    direct = CliRunner().invoke(care, ["pack", str(cache / "songs")])
    assert (direct.exit_code, str(pack) in direct.stderr.splitlines()[-1]) == (1, True)
    if what == "damaged":
        repair = f"m2e-cache repair {cache / 'songs'}"
        assert f"`{repair}`" in last
        assert CliRunner().invoke(care, shlex.split(repair)[1:]).exit_code == 0
        assert extract(table, cache).exit_code == 0
        assert CliRunner().invoke(care, ["verify", "--deep", str(cache / "songs")]).exit_code == 0


def test_above_the_highest_generation_the_remedy_that_is_named_helps(tmp_path: Path) -> None:
    """Somebody made a file of that generation."""
    import h5py

    table, cache = write_songs(tmp_path, 2), tmp_path / "cache"
    extract(table, cache)
    path = next(cache.glob("songs/features-*/pack-*.h5"))
    with h5py.File(path, "r+") as file:
        file.attrs["generation"] = np.uint64(HIGHEST_GENERATION)
    path.rename(path.with_name(f"shard-{content_digest(path.read_bytes())}.h5"))
    refused = extract(table, cache, "--overwrite")
    assert refused.exit_code == 1
    pack = f"m2e-cache pack {cache / 'songs'}"
    assert f"`{pack}` begins at 0 again" in refused.stderr.splitlines()[-1]
    assert CliRunner().invoke(care, shlex.split(pack)[1:]).exit_code == 0
    done = extract(table, cache, "--overwrite")
    assert (done.exit_code, json.loads(done.stdout)["new"]) == (0, 2)
    state = path.with_name("overwrite-0-of-1.json")
    state.write_text(json.dumps({"generation": 2**63 - 1}))
    refused = extract(table, cache, "--overwrite")
    assert f"{state}: generation is {2**63 - 1}, not 1 to {HIGHEST_GENERATION}. Remove it" in refused.stderr
    state.unlink()
    assert extract(table, cache, "--overwrite").exit_code == 0


def test_a_lock_that_another_packer_holds_spoils_no_run(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 1), tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2e.extract.job.session.Session._pack", lambda session: None)
        extract(table, cache)
    with pack_lock(cache / "songs"):
        result = extract(table, cache)
    assert result.exit_code == 0
    assert "not packed: " in result.stderr
    assert "waiting for" not in result.stderr


def test_features_stay_until_there_are_new_ones_whatever_ends_the_run(tmp_path: Path) -> None:
    """A tag editor has touched every file, and the run dies before the first track is done again."""
    table, cache = write_songs(tmp_path, 4), tmp_path / "cache"
    extract(table, cache)
    before = FeatureCache.open(cache / "songs").load()
    for path in tmp_path.glob("[0-9].*"):
        with path.open("ab") as file:
            file.write(b"\0\0")
    asked = extract(table, cache)
    assert asked.exit_code == 1
    assert "the audio of 4 of 4 tracks is another" in asked.stderr
    for options in (["--accept-changes"], ["--accept-changes", "--overwrite"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("m2e.extract.job.session.usable_device", lambda device: sys.exit(143))
            assert extract(table, cache, *options).exit_code == 143
        np.testing.assert_array_equal(FeatureCache.open(cache / "songs").load().embeddings, before.embeddings)
    done = extract(table, cache, "--accept-changes")
    assert json.loads(done.stdout)["new"] == json.loads(done.stdout)["kept"] == 4
    after = FeatureCache.open(cache / "songs").load()
    assert after.track_ids == before.track_ids
    assert not set(after.audio_sha256) & set(before.audio_sha256)
    assert [name[:5] for name in files(cache)] == ["pack-"]


def on_record(cache: Path) -> list[str]:
    """What `m2e-cache failures` lists."""
    said = CliRunner().invoke(care, ["failures", str(cache / "songs"), "--json"])
    assert said.exit_code == 0
    return [failure["track_id"] for failure in json.loads(said.stdout)]


def test_a_changed_file_that_is_broken_keeps_the_features_of_what_it_was(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 3), tmp_path / "cache"
    extract(table, cache)
    former = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "0.wav").write_text("broken")

    def counts(*options: str) -> tuple[int, int, int]:
        result = extract(table, cache, *options)
        summary = json.loads(result.stdout)
        assert len(FeatureCache.open(cache / "songs").track_ids) == 3
        assert on_record(cache) == ["song00"] * summary["failed"]
        if summary["failed"]:
            assert "1 failed, of which 1 keep their older features" in result.stderr.splitlines()[-1]
        return summary["kept"], summary["new"], summary["failed"]

    assert counts() == (3, 0, 1)
    again = extract(table, cache)
    assert "3 in the cache, 0 to do" in again.stderr
    assert "1 failed before" in again.stderr
    assert counts() == counts("--retry-failed") == (3, 0, 1)
    said = CliRunner().invoke(care, ["failures", str(cache / "songs")])
    assert "1 tracks failed; 1 of them keep their older features" in said.stderr
    (tmp_path / "0.wav").write_bytes(former)
    assert counts() == (3, 0, 0)
    (tmp_path / "0.wav").write_text("broken")
    assert counts() == (3, 0, 1)
    shutil.copy(tmp_path / "1.flac", tmp_path / "0.wav")
    assert counts() == (3, 1, 0)


def test_so_does_one_of_the_same_size_and_one_that_fails_to_be_done_again(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 3), tmp_path / "cache"
    extract(table, cache)
    former = (tmp_path / "0.wav").read_bytes()
    for options in (["--check-audio"], ["--overwrite"]):
        (tmp_path / "0.wav").write_bytes(b"x" * len(former))
        for more in (options, []):
            summary = json.loads(extract(table, cache, *more).stdout)
            assert (summary["kept"], summary["failed"]) == (3, 1)
            assert on_record(cache) == ["song00"]
        (tmp_path / "0.wav").write_bytes(former)
        for more in (["--retry-failed"], []):
            summary = json.loads(extract(table, cache, *more).stdout)
            assert (summary["kept"], summary["failed"]) == (3, 0)
            assert on_record(cache) == []


def test_audio_that_vanishes_after_the_plan_is_missing_and_the_next_run_tries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, cache = write_songs(tmp_path, 6), tmp_path / "cache"
    away = tmp_path / "away"

    def vanish(device: str) -> str:
        away.mkdir()
        for name in ("0.wav", "1.flac", "2.ogg"):
            (tmp_path / name).rename(away / name)
        (tmp_path / "1.flac").symlink_to("1.flac")  # in a loop: it cannot be opened, and is there
        (tmp_path / "2.ogg").symlink_to("nothing")
        (tmp_path / "3.mp3").write_text("broken")
        return device

    with monkeypatch.context() as patch:
        patch.setattr("m2e.extract.job.session.usable_device", vanish)
        result = extract(table, cache)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["kept"], summary["new"], summary["failed"]) == (2, 2, 1)
    assert (summary["missing"], summary["unreadable"], summary["unheard"]) == (2, 1, 0)
    assert on_record(cache) == ["song03"]
    assert f"song00: cannot read {tmp_path / '0.wav'}: No such file or directory" in result.stderr
    for path in away.iterdir():
        path.replace(tmp_path / path.name)
    away.rmdir()
    again = json.loads(extract(table, cache).stdout)
    assert (again["kept"], again["new"], again["failed"], again["missing"]) == (5, 3, 1, 0)

    (tmp_path / "3.mp3").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("m2e.extract.job.session.usable_device", vanish)
        summary = json.loads(extract(table, cache, "--overwrite").stdout)
    assert (summary["kept"], summary["new"], summary["unheard"]) == (5, 2, 3)
    assert len(FeatureCache.open(cache / "songs").track_ids) == 5


def test_features_whose_audio_is_gone_are_there(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 3), tmp_path / "cache"
    extract(table, cache)
    for path in tmp_path.glob("[0-9].*"):
        path.unlink()
    result = extract(table, cache)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["kept"], summary["missing"], summary["unheard"]) == (3, 0, 3)
    assert "3 in the cache, 0 to do" in result.stderr
    assert "the audio of 3 tracks in the cache is not there, or cannot be read: they stay" in result.stderr


def test_what_is_cut_is_a_failure_or_kept_and_marked(tmp_path: Path) -> None:
    wave = noise(4, 44_100, 2)
    encode(tmp_path / "whole.mp3", wave, 44_100, "libmp3lame", "mp3")
    cut(tmp_path / "whole.mp3")
    encode(tmp_path / "flac.flac", wave, 44_100, "flac", "flac")
    overwrite(tmp_path / "flac.flac", 5000)
    encode(tmp_path / "cancels.wav", np.stack([wave[0], -wave[0]]), 44_100, "pcm_s16le", "wav")
    names = ("whole.mp3", "cut-whole.mp3", "bad-flac.flac", "cancels.wav")
    rows = [f"{Path(name).stem},{name},5,5" for name in names]
    table = tmp_path / "songs.csv"
    table.write_text("\n".join(["track_id,path,valence,arousal", *rows]))

    result = extract(table, tmp_path / "cache")
    assert json.loads(result.stdout)["kept"] == 2
    (features,) = (tmp_path / "cache" / "songs").glob("features-*")
    failures = read_failures(features)
    assert set(failures) == {"cut-whole", "bad-flac"}
    assert re.search(r"cut-whole\.mp3 is cut: 1\.\d of 4\.0 s", failures["cut-whole"].reason)
    assert re.search(r"flac is damaged: 0\.\d s of 4\.0 s could not be decoded", failures["bad-flac"].reason)
    assert all("--accept-cut" in failure.reason for failure in failures.values())

    result = extract(table, tmp_path / "cache", "--accept-cut")
    assert json.loads(result.stdout)["new"] == 2
    kept = FeatureCache.open(tmp_path / "cache" / "songs")
    assert {track_id: [note.kind for note in notes] for track_id, notes in kept.notes.items()} == {
        "cut-whole": ["cut"],
        "bad-flac": ["damaged"],
        "cancels": ["cancels"],
    }
    assert kept.embeddings("cut-whole").shape == (1, 3, 64)
    said = CliRunner().invoke(care, ["info", str(tmp_path / "cache" / "songs"), "--json"]).stdout
    (group,) = json.loads(said)["features"]
    assert group["notes"] == {"cut": 1, "damaged": 1, "cancels": 1}


def test_another_table_of_the_same_name_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    first = write_songs(tmp_path / "first", 4)
    second = write_songs(tmp_path / "second", 2)
    cache = tmp_path / "cache"
    extract(first, cache)
    labels, kept = (cache / "songs" / "labels.h5").read_bytes(), files(cache)
    refused = extract(second, cache)
    assert refused.exit_code == 1
    assert f"another data set called songs: it has 4 tracks of {tmp_path / 'first'}, and 2 of" in refused.stderr
    assert "--name NAME" in refused.stderr
    assert "--replace" in refused.stderr
    assert (cache / "songs" / "labels.h5").read_bytes() == labels
    assert files(cache) == kept
    assert extract(second, cache, "--name", "others").exit_code == 0
    assert len(FeatureCache.open(cache / "others").track_ids) == 2
    assert FeatureCache.open(cache / "others").labels.clip_group[0] == "others/song00"
    assert len(FeatureCache.open(cache / "songs").track_ids) == 4
    assert extract(second, cache, "--replace").exit_code == 0  # the same sounds, by their digests
    assert FeatureCache.open(cache / "songs").labels.track_ids == ("song00", "song01")
    assert files(cache).keys() == kept.keys()
    for options in (["--name", "deam"], ["--name", "a/b"]):
        assert extract(second, cache, *options).exit_code == 1
    assert extract("deam", cache, "--name", "x", "--root", str(tmp_path)).exit_code == 2


def test_a_table_that_was_edited_or_moved_is_the_same(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path / "here", 3), tmp_path / "cache"
    extract(table, cache)
    moved = (tmp_path / "here").rename(tmp_path / "there") / table.name
    assert json.loads(extract(moved, cache).stdout)["new"] == 0
    rows = moved.read_text().splitlines()
    moved.write_text("\n".join([*rows[:-1], rows[-1].replace("song02", "song99")]) + "\n")
    result = extract(moved, cache)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["new"] == 1
    moved.write_text(moved.read_text().replace("song", "title"))
    assert extract(moved, cache).exit_code == 1  # not one track in common


def test_ids_of_another_project_in_the_same_folder_are_no_identity(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 3), tmp_path / "cache"
    extract(table, cache)
    (tmp_path / "music").mkdir()
    for name in ("0.wav", "1.flac"):
        shutil.copy(tmp_path / name, tmp_path / "music" / name)
    table.write_text(table.read_text().replace("0.wav", "music/0.wav").replace("1.flac", "music/1.flac"))
    refused = extract(table, cache)
    assert refused.exit_code == 1
    assert "3 of their ids are among your 3, with other paths" in refused.stderr
    replaced = json.loads(extract(table, cache, "--replace").stdout)
    assert (replaced["kept"], replaced["new"]) == (3, 0)  # the same sounds, by their digests


def test_features_of_a_replaced_table_are_not_read_as_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, cache = write_songs(tmp_path / "first", 3), tmp_path / "cache"
    extract(first, cache)
    second = write_songs(tmp_path / "second", 6)
    rows = second.read_text().splitlines()
    sounds = {"song00": "0.wav", "song01": "4.wav", "song02": "5.flac"}  # 01 and 02 are other music now
    second.write_text("\n".join([rows[0], *(f"{id_},{sound},5,5" for id_, sound in sounds.items())]))
    assert extract(second, cache).exit_code == 1
    with monkeypatch.context() as patch:
        patch.setattr(
            "m2e.extract.job.session.usable_device", lambda device: sys.exit(143)
        )  # ends before the first track
        assert extract(second, cache, "--replace").exit_code == 143
    assert FeatureCache.open(cache / "songs").track_ids == ("song00",)
    assert FeatureCache.open(cache / "songs").hours * 3600 < 40
    (tmp_path / "second" / "5.flac").rename(tmp_path / "away.flac")
    summary = json.loads(extract(second, cache).stdout)  # it goes on, and knows what it has not compared
    assert (summary["kept"], summary["new"], summary["missing"]) == (2, 1, 1)
    assert FeatureCache.open(cache / "songs").track_ids == ("song00", "song01")
    (tmp_path / "away.flac").rename(tmp_path / "second" / "5.flac")
    assert json.loads(extract(second, cache).stdout)["new"] == 1
    assert len(FeatureCache.open(cache / "songs").track_ids) == 3
    assert json.loads(extract(second, cache).stdout)["new"] == 0


def test_a_run_with_other_settings_says_nothing_of_features_that_it_has_not_compared(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 5), tmp_path / "cache"
    shutil.copy(tmp_path / "0.wav", tmp_path / "same.wav")
    (tmp_path / "4.wav").rename(tmp_path / "other.wav")  # of the size of 0.wav, and other music
    rows = table.read_text().replace("4.wav", "other.wav")
    table.write_text(rows)
    extract(table, cache)
    (first,) = features_folders(cache / "songs")
    table.write_text(rows.replace("0.wav", "x").replace("other.wav", "0.wav").replace("x", "other.wav"))
    assert json.loads(extract(table, cache, "--layers", "5").stdout)["new"] == 5
    fingerprint = fingerprint_of(first)
    assert FeatureCache.open(cache / "songs", fingerprint).track_ids == ("song01", "song02", "song03")
    again = extract(table, cache, "--accept-changes")
    assert json.loads(again.stdout)["new"] == 2
    assert len(FeatureCache.open(cache / "songs", fingerprint).track_ids) == 5
    assert json.loads(extract(table, cache).stdout)["new"] == 0


def test_another_project_of_equal_names_is_a_question_however_little_audio_it_has(tmp_path: Path) -> None:
    first, cache = write_songs(tmp_path / "first", 4), tmp_path / "cache"
    extract(first, cache)
    labels = (cache / "songs" / "labels.h5").read_bytes()
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = tmp_path / "second" / "songs.csv"
    for path in (tmp_path / "second").glob("[0-9].*"):
        path.rename(tmp_path / path.name)
    refused = extract(second, cache)
    assert refused.exit_code == 1
    assert "was made from another folder, and the audio of 4 of its 4 tracks is not there" in refused.stderr
    shutil.copy(tmp_path / "3.mp3", tmp_path / "second" / "0.wav")  # one of the four, and it is another
    refused = extract(second, cache)
    assert refused.exit_code == 1
    assert "the audio of 1 of 1 tracks is another" in refused.stderr
    assert (cache / "songs" / "labels.h5").read_bytes() == labels


def test_a_file_that_is_mended_within_its_size_is_tried_again(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 2), tmp_path / "cache"
    good = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "0.wav").write_bytes(bytes(len(good)))
    assert json.loads(extract(table, cache).stdout)["failed"] == 1
    assert json.loads(extract(table, cache).stdout)["failed"] == 1
    (tmp_path / "0.wav").write_bytes(good)
    summary = json.loads(extract(table, cache).stdout)
    assert (summary["kept"], summary["new"], summary["failed"]) == (2, 1, 0)


def test_labels_behind_a_link_that_leads_nowhere_stay_what_they_are(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 2), tmp_path / "cache"
    extract(table, cache)
    (cache / "songs" / "labels.h5").rename(tmp_path / "elsewhere.h5")
    (cache / "songs" / "labels.h5").symlink_to(tmp_path / "gone.h5")
    refused = extract(table, cache)
    assert refused.exit_code == 1
    assert f"is a link to {tmp_path / 'gone.h5'}, which is not there" in refused.stderr
    assert (cache / "songs" / "labels.h5").is_symlink()


def test_labels_that_are_lost_are_made_again_of_what_can_be_compared(tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path, 3), tmp_path / "cache"
    extract(table, cache)
    (cache / "songs" / "labels.h5").unlink()
    (tmp_path / "aside").mkdir()
    for path in tmp_path.glob("[0-9].*"):
        path.rename(tmp_path / "aside" / path.name)
    refused = extract(table, cache)
    assert refused.exit_code == 1
    assert "has lost its labels.h5, and the audio of 3 of its 3 tracks is not there to be compared" in refused.stderr
    for path in (tmp_path / "aside").iterdir():
        path.rename(tmp_path / path.name)
    assert json.loads(extract(table, cache).stdout)["new"] == 0
    assert len(FeatureCache.open(cache / "songs").track_ids) == 3


def test_missing_audio_is_one_line_and_nothing_there_is_exit_1(tmp_path: Path) -> None:
    write_emomusic(tmp_path / "emomusic")
    result = extract("emomusic", tmp_path / "cache", "--root", str(tmp_path / "emomusic"))
    assert result.exit_code == 1
    assert "without audio" in result.stderr
    assert "no file 2: " in result.stderr
    assert "and of 7 more tracks" in result.stderr
    assert len(result.stderr.splitlines()) < 8


def test_other_settings_go_beside_and_are_announced(
    extracted: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    table, cache, _ = extracted
    shutil.copytree(cache, tmp_path / "cache")
    result = extract(table, tmp_path / "cache", "--layers", "1,2", "--limit", "1")
    assert "features of other settings (layers: (1, 2), not (5, 6, 7))" in result.stderr
    assert len(list((tmp_path / "cache" / "songs").glob("features-*"))) == 2


def test_bad_usage_is_one_line(tmp_path: Path) -> None:
    table = write_songs(tmp_path, 1)
    for arguments, code, says in [
        (["--dataset", "emomusik"], 1, "did you mean emomusic"),
        (["--dataset", str(tmp_path / "none.csv")], 1, "no such file"),
        (["--dataset", "deam", "--root", str(tmp_path / "none")], 1, "no such folder"),
        (["--dataset", str(table), "--encoder", "tinny"], 1, "did you mean tiny"),
        (["--dataset", str(table), "--encoder", "tiny", "--layers", "x"], 2, "5,6,7"),
        (["--dataset", str(table), "--encoder", "tiny", "--layers", "9", "--chords", "template"], 1, "has 7 layers"),
        (["--dataset", str(table), "--encoder", "tiny", "--chord-checkpoint", str(table)], 1, str(table)),
        (["--dataset", str(table), "--dataset", "deam", "--root", str(tmp_path)], 2, "--root"),
        (["--dataset", str(table), "--shard", "2/2"], 2, "counted from 0"),
        (["--dataset", str(table), "--shard", "half"], 2, "not i/n, such as 0/4, the first of four, nor auto"),
        (["--dataset", str(table), "--shard", "auto"], 2, "none of them is set: say --shard I/N"),
        (["--dataset", str(table), "--encoder", "tiny", "--layers", "5,99999"], 2, "5,6,7"),
        ([], 2, "--dataset"),
    ]:
        result = CliRunner().invoke(main, [*arguments, "--cache", str(tmp_path / "c"), "--jobs", "1"])
        assert result.exit_code == code, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
        assert says in errors[0]
        assert "Traceback" not in result.output


ARRAY = {
    f"SLURM_ARRAY_TASK_{name}": str(n) for name, n in (("ID", 5), ("COUNT", 4), ("MIN", 5), ("MAX", 8), ("STEP", 1))
}


@pytest.mark.parametrize(
    ("environment", "part"), [(ARRAY, "0/4"), ({"RANK": "1", "WORLD_SIZE": "4"}, "1/4")], ids=["slurm", "torchrun"]
)
def test_a_part_that_nobody_asked_for_is_not_done(
    environment: dict[str, str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_songs(tmp_path, 2)
    for path in tmp_path.glob("*.[wf]*"):
        path.unlink()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for more in ([], ["--dry-run"]):
        refused = extract(table, tmp_path / "cache", *more)
        assert refused.exit_code == 2
        assert f"{' and '.join(list(environment)[:2])} say that this process is one of 4" in refused.stderr
        assert f"say --shard auto to do its part, {part}, or --shard 0/1 to do everything" in refused.stderr
    assert not (tmp_path / "cache").exists()
    asked = extract(table, tmp_path / "cache", "--shard", "auto")
    assert f"--shard {part}, from {next(iter(environment))}" in asked.stderr
    assert f"in part {part} of them" in asked.stderr
    assert "in part" not in extract(table, tmp_path / "cache", "--shard", "0/1").stderr


def test_one_process_alone_does_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_songs(tmp_path, 2)
    for path in tmp_path.glob("*.[wf]*"):
        path.unlink()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    for more in ([], ["--shard", "auto"]):
        assert "songs: 2 tracks, 0 in the cache" in extract(table, tmp_path / "cache", *more).stderr
    monkeypatch.setenv("RANK", "2")
    refused = extract(table, tmp_path / "cache")
    assert refused.exit_code == 2
    assert "or --shard 0/1 to do everything" in refused.stderr


def test_ten_real_clips(reference: Path, tmp_path: Path) -> None:
    options = ["--root", str(reference / "data" / "emomusic"), "--splits", str(reference / "data/splits/emomusic")]
    result = extract("emomusic", tmp_path, *options, jobs=2)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["kept"], summary["missing"], summary["failed"]) == (10, 734, 0)
    assert result.stderr.count("734") == 2  # the plan and the last line, not 734 lines
    cache = FeatureCache.open(tmp_path / "emomusic")
    assert sorted(cache.track_ids, key=int) == ["2", "3", "4", "5", "7", "8", "10", "12", "13", "17"]
    assert sorted(cache.splits) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 2
    labels = dict(zip(cache.labels.track_ids, cache.labels.valence_arousal.tolist(), strict=True))
    assert labels["2"] == pytest.approx([3.0, 3.1])
    assert cache.hours == pytest.approx(10 * 45.05 / 3600, rel=1e-3)


def test_lost_settings_are_written_again_and_foreign_ones_are_a_note(
    extracted: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    shutil.copytree(extracted[0].parent, tmp_path / "songs")
    table, cache = tmp_path / "songs" / extracted[0].name, tmp_path / "songs" / "cache"
    (config,) = cache.glob("songs/features-*/config.json")
    before = config.read_bytes()
    other = cache / "songs" / "features-0123456789abcdef"
    other.mkdir()
    (other / "config.json").write_bytes(b"\xff\xfe{")
    for damage in (config.unlink, partial(config.write_text, "{}")):
        damage()
        result = extract(table, cache)
        assert result.exit_code == 0
        assert json.loads(result.stdout)["new"] == 0
        assert "config.json was lost or edited, and is written again" in result.stderr
        assert str(other) in result.stderr
        assert config.read_bytes() == before


def test_chords_that_would_replace_somebodys_file_stop_the_run_before_its_work(tmp_path: Path) -> None:
    first, second = (write_songs(tmp_path / name, 1) for name in ("first", "second"))
    second = second.rename(second.with_name("second.csv"))
    (theirs := tmp_path / "lab" / "second" / "song00.lab").parent.mkdir(parents=True)
    theirs.write_text("by hand")
    options = ("--dataset", str(second), "--export-chords", str(tmp_path / "lab"))
    result = extract(first, tmp_path / "cache", *options)
    assert result.exit_code == 1
    assert f"Error: {theirs} is there already" in result.stderr
    assert theirs.read_text() == "by hand"
    assert [path for path in (tmp_path / "lab").rglob("*") if path.is_file()] == [theirs]
    assert not list((tmp_path / "cache").rglob("shard-*"))


def test_a_set_of_which_nothing_could_be_extracted_has_no_chords_to_export(tmp_path: Path) -> None:
    good, bad = write_songs(tmp_path / "good", 1), write_songs(tmp_path / "bad", 1)
    (bad.parent / "0.wav").write_text("broken")
    bad = bad.rename(bad.with_name("bad.csv"))
    result = extract(bad, tmp_path / "cache", "--dataset", str(good), "--export-chords", str(tmp_path / "lab"))
    assert "bad: no chords are written" in result.stderr
    assert len(list((tmp_path / "lab").rglob("*.lab"))) == 1
