"""m2e-manifest verify-audio: a data set's audio is decoded, and what is wrong or odd of it is listed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.encoded import cut, encode, noise, overwrite
from support.official import write, write_jamendo

from m2e.extract.audio.reader import survey
from m2e.extract.check import audio as verify
from m2e.manifests import load
from m2e.manifests.check.digests import STATE_FILE
from m2e.manifests.cli import main

SECONDS = 4.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with songs.csv and its audio, good and otherwise; no command is called on it."""
    folder = tmp_path_factory.mktemp("made")
    wave = noise(SECONDS, 44_100, 2)
    encode(folder / "good.mp3", wave, 44_100, "libmp3lame", "mp3")
    encode(folder / "good.flac", wave, 44_100, "flac", "flac")
    encode(folder / "rate.wav", noise(2, 11_127), 11_127, "pcm_s16le", "wav")
    encode(folder / "silent.wav", 0 * wave, 44_100, "pcm_s16le", "wav")
    encode(folder / "cancels.flac", np.stack([wave[0], -wave[0]]), 44_100, "flac", "flac")
    cut(folder / "good.mp3").rename(folder / "cut.mp3")
    overwrite(folder / "good.flac", 5000).rename(folder / "damaged.flac")
    write(folder / "page.mp3", "<!DOCTYPE html><html><body>Not found</body></html>")
    names = sorted(path.name for path in folder.iterdir())
    rows = "".join(f"{Path(name).stem}-{Path(name).suffix[1:]},{name},5,5\n" for name in [*names, "nowhere.mp3"])
    write(folder / "songs.csv", f"track_id,path,valence,arousal\n{rows}")
    return folder


