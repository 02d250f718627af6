"""Splits by hash and by lists."""

from collections import Counter
from pathlib import Path

import pytest

from m2e.cache.errors import DataError
from m2e.manifests import Manifest, Track
from m2e.manifests.splits import apply_splits, hash_split, read_splits

TOY = Manifest("toy", "", tuple(Track(str(i), Path(f"{i}.wav"), split="train") for i in range(4)), provenance="labels")


def write_lists(folder: Path, train: str = "0\n", validation: str = "1\n", test: str = "2\n") -> Path:
    for name, text in (("train", train), ("validation", validation), ("test", test)):
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def test_hash_is_the_same_for_ever() -> None:
    groups = ("mediaeval/2", "mediaeval/3", "pmemo/3", "pmemo/4", "pmemo/5", "own/é")
    assert [hash_split(group) for group in groups] == ["test", "train", "validation", "train", "test", "train"]


def test_hash_shares() -> None:
    found = Counter(hash_split(f"toy/{i}") for i in range(20_000))
    assert found["train"] / 20_000 == pytest.approx(0.70, abs=0.012)
    assert found["validation"] / 20_000 == pytest.approx(0.15, abs=0.012)
    assert {hash_split(f"toy/{i}", train=0.8, validation=0.2) for i in range(2_000)} == {"train", "validation"}


def test_lists_with_other_line_ends_and_blank_lines(tmp_path: Path) -> None:
    write_lists(tmp_path, train="\ufeff0\r\n\r\n 3 \r\n")
    assert read_splits(tmp_path) == {"0": "train", "3": "train", "1": "validation", "2": "test"}


@pytest.mark.parametrize(
    ("test", "line"),
    [
        ("2\n2\n", "test.txt: line 2: '2' stands already in test.txt"),
        ("2\n1\n", "test.txt: line 2: '1' stands already in validation.txt"),
        ("", "test.txt: is empty"),
        ("2\0\n", "test.txt: holds a NUL byte at 1"),
    ],
)
def test_bad_lists(test: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line):
        read_splits(write_lists(tmp_path, test=test))


def test_missing_list(tmp_path: Path) -> None:
    (write_lists(tmp_path) / "validation.txt").unlink()
    with pytest.raises(DataError, match=r"validation.txt: no such file"):
        read_splits(tmp_path)


def test_tracks_and_ids_left_over_are_counted(tmp_path: Path) -> None:
    manifest = apply_splits(TOY, write_lists(tmp_path, test="2\n8\n9\n"))
    assert [track.split for track in manifest.tracks] == ["train", "validation", "test", None]
    assert manifest.notes == (
        f"1 of 4 tracks are in no list of {tmp_path.name} and so in no split",
        f"2 of the 5 ids in {tmp_path.name} are not in toy",
    )


def test_lists_of_another_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its 3 ids, such as 'a', is in toy, whose ids are such as '0'"):
        apply_splits(TOY, write_lists(tmp_path, "a\n", "b\n", "c\n"))
