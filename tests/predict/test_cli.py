"""m2e-predict, as a user calls it."""

import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from support.encoded import cut, encode, noise
from support.lent import invoke
from support.workspace import STUDENT

from m2e.cache import DataError
from m2e.predict.cli import main
from m2e.predict.output import Csv, Page, Summary
from m2e.predict.record import Record
from m2e.predict.result import SongPrediction


def call(*arguments: str | Path, model: Path, stdin: str | None = None) -> Result:
    options = ["--model", str(model), "--jobs", "1", "--device", "cpu"]
    return invoke(main, [*map(str, arguments), *options], input=stdin, catch_exceptions=False)


@pytest.fixture
def model(workspace: Path) -> Path:
    return workspace / STUDENT


@pytest.fixture
def music(workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace / "music", tmp_path / "music"))


def test_one_song_is_shown_in_full(workspace: Path, model: Path) -> None:
    result = call(workspace / "song.mp3", model=model)
    assert result.exit_code == 0
    for word in ("valence", "arousal", "tags", "key", "chords", "0:00-0:30", "0:30-1:00"):
        assert word in result.stdout
    assert "SYNTHETIC" in result.stderr
    assert "untrained" in result.stderr


def test_a_folder_is_a_line_a_song_and_a_broken_file_is_skipped(music: Path, model: Path) -> None:
    result = call(music, model=model)
    assert result.exit_code == 0
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["valence", "arousal", "key", "tags", "song"]
    assert {row.split()[-1] for row in rows} == {str(music / "more/long.flac"), str(music / "short.ogg")}
    assert "broken.mp3" in result.stderr


@pytest.mark.parametrize("name", ["broken.mp3", "missing.mp3"])
def test_nothing_that_succeeds_is_exit_code_1(music: Path, model: Path, name: str) -> None:
    result = call(music / name, model=model)
    assert result.exit_code == 1
    assert name in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def spoken(workspace: Path) -> list[str]:
    """Lines of JSON of a short song, one of three segments and a broken one, whose paths came by standard input."""
    paths = [workspace / "music" / name for name in ("short.ogg", "more/long.flac", "broken.mp3", "short.ogg")]
    result = call("-", "--json", model=workspace / STUDENT, stdin="".join(f"{path}\n\n" for path in paths))
    assert result.exit_code == 0
    return sorted(result.stdout.splitlines(), key=len)


def test_json_lines_of_paths_from_standard_input(workspace: Path, model: Path, spoken: list[str]) -> None:
    short, long = map(json.loads, spoken)
    assert len(long["timeline"]) == 3
    assert set(long["tags"]) == {"calm", "dark", "energetic", "happy"} == set(long["thresholds"])
    assert short["song"] == str(workspace / "music/short.ogg")
    assert short["chords"][0]["start"] == 0
    assert short["audio_bytes"] == (workspace / "music/short.ogg").stat().st_size
    assert call("-", model=model, stdin="").exit_code == 1


def test_json_is_read_back(spoken: list[str]) -> None:
    for line in spoken:
        prediction = SongPrediction.from_json(json.loads(line))
        assert prediction.as_json() == json.loads(line)


def test_csv_has_the_whole_song_then_its_segments(spoken: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (SongPrediction.from_json(json.loads(line)) for line in spoken)
    output = Csv()
    output.add(long)
    output.add(replace(short, song="with, comma\nand \udce9.mp3"))
    output.finish()
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["segment"] for row in rows] == ["all", "1", "2", "3", "all", "1"]
    assert rows[0]["end"] == "100.000"
    assert float(rows[2]["calm"]) == pytest.approx(long.timeline[1].emotion.tags[0].probability, abs=1e-6)
    assert float(rows[4]["valence"]) == pytest.approx(short.emotion.valence, abs=1e-6)
    assert rows[4]["song"] == "with, comma\nand ?.mp3"


