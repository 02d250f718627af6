"""Which songs a folder holds."""

import os
from pathlib import Path

import av
import pytest
from support.encoded import FORMS

from m2e.cache import DataError
from m2e.extract.audio.formats import SUFFIXES
from m2e.predict.songs import find_songs


def test_links_are_followed_after_all_else_and_only_once(tmp_path: Path) -> None:
    music, disk = tmp_path / "music", tmp_path / "disk"
    for folder in (music / "z" / "deep", disk / "more", music / ".hidden"):
        folder.mkdir(parents=True)
    for path in (music / "z" / "deep" / "1.mp3", disk / "more" / "2.FLAC", disk / "3.txt", music / ".hidden" / "4.mp3"):
        path.touch()
    (music / "a").symlink_to(music / "z")  # the same folder by two names: its own
    (music / "b").symlink_to(disk)
    (disk / "loop").symlink_to(music)
    (music / "5.mp3").symlink_to(disk / "more" / "2.FLAC")
    (music / "6.mp3").symlink_to("nothing")
    found = [song.relative_to(music) for song in find_songs([str(music)], [])]
    # The link to nothing is a song that is missing: reading it says so.
    assert found == [Path("5.mp3"), Path("6.mp3"), Path("b/more/2.FLAC"), Path("z/deep/1.mp3")]


def test_all_that_can_be_decoded_is_found_whatever_its_case(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix}").touch()
        (tmp_path / f"b{suffix.upper()}").touch()
    for name in ("a.txt", "a.m3u8", "a.jpg", ".hidden.mp3", "mp3"):
        (tmp_path / name).touch()
    assert len(find_songs([str(tmp_path)], [])) == 2 * len(SUFFIXES)
    assert {".m4b", ".wv", ".mp2", ".caf", ".aifc", ".w64", ".mka", ".webm", ".oga", ".opus", ".m4a"} <= SUFFIXES


def test_every_form_that_is_written_has_a_suffix_that_is_found() -> None:
    for form in FORMS.values():
        usual = {f".{suffix}" for suffix in av.format.ContainerFormat(form.container or "", "w").extensions}
        assert usual & SUFFIXES, form


@pytest.mark.skipif(os.path.exists(__file__.upper()), reason="this file system finds other cases itself")  # noqa: PTH110
def test_a_song_that_is_spelt_otherwise_is_found(tmp_path: Path) -> None:
    there = tmp_path / "Bjo\u0308rk" / "Jo\u0301ga.MP3"
    there.parent.mkdir()
    there.touch()
    asked = [str(tmp_path / "Björk" / "Jóga.mp3"), str(tmp_path / "björk")]
    assert find_songs(asked, []) == [there]
    assert find_songs(["-"], [f"{asked[0]}\r\n", "\n", f"{asked[0]}\n"]) == [there]
    assert find_songs([str(tmp_path / "nothing.mp3")], []) == [tmp_path / "nothing.mp3"]


def test_a_folder_that_cannot_be_looked_into_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "b.mp3").touch()
    (tmp_path / "locked").chmod(0)
    try:
        assert tmp_path / "a.mp3" in find_songs([str(tmp_path)], [])
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_folder_without_songs_says_so(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(DataError, match="holds no audio files"):
        find_songs([str(tmp_path)], [])
