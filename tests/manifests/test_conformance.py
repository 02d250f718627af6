"""Every registered data set keeps the same promises."""

import random
import shutil
from pathlib import Path

import pytest
from support.official import WRITERS

from m2e.cache.errors import DataError
from m2e.cache.schema import check_id
from m2e.manifests import DATASETS, SPLITS, load

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
