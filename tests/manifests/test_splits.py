"""Splits by hash and by lists."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from m2e.common.errors import DataError
from m2e.manifests import Manifest, Track
from m2e.manifests.splits import apply_splits, artist_key, hash_split, hash_splits, read_splits

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


def test_tracks_are_split_as_their_clip_or_artist() -> None:
    tracks = [Track(str(i), Path(), clip_group=f"toy/{i}", artist=("", "Ann")[i % 2]) for i in range(200)]
    split = {track.track_id: track.split for track in hash_splits(tracks)}
    assert all(split[str(i)] == hash_split(f"toy/{i}") for i in range(0, 200, 2))
    assert {split[str(i)] for i in range(1, 200, 2)} == {hash_split("artist/ann")}


def test_neither_clips_nor_artists_cross_whatever_the_order() -> None:
    rng = random.Random(0)
    tracks = [
        Track(
            str(i),
            Path(),
            clip_group=f"toy/{rng.randrange(1500)}",
            artist=rng.choice(("", "Various Artists", f"Artist  {rng.randrange(600)}", f"ARTIST {rng.randrange(600)}")),
        )
        for i in range(2_000)
    ]
    split = {track: track.split for track in hash_splits(tracks)}
    for key in (lambda track: track.clip_group, lambda track: artist_key(track.artist)):
        splits = defaultdict(set)
        for track in split:
            splits[key(track)].add(track.split)
        splits.pop("", None)
        assert all(len(found) == 1 for found in splits.values())
        assert len(splits) > 400
    assert set(split.values()) == {"train", "validation", "test"}
    shuffled = rng.sample(tracks, len(tracks))
    assert set(hash_splits(shuffled)) == set(split)


def test_a_chain_of_links_stays_together() -> None:
    links = [("a", "Ann"), ("a", "Bob"), ("b", "Bob"), ("b", ""), ("c", "Cid")]
    tracks = hash_splits([Track(str(i), Path(), clip_group=c, artist=a) for i, (c, a) in enumerate(links)])
    assert [track.split for track in tracks[:4]] == [hash_split("artist/ann")] * 4
    assert tracks[4].split == hash_split("artist/cid")


def test_names_of_nobody_link_nothing() -> None:
    assert [artist_key(name) for name in ("", " Various  ARTISTS", "unknown", "Beyoncé ")] == ["", "", "", "beyoncé"]


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