def test_csv_on_a_terminal_and_text_anywhere_do_nothing_to_it(
    spoken: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads(spoken[0])
    for place in (values, *values["timeline"]):
        place["tags"] = {"\x1b[2J": 0.9}
        place["given"] = ["\x1b[2J"]
    evil = SongPrediction.from_json({**values, "song": "a\x1b[2J.mp3", "thresholds": {"\x1b[2J": 0.5}})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for output in (Csv(), Summary(), Page(None)):
        output.add(evil)
        output.finish()
        said = capsys.readouterr().out
        assert "\\x1b[2J" in said
        assert "\x1b" not in said


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a silent song, one whose channels cancel, and one that is cut."""
    folder = tmp_path_factory.mktemp("odd")
    wave = noise(3, 44_100, 2)
    encode(folder / "silent.wav", 0 * wave, 44_100, "pcm_s16le", "wav")
    encode(folder / "cancels.wav", np.stack([wave[0], -wave[0]]), 44_100, "pcm_s16le", "wav")
    cut(encode(folder / "song.flac", wave, 44_100, "flac", "flac"))
    (folder / "song.flac").unlink()
    return folder


def test_what_there_is_to_say_of_a_song_is_said(odd: Path, model: Path, tmp_path: Path) -> None:
    silent, cancels = "silent: nothing in it is above -80 dB of full scale", "channel 1 is heard alone"
    page = call(odd / "silent.wav", model=model)
    assert f"note     {silent}\n" in page.stdout
    assert silent not in page.stderr
    for options in ([], ["--csv"], ["--out", str(tmp_path / "out.jsonl")]):
        said = call(odd, *options, model=model)
        assert f"note {odd / 'silent.wav'}: {silent}\n" in said.stderr
        assert cancels in said.stderr
        assert "silent:" not in said.stdout
        assert f"{odd / 'cut-song.flac'} is cut: " in said.stderr
    lines = [json.loads(line) for line in call(odd, "--json", model=model).stdout.splitlines()]
    notes = {Path(line["song"]).name: line["notes"] for line in lines}
    assert notes["silent.wav"] == [{"kind": "silent", "numbers": [], "text": silent}]
    assert [note["kind"] for note in notes["cancels.wav"]] == ["cancels"]
    assert all(note in (tmp_path / "out.jsonl").read_text() for note in (silent, cancels))


def test_a_cut_song_is_refused_or_heard_with_a_note(odd: Path, model: Path) -> None:
    refused = call(odd / "cut-song.flac", model=model)
    assert refused.exit_code == 1
    assert refused.stderr.endswith("is cut: 1.0 of 3.0 s (--accept-cut takes what there is)\n")
    heard = call(odd / "cut-song.flac", "--accept-cut", model=model)
    assert heard.exit_code == 0
    assert "note     cut: " in heard.stdout


@pytest.mark.parametrize("closed", [pytest.param("2>&-", marks=pytest.mark.long), "<&- >&- 2>&-"])
def test_without_standard_streams_the_work_is_done(music: Path, model: Path, tmp_path: Path, closed: str) -> None:
    """As a daemon starts it: nothing that is printed may land in the file that is opened next."""
    code = "from m2e.predict.cli import main; main()"
    options = ["--model", model, "--out", tmp_path / "out.jsonl", "--jobs", "1", "--device", "cpu"]
    command = [sys.executable, "-c", code, music, *options]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *map(str, command)], check=False, timeout=300)
    assert done.returncode == 0
    assert len([json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]) == 2


def test_lines_of_older_files_have_no_notes(spoken: list[str]) -> None:
    values = json.loads(spoken[0])
    del values["notes"]
    assert SongPrediction.from_json(values).notes == ()


def test_what_an_error_advises_is_an_option_of_this_command(odd: Path, model: Path, workspace: Path) -> None:
    """Whatever is wrong with a song: advice that helps elsewhere is none."""
    options = {option for parameter in main.params for option in (*parameter.opts, *parameter.secondary_opts)}
    soundfile.write(odd / "fast.wav", np.zeros(1000), 400_000)
    soundfile.write(odd / "short.wav", np.zeros(10), 44_100)
    (odd / "page.mp3").write_text("<html>")
    (odd / "list.m3u8").write_text("#EXTM3U\na.mp3\n")
    (odd / "empty.ogg").touch()
    songs = [*odd.iterdir(), workspace / "music" / "broken.mp3", odd / "missing.mp3"]
    result = call(*songs, model=model)
    assert result.stderr.count("failed ") == 8
    assert set(re.findall(r"--[a-z-]+", result.stderr)) <= options
    assert "--accept-cut" in result.stderr


def test_a_second_run_goes_on_with_the_file(music: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "music.jsonl"
    first = call(music, "--out", out, model=model)
    assert first.exit_code == 0
    assert first.stdout == ""
    assert "2 songs are in" in first.stderr
    assert "(2 new, 1 failed)" in first.stderr
    lines = sorted(out.read_bytes().splitlines(keepends=True), key=len)
    assert [json.loads(line)["song"] for line in lines] == [str(music / "short.ogg"), str(music / "more/long.flac")]

    (music / "broken.mp3").unlink()
    out.write_bytes(lines[1] + lines[0][:40])  # a kill in the middle of a line
    again = call(music, "--out", out, model=model)
    assert "1 of 2 songs are in" in again.stderr
    assert "(1 new, 0 failed)" in again.stderr
    assert out.read_bytes() == lines[1] + lines[0]

    with (music / "short.ogg").open("ab") as file:
        file.write(b"\0" * 10)
    call(music, "--out", out, model=model)
    sizes = [json.loads(line)["audio_bytes"] for line in out.read_text().splitlines()]
    assert sizes[2] == sizes[1] + 10
    assert call(music, "--out", out, model=model).exit_code == 0
    assert len(out.read_bytes().splitlines()) == 3


def test_a_file_of_another_model_or_of_something_else_is_left_alone(music: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "music.jsonl"
    call(music / "short.ogg", "--out", out, model=model)
    before = out.read_bytes()
    result = call(music, "--out", out, model=model.parent / "teacher-D")
    assert result.exit_code == 1
    assert "another model" in result.stderr
    assert out.read_bytes() == before
    for text in ("my shopping list\n", "my shopping list", '{"keep": "my only copy"}'):
        out.write_text(text)
        result = call(music, "--out", out, model=model)
        assert result.exit_code == 1
        assert "line 1" in result.stderr
        assert out.read_text() == text
    out.write_bytes(before.rstrip(b"\n"))  # whole, but for what ends it
    assert "(0 new" in call(music / "short.ogg", "--out", out, model=model).stderr
    assert out.read_bytes() == before


def test_a_full_disk_is_one_line_and_keeps_what_is_there(music: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "music.jsonl"
    call(music / "short.ogg", "--out", out, model=model)
    before, limits = out.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    # The same processes write temporary files: those of one song are shorter than this.
    out.write_bytes(before * 200)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200 * len(before) + 10, limits[1]))
    try:
        result = call(music / "more", "--out", out, model=model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: cannot write {out}: File too large; what it holds is kept"
    assert out.read_bytes()[: 200 * len(before)] == before * 200
    assert "1 songs are in" in call(music / "more", "--out", out, model=model).stderr


def test_a_record_goes_on_after_a_full_disk(spoken: list[str], tmp_path: Path) -> None:
    """In the same process: half a line is taken back, and the next is one of its own."""
    one, other = (SongPrediction.from_json(json.loads(line)) for line in spoken)
    record = Record(tmp_path / "music.jsonl", one.model)
    record.add(one)
    whole, limits = record.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(DataError, match=r"cannot write .*music\.jsonl"):
                record.add(other)
            assert record.path.read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    record.add(other)
    record.finish()
    assert [json.loads(line) for line in record.path.read_bytes().splitlines()] == [json.loads(line) for line in spoken]


def test_a_tmpdir_that_is_not_there_is_one_line(music: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(music / "nowhere"))
    result = call(music, model=model)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: TMPDIR is {music / 'nowhere'}")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_of_one_song(workspace: Path, model: Path, tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / f"song{suffix}"
    assert call(workspace / "song.mp3", "--plot", picture, model=model).exit_code == 0
    head = picture.read_bytes()[:200]
    assert {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}[suffix] in head + picture.read_bytes()[:2000]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give SONG"),
        (["music", "--serve"], "give SONG"),
        (["music", "--json", "--csv"], "exclude each other"),
        (["music", "--plot", "x.png"], "of one song, not of 3"),
        (["song.mp3", "--plot", "x.jpeg"], "none of .png"),
        (["--serve", "--host", "0.0.0.0"], "no address of this machine"),
        (["--serve", "--host", "::1"], "no IPv4 address"),
    ],
)
def test_wrong_usage(workspace: Path, model: Path, arguments: list[str], said: str) -> None:
    paths = [str(workspace / each) if (workspace / each).exists() else each for each in arguments]
    result = call(*paths, model=model)
    assert result.exit_code == 2
    assert said in result.stderr


def test_no_such_model_and_a_folder_without_songs_are_one_line(workspace: Path, model: Path, tmp_path: Path) -> None:
    for result in (call(workspace / "song.mp3", model=Path("none")), call(tmp_path, model=model)):
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_file_names_do_nothing_to_the_terminal(music: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = (music / "short.ogg").rename(music / "a\x1b[2J\nb.ogg")
    page = call(odd, model=model).stdout
    assert "a\\x1b[2J\\nb.ogg" in page
    assert "\x1b" not in page
    summary = Summary()
    summary.add(SongPrediction.from_json(json.loads(call(odd, "--json", model=model).stdout)))
    summary.finish()
    assert "a\\x1b[2J\\nb.ogg\n" in capsys.readouterr().out


@pytest.mark.long  # each process loads everything anew
def test_several_processes_give_the_same(music: Path, model: Path) -> None:
    options = ["--model", str(model), "--device", "cpu", "--json", "--jobs", "2"]
    result = CliRunner().invoke(main, [str(music), *options], catch_exceptions=False)
    assert sorted(result.stdout.splitlines()) == sorted(call(music, "--json", model=model).stdout.splitlines())


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_done(workspace: Path, model: Path, tmp_path: Path, number: signal.Signals) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    for i in range(60):
        shutil.copy(workspace / "song.mp3", songs / f"{i:02d}.mp3")
    out = tmp_path / "out.jsonl"
    code = "from m2e.predict.cli import main; main()"
    options = ["--model", model, "--out", out, "--jobs", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, songs, *options], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    while not out.exists() or out.stat().st_size == 0:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number
    assert f"What was done is in {out}" in said
    lines = out.read_text().splitlines()
    assert 1 <= len(lines) < 60
    assert all(json.loads(line)["timeline"] for line in lines)
