"""m2e-cache relabel: labels and splits change, features do not."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.caches import CONFIG, random_track
from support.official import WRITERS, write

from m2e.cache import FeatureCache, FeatureWriter, read_labels
from m2e.cache.cli import main
from m2e.cache.lock import pack_lock
from m2e.common.errors import LockedError
from m2e.manifests import load
from m2e.manifests.read import table
from m2e.manifests.store import save_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache of DEAM as distributed, with features of its eight songs."""
    WRITERS["deam"](tmp_path / "data" / "deam")
    manifest = load("deam", tmp_path / "data" / "deam")
    folder = tmp_path / "features" / "deam"
    with FeatureWriter(folder, CONFIG) as writer:
        save_labels(manifest, folder)
        for i, track in enumerate(manifest.tracks):
            writer.add(random_track(track.track_id, seed=i))
    return folder


def relabel(folder: Path, *options: str | Path) -> Result:
    data = str(folder.parents[1] / "data")
    arguments = ["relabel", str(folder), *map(str, options)]
    return CliRunner().invoke(main, arguments, env={"M2E_DATA": data}, catch_exceptions=False)


def features(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.h5") if path.name != "labels.h5"}


def test_repaired_labels_reach_the_trainer_and_features_stay(folder: Path) -> None:
    before, kept = read_labels(folder), features(folder)
    result = relabel(folder, "--deam-labels", "repaired", "--json")
    assert result.exit_code == 0, result.output
    changed = json.loads(result.stdout)
    assert (changed["other_valence_or_arousal"], changed["other_split"], changed["added"]) == (4, 0, 0)
    cache = FeatureCache.open(folder)
    assert "repaired" in cache.labels.provenance
    low = [int(track_id) <= 1000 for track_id in before.track_ids]
    np.testing.assert_array_equal(cache.labels.valence_arousal[low], before.valence_arousal[low][:, ::-1])
    assert features(folder) == kept
    assert not list(folder.glob(".tmp-*"))
    assert json.loads(relabel(folder, "--json").stdout)["other_valence_or_arousal"] == 4
    assert read_labels(folder).provenance == before.provenance


def test_splits_alone(folder: Path, tmp_path: Path) -> None:
    for split, ids in (("train", "2\n3\n175\n536\n1001\n"), ("validation", "2000\n"), ("test", "2001\n2058\n")):
        write(tmp_path / "lists" / f"{split}.txt", ids)
    result = relabel(folder, "--splits", tmp_path / "lists")
    assert result.exit_code == 0
    assert "other valence or arousal 0" in " ".join(result.stderr.split())
    assert "splits: the lists in lists" in result.stderr
    assert read_labels(folder).splits == ("train",) * 5 + ("validation",) + ("test",) * 2


def test_built_manifest(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "data" / "deam"
    manifest = load("deam", root)
    rows = table.write(manifest, root).decode().splitlines(keepends=True)
    file = write(
        tmp_path / "mine.csv", "".join(row for row in rows if not row.startswith("2058,")) + "9,9.mp3,train,5,5,,\n"
    )
    changed = json.loads(relabel(folder, "--manifest", file, "--json").stdout)
    assert {name: changed[name] for name in ("tracks", "added", "removed")} == {"tracks": 8, "added": 1, "removed": 1}
    assert read_labels(folder).dataset == "deam"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("track_id,path,tags\n2,2.mp3,x\n", "is the cache of deam, and .* is a manifest of mine"),
        ("#m2e-manifest,name=deam\ntrack_id,path,tags\nx,2.mp3,x\n", "have no track in common"),
        ("#m2e-manifest,name=deam\ntrack_id,path,tags\n2,/etc/passwd,x\n", "is not a path inside"),
    ],
)
def test_manifest_that_does_not_fit(text: str, line: str, folder: Path, tmp_path: Path) -> None:
    before = (folder / "labels.h5").read_bytes()
    result = relabel(folder, "--manifest", write(tmp_path / "mine.csv", text))
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert re.search(line, result.stderr)
    assert (folder / "labels.h5").read_bytes() == before


def test_next_command_is_quoted_and_finds_the_caches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = folder.parents[1] / "my features" / "deam"
    spaced.parent.mkdir()
    folder.rename(spaced)
    said = relabel(spaced, "--deam-labels", "repaired").stderr
    assert said.strip().endswith(f"Next: m2e-train --datasets D --cache '{spaced.parent}'")
    assert "It said: DEAM static annotations averaged per song, as distributed" in said
    monkeypatch.chdir(spaced)
    result = CliRunner().invoke(main, ["relabel", "."], env={"M2E_DATA": str(folder.parents[1] / "data")})
    assert result.stderr.strip().endswith(f"--cache '{spaced.parent}'")