@pytest.fixture
def songs(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder `made`, of links to its audio."""
    for path in made.iterdir():
        if path.suffix == ".csv":
            (tmp_path / path.name).write_bytes(path.read_bytes())
        else:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def run(folder: Path, *options: str | Path) -> Result:
    arguments = ["verify-audio", str(folder / "songs.csv"), "--jobs", "2", *map(str, options)]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def facts(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_everything_is_listed_with_its_kind(songs: Path) -> None:
    result = run(songs)
    assert result.exit_code == 1
    lines = {tuple(line.split(maxsplit=2)[:2]): line for line in result.stdout.splitlines()}
    assert set(lines) == {
        ("cut", str(songs / "cut.mp3")),
        ("damaged", str(songs / "damaged.flac")),
        ("unreadable", str(songs / "page.mp3")),
        ("silent", str(songs / "silent.wav")),
        ("cancels", str(songs / "cancels.flac")),
        ("rate", str(songs / "rate.wav")),
    }
    assert lines["cut", str(songs / "cut.mp3")].endswith(" of 4.0 s")
    assert "could not be decoded" in lines["damaged", str(songs / "damaged.flac")]
    assert "is no audio file (it looks like HTML)" in lines["unreadable", str(songs / "page.mp3")]
    assert "no file nowhere-mp3: " in result.stderr
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: 3 audio files of songs cannot be extracted as they are (2 good, 1 ")
    assert "--accept-cut" in error


def test_for_scripts_it_is_one_object(songs: Path) -> None:
    said = facts(run(songs, "--json"))
    ones = ("cut", "damaged", "unreadable", "silent", "cancels", "rate", "missing")
    assert said["counts"] == {"good": 2, **dict.fromkeys(ones, 1)}
    assert said["missing"] == {"nowhere-mp3": str(songs / "nowhere.mp3")}
    assert {found["track_id"]: found["kind"] for found in said["findings"]}["cut-mp3"] == "cut"
    assert set(said["findings"][0]) == {"track_id", "path", "kind", "text"}
    assert 4 * SECONDS / 3600 < said["hours"] < 9 * SECONDS / 3600


def test_what_is_good_is_decoded_once(songs: Path, made: Path) -> None:
    run(songs)
    assert len([line for line in (songs / STATE_FILE).read_text().splitlines() if line.startswith("heard ")]) == 2
    tally = verify.Tally()
    (songs / "good.flac").unlink()
    (songs / "good.flac").write_bytes((made / "good.flac").read_bytes())  # the same once more, at another time
    os.utime(songs / "good.flac", (1, 1))
    findings = list(verify.hear_all(load(str(songs / "songs.csv")), {}, songs / STATE_FILE, 1, tally=tally))
    assert (tally.good, tally.known) == (2, 1)
    assert len(findings) == 6


def test_audio_without_faults_is_exit_0_and_a_line(songs: Path) -> None:
    rows = (songs / "songs.csv").read_text().splitlines()
    kept = [line for line in rows if not line.startswith(("cut", "damaged", "page", "nowhere"))]
    (songs / "songs.csv").write_text("\n".join(kept) + "\n")
    result = run(songs, "--state", songs / "elsewhere.txt")
    assert result.exit_code == 0
    assert "songs: 2 good, " in result.stderr
    assert "of 0.0 hours that were decoded." in result.stderr
    assert run(songs, "--state", songs / "elsewhere.txt").stderr.endswith("2 of the good ones were known.\n")
    assert not (songs / STATE_FILE).exists()


def test_missing_files_are_a_failure_unless_allowed(songs: Path) -> None:
    rows = (songs / "songs.csv").read_text().splitlines()
    (songs / "songs.csv").write_text("\n".join([rows[0], *(row for row in rows if row.startswith(("good", "no")))]))
    result = run(songs)
    assert result.exit_code == 1
    assert "1 audio files of songs are missing (2 good, 1 missing); --allow-missing accepts that" in result.stderr
    assert run(songs, "--allow-missing").exit_code == 0


def test_what_crashes_its_decoder_costs_no_other_file(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey_all = verify._survey_all

    def crash(items: Iterator[Any]) -> Any:
        batch = list(items)
        if any(item.path.name == "silent.wav" for item in batch):
            os.kill(os.getpid(), signal.SIGSEGV)
        return survey_all(iter(batch))

    monkeypatch.setattr(verify, "_survey_all", crash)
    said = facts(run(songs, "--json"))
    assert said["counts"]["crashed"] == 1
    assert said["counts"]["good"] == 2
    (found,) = (found for found in said["findings"] if found["kind"] == "crashed")
    assert found["track_id"] == "silent-wav"
    assert "crashed, most often in a decoder that the file misleads (SIGSEGV)" in found["text"]


def test_published_digests_are_compared_while_decoding(made: Path, tmp_path: Path) -> None:
    write_jamendo(tmp_path, range(948, 952))
    lines = []
    for number in range(948, 952):
        path = tmp_path / "audio" / f"{number % 100}" / f"{number}.mp3"
        path.parent.mkdir(parents=True)
        path.write_bytes((made / "good.mp3").read_bytes() + (b"changed" if number == 949 else b""))
        digest = hashlib.sha256((made / "good.mp3").read_bytes()).hexdigest()
        lines.append(f"{digest} {number % 100}/{number}.mp3\n")
    lists = tmp_path / "data" / "download"
    arguments = ["verify-audio", "mtg-jamendo", "--root", str(tmp_path), "--jobs", "1", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert facts(result)["counts"] == {"good": 4, "missing": 0}
    assert "compared with no digests" in result.stderr
    write(lists / "autotagging_moodtheme_audio_sha256_tracks.txt", "".join(lines))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert facts(result)["counts"] == {"good": 3, "bad": 1, "missing": 0}
    assert facts(result)["findings"][0]["text"] == "its digest is not the published one"


def test_decoding_is_two_hundred_times_real_time(tmp_path: Path) -> None:
    encode(tmp_path / "long.mp3", np.tile(noise(10, 44_100, 2), 12), 44_100, "libmp3lame", "mp3")
    survey(tmp_path / "long.mp3", digest=True)  # loads what it needs
    before = time.process_time()
    heard, _ = survey(tmp_path / "long.mp3", digest=True)
    assert heard.seconds == pytest.approx(120, abs=0.1)
    assert time.process_time() - before < 120 / 200


def test_the_command_is_there_without_what_it_decodes_with() -> None:
    code = "from m2e.manifests.cli import main; main(['verify-audio', '--help'], standalone_mode=False); "
    code += "import sys; print({'av', 'torch', 'scipy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "set()"
