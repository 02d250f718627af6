"""Which songs a folder holds."""

from pathlib import Path

import pytest

from m2e.cache import DataError
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
    assert found == [Path("5.mp3"), Path("b/more/2.FLAC"), Path("z/deep/1.mp3")]


def test_a_folder_without_songs_says_so(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(DataError, match="holds no audio files"):
        find_songs([str(tmp_path)], [])