def test_cache_of_a_table_of_ones_own(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", "track_id,path,tags\n2,2.mp3,x\n")
    mine = folder.with_name("mine")
    save_labels(load(str(file)), mine)
    assert "--manifest mine.csv" in relabel(mine).stderr
    assert relabel(mine, "--manifest", file).exit_code == 0


def test_cache_that_was_given_a_name_is_known_by_its_table(tmp_path: Path) -> None:
    file = write(tmp_path / "a" / "mine.csv", "track_id,path,tags\n2,2.mp3,x\n")
    folder = tmp_path / "features" / "others"
    save_labels(load(str(file), name="others"), folder)
    assert relabel(folder, "--manifest", file).exit_code == 0
    assert read_labels(folder).dataset == "others"
    other = write(tmp_path / "b" / "others.csv", "track_id,path,tags\n2,3.mp3,x\n")
    refused = relabel(folder, "--manifest", other)
    assert refused.exit_code == 1
    assert f"made from another table of this name, in {tmp_path / 'a'}" in refused.stderr


def test_wrong_usage(folder: Path, tmp_path: Path) -> None:
    assert relabel(folder, "--manifest", tmp_path / "mine.txt").exit_code == 2
    assert relabel(folder, "--scale", "0", "1").exit_code == 2
    assert relabel(tmp_path / "data").exit_code == 1


def test_lock_of_another_process_is_respected(folder: Path) -> None:
    before = (folder / "labels.h5").read_bytes()
    with pack_lock(folder):
        result = relabel(folder, "--deam-labels", "repaired")
    assert result.exit_code == 1
    assert f"relabelled by process {os.getpid()} on" in result.stderr
    assert (folder / "labels.h5").read_bytes() == before
    assert relabel(folder, "--deam-labels", "repaired").exit_code == 0
    assert (folder / "labels.h5").read_bytes() != before


def test_where_there_is_nothing_to_write_no_lock_is_needed(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", "track_id,path,tags\n1,1.mp3,x\n2,2.mp3,x\n")
    mine = tmp_path / "features" / "mine"
    save_labels(load(str(file)), mine)
    with pack_lock(folder), pack_lock(mine):
        assert relabel(folder).exit_code == 0
        save_labels(load(str(file)), mine)
        write(file, "track_id,path,tags\n1,1.mp3,y\n2,2.mp3,x\n")
        with pytest.raises(LockedError):
            save_labels(load(str(file)), mine)


def test_tracks_that_go_from_the_labels_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i},{i}.mp3,x\n" for i in range(5)]
    file = write(tmp_path / "mine.csv", "track_id,path,tags\n" + "".join(rows))
    save_labels(load(str(file)), tmp_path / "mine")
    write(file, "track_id,path,tags\n" + "".join(rows[2:]) + "9,9.mp3,x\n")
    assert capsys.readouterr().err == ""
    save_labels(load(str(file)), tmp_path / "mine")
    assert "2 of the 5 tracks that labels.h5 listed are not in the table any more (first: 0)" in capsys.readouterr().err
    save_labels(load(str(file)), tmp_path / "mine")
    assert capsys.readouterr().err == ""


def test_a_write_that_fails_leaves_the_old_labels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "labels.h5").read_bytes()

    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("m2e.common.files._write", full)
        result = relabel(folder, "--deam-labels", "repaired")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert (folder / "labels.h5").read_bytes() == before


def test_lost_labels_are_written_again_and_damaged_ones_only_once_they_are_set_aside(folder: Path) -> None:
    good = (folder / "labels.h5").read_bytes()
    (folder / "features-0123456789abcdef").mkdir()
    damaged = good[:-300]
    (folder / "labels.h5").write_bytes(damaged)
    refused = relabel(folder)
    assert refused.exit_code == 1
    assert "m2e-cache repair" in refused.stderr
    assert (folder / "labels.h5").read_bytes() == damaged
    (folder / "labels.h5").unlink()
    result = relabel(folder, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["tracks"] == 8
    assert (folder / "labels.h5").read_bytes() == good


def test_extraction_that_would_undo_it_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relabel(folder, "--deam-labels", "repaired")
    manifest = load("deam", folder.parents[1] / "data" / "deam")
    save_labels(manifest, folder)
    said = capsys.readouterr().err
    assert "labels were: DEAM static annotations averaged per song, repaired" in said
    save_labels(manifest, folder)
    assert not capsys.readouterr().err


def test_extraction_stores_the_choice(tmp_path: Path) -> None:
    from m2e.extract.cli import main as extract

    WRITERS["deam"](tmp_path / "deam")
    options = ["--root", str(tmp_path / "deam"), "--cache", str(tmp_path), "--encoder", "tiny", "--chords", "template"]
    result = CliRunner().invoke(extract, ["--dataset", "deam", "--deam-labels", "repaired", *options])
    assert result.exit_code == 1  # no audio
    assert "4 songs (ids 2-1000) had valence and arousal exchanged" in result.stderr
    assert "repaired" in read_labels(tmp_path / "deam").provenance
    assert CliRunner().invoke(extract, ["--dataset", "pmemo", "--deam-labels", "repaired", *options]).exit_code == 2
