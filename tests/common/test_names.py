"""Files that are there under a name that is spelt a little otherwise."""

import os
import unicodedata
from pathlib import Path

import pytest

from m2e.common.names import Names, hint


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder as a Mac and a camera write it: decomposed accents, suffixes in capitals."""
    folder = tmp_path / "music"
    for name in ("Bjo\u0308rk/Jo\u0301ga.MP3", "Beck/Loser.mp3", "Beck/loser.MP3", "plain.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.skipif(os.path.exists(__file__.upper()), reason="this file system finds other cases itself")  # noqa: PTH110
def test_form_and_case_of_every_part_of_a_path_are_tried(music: Path) -> None:
    names = Names()
    there = music / "Bjo\u0308rk" / "Jo\u0301ga.MP3"
    for asked in ("Björk/Jóga.mp3", "björk/jóga.MP3", "BJÖRK/JÓGA.MP3", "Bjo\u0308rk/Jo\u0301ga.MP3"):
        for form in ("NFC", "NFD"):
            assert names.find(music / unicodedata.normalize(form, asked)) == there
    assert names.find(music / "Björk") == there.parent
    assert names.find(music / "Björk" / "Bachelorette.mp3") is None
    assert names.find(music / "plain.wav" / "x") is None


@pytest.mark.skipif(os.path.exists(__file__.upper()), reason="this file system finds other cases itself")  # noqa: PTH110
def test_two_that_differ_in_case_are_never_taken_for_each_other(music: Path) -> None:
    names = Names()
    assert names.find(music / "Beck" / "Loser.mp3") == music / "Beck" / "Loser.mp3"
    assert names.find(music / "Beck" / "LOSER.mp3") is None


def test_links_are_followed_to_what_is_spelt_otherwise(music: Path) -> None:
    (music / "album").symlink_to("BJÖRK")
    (music / "song.wav").symlink_to(music / "Björk" / "Jóga.mp3")
    (music / "loop").symlink_to("Loop")
    (music / "Loop").symlink_to("loop")
    names = Names()
    assert names.find(music / "song.wav") == music / "Bjo\u0308rk" / "Jo\u0301ga.MP3"
    assert names.find(music / "Song.WAV") == music / "Bjo\u0308rk" / "Jo\u0301ga.MP3"
    assert names.find(music / "loop") is None
    assert names.find(music / "album" / "jóga.mp3") is not None


def test_the_nearest_that_exists_is_named(music: Path) -> None:
    names = Names()
    assert names.nearest(music / "Beck" / "Losr.mp3") in (music / "Beck" / "Loser.mp3", music / "Beck" / "loser.MP3")
    assert names.nearest(music / "Bjork" / "Jóga.mp3") == music / "Bjo\u0308rk"
    assert names.nearest(music / "Björk" / "Yoga.mp3") == music / "Bjo\u0308rk" / "Jo\u0301ga.MP3"
    assert names.nearest(music / "zzz") is None
    assert hint(music / "plane.wav") == f"; the nearest is {music / 'plain.wav'}"
    assert hint(music / "zzz") == ""


def test_a_folder_that_cannot_be_read_holds_nothing(music: Path) -> None:
    locked = music / "locked"
    locked.mkdir(mode=0)
    assert Names().find(locked / "a.mp3") is None
    assert Names().nearest(locked / "a.mp3") is None
    locked.chmod(0o700)


def test_a_million_names_are_looked_up_in_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(300):
        (tmp_path / f"{i}.MP3").touch()
    reads: list[object] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: reads.append(path) or listdir(path))
    names = Names()
    assert all(names.find(tmp_path / f"{i}.mp3") for i in range(300))
    assert len(reads) == 1
