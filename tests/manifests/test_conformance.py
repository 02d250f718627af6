"""Every registered data set keeps the same promises."""

import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.official import WRITERS

from m2e.cache.types import check_id
from m2e.common.errors import DataError
from m2e.manifests import DATASETS, SPLITS, ValenceArousal, load
from m2e.manifests.read import table
from m2e.manifests.splits import read_splits

every_set = pytest.mark.parametrize("name", DATASETS)


def refused(name: str, root: Path) -> str:
    """The one line with which `load` refuses."""
    with pytest.raises(DataError) as caught:
        load(name, root)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line


def test_every_registered_set_is_tested() -> None:
    assert WRITERS.keys() == DATASETS.keys()


@every_set
def test_manifest_is_complete(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    manifest = load(name, tmp_path)
    dataset = DATASETS[name]
    assert (manifest.name, manifest.letter) == (name, dataset.letter)
    assert dataset.letter in "JDEP"
    assert manifest.tracks
    assert "; splits: " in manifest.provenance
    assert all(len(line.splitlines()) == 1 for line in (manifest.provenance, dataset.description, *manifest.notes))
    assert bool(manifest.tag_names) == (dataset.letter == "J")
    assert bool(dataset.paper_counts) == (not name.startswith("demo-"))
    assert dataset.steps
    assert dataset.issues
    assert dataset.licence
    for track in manifest.tracks:
        check_id(track.track_id)
        assert track.split in SPLITS
        assert tmp_path in track.audio_path.parents
        assert ".." not in track.audio_path.parts
        assert (track.tags is not None) == (dataset.letter == "J")
        assert (track.valence_arousal is not None) == (dataset.letter != "J")
        assert "/" in track.clip_group
    assert load(name, tmp_path) == manifest


@every_set
def test_folder_that_is_missing_empty_or_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    empty = tmp_path / "empty"
    empty.mkdir()
    for root, complaint in ((tmp_path / "none", "no such folder"), (file, "no such folder"), (empty, "is empty")):
        line = refused(name, root)
        assert str(root) in line
        assert complaint in line
        assert DATASETS[name].holds in line
        assert DATASETS[name].source in line


@every_set
def test_each_official_file_is_needed_and_checked(name: str, tmp_path: Path) -> None:
    for i in range(len(WRITERS[name](tmp_path / "count"))):
        for j, damage in enumerate((None, b"", b" \n", b"RIFF\x00\x01\x02", b"caf\xe9\n", b"a,b\n1,2\n", b'"')):
            root = tmp_path / f"{i}-{j}"
            file = WRITERS[name](root)[i]
            (root / "audio").mkdir()
            if damage is None:
                file.unlink()
            else:
                file.write_bytes(damage)
            line = refused(name, root)
            assert str(file) in line
            assert DATASETS[name].source in line


@every_set
def test_no_row_below_the_header(name: str, tmp_path: Path) -> None:
    for file in WRITERS[name](tmp_path):
        if file.suffix != ".txt":
            whole = file.read_bytes()
            file.write_bytes(whole.splitlines()[0] + b"\n")
            assert f"{file}: has no row below its header" in refused(name, tmp_path)
            file.write_bytes(whole)


@every_set
def test_track_that_stands_twice(name: str, tmp_path: Path) -> None:
    for file in WRITERS[name](tmp_path):
        if file.suffix != ".txt":
            whole = file.read_bytes()
            file.write_bytes(whole + whole.splitlines()[-1] + b"\n")
            line = refused(name, tmp_path)
            assert f"{file}: row {len(whole.splitlines()) + 1}" in line
            assert "stands" in line
            file.write_bytes(whole)


@every_set
def test_damaged_bytes_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    files = WRITERS[name](tmp_path)
    chance = random.Random(0)
    refusals: list[str] = []
    for _ in range(40):
        file = chance.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(damaged))
            damaged[start : start + chance.choice((0, 1, 1, 8))] = chance.choice(
                (b"\xff", b"\x1b", b'"', b",", b"\t", b"\n", b"\r", b"nan", b"-1", b"../", b"1e999", b"\xe2\x80\xa8")
            )
        file.write_bytes(damaged)
        try:
            load(name, tmp_path)
        except DataError as error:
            refusals.append(str(error))
        file.write_bytes(whole)
    assert len(refusals) > 10
    assert all(line.isprintable() for line in refusals)


@every_set
def test_lists_of_ids_replace_the_splits(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "set")
    before = load(name, tmp_path / "set")
    ids = [track.track_id for track in before.tracks]
    lists = tmp_path / "lists"
    lists.mkdir()
    for split, members in zip(SPLITS, (ids[:2], ids[2:3], ids[3:4]), strict=True):
        (lists / f"{split}.txt").write_text("\n".join(members) + "\n\n")
    manifest = load(name, tmp_path / "set", lists)
    assert [track.split for track in manifest.tracks[:4]] == ["train", "train", "validation", "test"]
    assert all(track.split is None for track in manifest.tracks[4:])
    assert manifest.provenance == before.provenance.partition(";")[0] + "; splits: the lists in lists"
    assert any(note.startswith(f"{len(ids) - 4} of {len(ids)} tracks are in no list") for note in manifest.notes)
    shutil.rmtree(lists)
    with pytest.raises(DataError, match="no such folder"):
        load(name, tmp_path / "set", lists)


