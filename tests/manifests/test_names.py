"""Audio that is there under a name that is spelt otherwise is found; what is not there is named."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.official import write, write_deam

from m2e.cache import DataError
from m2e.manifests import load
from m2e.manifests.cli import main

FINDS_CASES = os.path.exists(__file__.upper())  # noqa: PTH110


def songs(folder: Path, *paths: str) -> str:
    """A table of these paths."""
    rows = "".join(f"{number},{path},x\n" for number, path in enumerate(paths))
    return str(write(folder / "songs.csv", f"track_id,path,tags\n{rows}"))


@pytest.mark.skipif(FINDS_CASES, reason="this file system finds other cases itself")
def test_a_table_in_one_form_and_files_in_another(tmp_path: Path) -> None:
    name = "Björk/Jóga"
    there = tmp_path / f"{unicodedata.normalize('NFD', name)}.WAV"
    write(there, "")
    (tmp_path / "disk").symlink_to(there.parent)
    for asked in (f"{name}.WAV", f"{name}.wav", f"{name.upper()}.wav", "disk/jóga.wav", "Disk/Jóga.WAV"):
        for form in ("NFC", "NFD"):
            (track,) = load(songs(tmp_path, unicodedata.normalize(form, asked))).tracks
            assert track.has_audio
            assert track.audio_path.samefile(there)


@pytest.mark.skipif(FINDS_CASES, reason="this file system finds other cases itself")
def test_official_audio_with_another_suffix_case(tmp_path: Path) -> None:
    write_deam(tmp_path, ids=(2,), full=(2001,))
    (tmp_path / "MEMD_audio").mkdir()
    (tmp_path / "MEMD_audio" / "2.MP3").touch()
    assert [track.has_audio for track in load("deam", tmp_path).tracks] == [True, False]


def test_no_spelling_leads_out_of_the_root(tmp_path: Path) -> None:
    write(tmp_path / "A.wav", "")
    write(tmp_path / "root" / "b.wav", "")
    for path in ("../a.wav", "../A.wav", "x/../../A.WAV", str(tmp_path / "a.wav")):
        with pytest.raises(DataError, match="is not a path inside"):
            load(songs(tmp_path / "root", path))


def test_what_is_missing_is_named_with_what_is_near(tmp_path: Path) -> None:
    write(tmp_path / "audio" / "01 Jóga.flac", "")
    write(tmp_path / "audio" / "02 Unravel.flac", "")
    table = songs(tmp_path, "audio/01 Joga.flac", "audio/02 Unravel.flac", "adio/02 Unravel.flac", "zzz.mp3")
    facts = json.loads(CliRunner().invoke(main, ["check", table, "--json"], catch_exceptions=False).stdout)
    assert facts["missing"] == {
        "0": str(tmp_path / "audio/01 Joga.flac"),
        "2": str(tmp_path / "adio/02 Unravel.flac"),
        "3": str(tmp_path / "zzz.mp3"),
    }
    text = CliRunner().invoke(main, ["check", table], catch_exceptions=False).output
    for line in (
        f"no file             0: {tmp_path / 'audio/01 Joga.flac'}; the nearest is {tmp_path / 'audio/01 Jóga.flac'}",
        f"no file             2: {tmp_path / 'adio/02 Unravel.flac'}; the nearest is {tmp_path / 'audio'}",
        f"no file             3: {tmp_path / 'zzz.mp3'}\n",
    ):
        assert line in text


def test_many_that_are_missing_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "there.wav", "")
    table = songs(tmp_path, "there.wav", *(f"{number}.mp3" for number in range(1000)))
    text = CliRunner().invoke(main, ["check", table], catch_exceptions=False).output
    assert text.count("no file ") == 11
    assert "and of 990 more tracks; m2e-manifest check --json names them all" in text
