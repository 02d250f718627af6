"""Which test songs training would see."""

from pathlib import Path

import pytest
from support.official import write, write_deam, write_emomusic

from m2e.manifests import Choices, Manifest, Track, load
from m2e.manifests.check.leaks import Leak, find_leaks
from m2e.manifests.splits import align_splits


def track(track_id: str, split: str | None, clip: str = "", artist: str = "") -> Track:
    return Track(track_id, Path("x.wav"), split, clip_group=clip or f"x/{track_id}", artist=artist)  # type: ignore[arg-type]


def table(*manifests: Manifest) -> dict[tuple[str, str, str], tuple[int, int, int | None]]:
    return {(k.tested, k.seen, k.split): (k.same, k.duplicates, k.artists) for k in find_leaks(manifests)}


def test_clips_duplicates_and_artists_are_told_apart() -> None:
    a = Manifest(
        "a",
        "",
        (
            track("1", "test", "m/1", "Ann"),
            track("2", "test", "m/2", "Various Artists"),
            track("3", "test", "m/3", "BOB "),
            track("4", "train", "m/4", "bob"),
            track("5", "validation", "m/3", "Various Artists"),
        ),
    )
    b = Manifest("b", "", (track("1", "train", "m/1"), track("9", "train", "m/2"), track("3", None, "m/3")))
    found = table(a, b)
    assert found["a", "b", "train"] == (1, 1, None)
    assert found["a", "b", "test"] == (0, 0, None)
    assert found["a", "a", "train"] == (0, 0, 1)
    assert found["a", "a", "validation"] == (0, 1, None)
    assert found["b", "a", "train"] == (0, 0, None)
    assert ("a", "a", "test") not in found


def test_equal_ids_of_unlike_clips_are_no_leak() -> None:
    a = Manifest("a", "", (track("1", "test", "a/1"),))
    b = Manifest("b", "", (track("1", "train", "b/1"),))
    assert find_leaks([a, b])[2] == Leak("a", "b", "train", 0, 0, None)


def test_the_papers_splits_leak_as_known(reference: Path) -> None:
    data = reference / "data"
    deam, emomusic = (load(name, data / name, data / "splits" / name) for name in ("deam", "emomusic"))
    found = table(deam, emomusic)
    splits = ("train", "validation", "test")
    assert [found["emomusic", "deam", split][0] for split in splits] == [82, 16, 27]
    assert [found["deam", "emomusic", split][0] for split in splits] == [66, 20, 27]
    assert found["emomusic", "emomusic", "train"][2] == 59


def test_alignment_stops_every_leak_of_the_default_splits(reference: Path) -> None:
    data = reference / "data"
    emomusic = load("emomusic", data / "emomusic")
    alone = load("deam", data / "deam", choices=Choices(align="none"))
    assert table(alone, emomusic)["emomusic", "deam", "train"][0] > 0
    deam = load("deam", data / "deam")
    found = table(deam, emomusic)
    for split in ("train", "validation"):
        assert found["emomusic", "deam", split][:2] == found["deam", "emomusic", split][:2] == (0, 0)
    assert "744 tracks shared with emomusic as there" in deam.provenance


@pytest.fixture
def both(tmp_path: Path) -> dict[str, Path]:
    """Folders of DEAM and EmoMusic side by side, some songs linked by artist, one pair of duplicates."""
    ids = (*range(2, 200), 536)
    write_deam(tmp_path / "deam", ids)
    write_emomusic(tmp_path / "emomusic", ids)
    return {name: tmp_path / name for name in ("deam", "emomusic")}


def crossing(deam: Manifest, emomusic: Manifest) -> int:
    """Clips of a test set that are in a train or validation split, in either direction."""
    return sum(found[0] + found[1] for (_, _, split), found in table(deam, emomusic).items() if split != "test")


def test_default_splits_do_not_leak_wherever_emomusic_is(
    both: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    emomusic = load("emomusic", both["emomusic"])
    beside = load("deam", both["deam"])
    assert crossing(beside, emomusic) == 0
    assert "199 tracks shared with emomusic as there" in beside.provenance
    elsewhere = both["deam"].parent / "elsewhere"
    elsewhere.mkdir()
    both["deam"].rename(elsewhere / "deam")
    alone = load("deam", elsewhere / "deam")
    assert crossing(alone, emomusic) > 0
    assert "emomusic" not in alone.provenance
    assert alone.notes[-1].startswith("the splits do not follow emomusic (not there)")
    monkeypatch.setenv("M2E_DATA", str(both["emomusic"].parent))
    in_default_folder = load("deam", elsewhere / "deam")
    splits = [[(track.track_id, track.split) for track in m.tracks] for m in (beside, in_default_folder)]
    assert splits[0] == splits[1]


def test_the_same_folder_gives_the_same_splits_however_it_is_named(
    both: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load("deam", both["deam"]).provenance
    monkeypatch.chdir(both["deam"] / "annotations")
    assert load("deam", Path("..")).provenance == expected
    monkeypatch.chdir(both["deam"])
    assert load("deam", Path()).provenance == expected
    monkeypatch.chdir(both["deam"].parent)
    assert load("deam", Path("deam")).provenance == expected


def test_aligned_twice_is_said_once(both: dict[str, Path]) -> None:
    once = load("deam", both["deam"])
    assert align_splits(once, load("emomusic", both["emomusic"])).provenance == once.provenance


def test_lists_and_none_leave_deam_as_it_is(both: dict[str, Path]) -> None:
    lists = both["deam"].parent / "lists"
    for split, ids in (("train", "2\n4\n"), ("validation", "5\n"), ("test", "6\n")):
        write(lists / f"{split}.txt", ids)
    listed = load("deam", both["deam"], lists)
    assert [track.split for track in listed.tracks[:5]] == ["train", None, "train", "validation", "test"]
    assert listed.provenance.endswith("splits: the lists in lists")
    alone = load("deam", both["deam"], choices=Choices(align="none"))
    assert alone.provenance.endswith("splits: 70/15/15 by a hash of clip and artist")
    assert not any("emomusic" in note for note in alone.notes)


def test_damaged_emomusic_is_named(both: dict[str, Path]) -> None:
    write(both["emomusic"] / "annotations" / "songs_info.csv", "song_id\n2\n")
    note = load("deam", both["deam"]).notes[-1]
    assert "songs_info.csv: lacks the columns" in note
    assert note.isprintable()


def test_copies_in_several_splits_follow_the_strictest() -> None:
    other = Manifest(
        "e", "", tuple(track(str(i), s, "m/1") for i, s in enumerate(("train", "test", "validation", None)))
    )
    mine = Manifest("d", "", (track("7", "train", "m/1"), track("8", "train", "m/2")), provenance="l; splits: hash")
    aligned = align_splits(mine, other)
    assert [t.split for t in aligned.tracks] == ["test", "train"]
    assert aligned.provenance == "l; splits: hash; 1 tracks shared with e as there"


def test_nothing_shared_is_an_error() -> None:
    from m2e.common.errors import DataError

    with pytest.raises(DataError, match="d and e share no clip"):
        align_splits(Manifest("d", "", (track("1", "train"),)), Manifest("e", "", (track("1", "train", "e/1"),)))