@every_set
def test_one_level_of_nesting_is_forgiven(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "flat")
    flat = load(name, tmp_path / "flat")
    if name.startswith("demo-"):
        return  # not an archive of somebody else's
    for track in flat.tracks[:2]:
        nested = tmp_path / "in" / "sounds" / track.audio_path.relative_to(tmp_path / "flat")
        nested.parent.mkdir(parents=True, exist_ok=True)
        nested.touch()
    shutil.copytree(tmp_path / "flat", tmp_path / "in" / "labels")
    manifest = load(name, tmp_path / "in")
    found = [track.audio_path for track in manifest.tracks if track.audio_path.is_file()]
    assert len(found) == 2
    assert all(tmp_path / "in" / "sounds" in path.parents for path in found)
    assert [(t.track_id, t.split, t.tags, t.valence_arousal, t.clip_group) for t in manifest.tracks] == [
        (t.track_id, t.split, t.tags, t.valence_arousal, t.clip_group) for t in flat.tracks
    ]


@every_set
def test_two_copies_of_the_annotations_are_refused(name: str, tmp_path: Path) -> None:
    if name.startswith("demo-"):
        return
    for copy in ("one", "two"):
        WRITERS[name](tmp_path / copy)
    assert "both one and two hold" in refused(name, tmp_path)


@every_set
def test_links_are_followed_wherever_they_lead(name: str, tmp_path: Path) -> None:
    """Users keep audio, or all of a data set, on another disk."""
    disk, root = tmp_path / "disk", tmp_path / "root"
    for file in WRITERS[name](disk):
        place = root / file.relative_to(disk)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file)
    manifest = load(name, root)
    assert [track.track_id for track in manifest.tracks] == [track.track_id for track in load(name, disk).tracks]
    audio = manifest.tracks[0].audio_path
    audio.parent.mkdir(parents=True)
    (disk / "one.mp3").touch()
    audio.symlink_to(disk / "one.mp3")
    assert load(name, root).tracks[0].has_audio
    audio.unlink()
    audio.parent.rmdir()
    (disk / "sounds").mkdir()
    (disk / "sounds" / audio.name).touch()
    audio.parent.symlink_to(disk / "sounds")
    (track,) = (track for track in load(name, root).tracks if track.has_audio)
    assert track.audio_path == audio


@every_set
def test_a_root_whose_folders_are_all_links(name: str, tmp_path: Path) -> None:
    """Annotations and audio on two disks, each under a name of its own, and one of them twice."""
    if name.startswith("demo-"):
        return
    WRITERS[name](tmp_path / "disk")
    audio = load(name, tmp_path / "disk").tracks[0].audio_path.relative_to(tmp_path / "disk")
    (tmp_path / "other" / audio).parent.mkdir(parents=True)
    (tmp_path / "other" / audio).touch()
    root = tmp_path / "root"
    root.mkdir()
    for link, target in (("labels", "disk"), ("again", "disk"), ("sounds", "other"), ("loop", "root")):
        (root / link).symlink_to(tmp_path / target)
    assert load(name, root).tracks[0].has_audio


@every_set
def test_built_table_reads_back_the_same(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "set")
    manifest = load(name, tmp_path / "set")
    file = tmp_path / "any-name.csv"
    file.write_bytes(table.write(manifest, tmp_path / "set"))
    assert load(str(file), tmp_path / "set") == manifest


@every_set
def test_real_sets_read_back_the_same(name: str, reference: Path, tmp_path: Path) -> None:
    root = reference / "data" / name
    if name == "pmemo" or not root.is_dir():
        return
    manifest = load(name, root)
    file = tmp_path / "manifest.csv"
    file.write_bytes(table.write(manifest, root))
    assert load(str(file), root) == replace(manifest, evidence=())


@every_set
def test_counts_are_those_of_the_papers_table(name: str, reference: Path) -> None:
    data, expected = reference / "data", DATASETS[name].paper_counts
    if expected is None:
        return
    lists = data / "splits" / name
    if name == "pmemo":  # its labels are not among the reference data
        found = Counter(read_splits(lists).values())
    else:
        found = Counter(track.split for track in load(name, data / name, lists if lists.is_dir() else None).tracks)
    assert (found["train"], found["validation"], found["test"]) == expected


def test_labels_are_those_of_the_official_files(reference: Path) -> None:
    """Sampled ids, against the files read in another way."""
    data = reference / "data"
    chance = random.Random(0)
    tagged = {}
    for split in SPLITS:
        text = (data / "mtg-jamendo/data/splits/split-0" / f"autotagging_moodtheme-{split}.tsv").read_bytes().decode()
        tagged |= {
            line.split("\t")[0]: (split, line.strip().split("\t")[5:]) for line in text.split("\r\n")[1:] if line
        }
    jamendo = load("mtg-jamendo", data / "mtg-jamendo")
    order = (data / "mtg-jamendo/data/tags/moodtheme_split.txt").read_text().split()
    assert [f"mood/theme---{tag}" for tag in jamendo.tag_names] == order == sorted(order)
    assert len(tagged) == len(jamendo.tracks)
    for track in chance.sample(jamendo.tracks, 500):
        assert (track.split, {f"mood/theme---{tag}" for tag in track.tags or ()}) == (
            tagged[track.track_id][0],
            set(tagged[track.track_id][1]),
        )
    columns = {"emomusic": (3, 1), "deam": (1, 3)}  # of valence and arousal
    files = {
        "emomusic": "annotations/static_annotations.csv",
        "deam": "annotations/annotations averaged per song/song_level/static_annotations_averaged_songs_1_2000.csv",
    }
    for name, (valence, arousal) in columns.items():
        lines = (data / name / files[name]).read_text().splitlines()[1:]
        official = {line.split(",")[0]: line.split(",") for line in lines}
        tracks = {track.track_id: track for track in load(name, data / name).tracks}
        for track_id in chance.sample(sorted(official), 200):
            cells = official[track_id]
            assert tracks[track_id].valence_arousal == ValenceArousal(float(cells[valence]), float(cells[arousal]))
