"""m2e-manifest, as a user calls it."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.official import WRITERS, write, write_deam, write_deam_dynamic, write_emomusic

from m2e.manifests import DATASETS, load
from m2e.manifests.cli import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def facts(*arguments: str | Path) -> dict[str, object]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", DATASETS)
def test_a_newcomer_learns_what_to_get(name: str, tmp_path: Path) -> None:
    root = tmp_path / "my data"
    result = run("check", name, "--root", root)
    assert result.exit_code == 1
    dataset = DATASETS[name]
    for step in dataset.steps:
        assert step.format(root=f"'{root}'") in result.stdout
    assert dataset.licence in result.stdout
    assert all(issue in result.stdout for issue in dataset.issues)
    assert f"m2e-manifest check {name} --root '{root}'" in result.stdout
    assert len(result.stderr.strip().splitlines()) == 1
    assert "no such folder" in result.stderr
    as_json = json.loads(run("check", name, "--root", root, "--json").stdout)
    assert (as_json["ready"], len(as_json["steps"])) == (False, len(dataset.steps))


@pytest.mark.parametrize("name", DATASETS)
def test_check_tells_everything(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    manifest = load(name, tmp_path)
    first = manifest.tracks[0].audio_path
    first.parent.mkdir(parents=True)
    first.touch()
    found = facts("check", name, "--root", tmp_path)
    assert found["ready"]
    assert (found["tracks"], found["audio_found"]) == (len(manifest.tracks), 1)
    assert sum(found["splits"].values()) == len(manifest.tracks)
    assert found["first_missing"] == str(manifest.tracks[1].audio_path)
    assert found["known_issues"] == list(DATASETS[name].issues)
    assert found["labels"].keys() == ({"tags"} if DATASETS[name].letter == "J" else {"valence", "arousal"})
    assert len(found["test_tracks_seen"]) == 2
    text = run("check", name, "--root", tmp_path)
    assert manifest.provenance in text.stdout
    assert f"1 of {len(manifest.tracks)} files found" in text.stdout
    assert text.stderr.strip() == f"Next: m2e-extract --dataset {name} --root {tmp_path}"


def test_check_shows_unlabelled_duplicates_ranges_and_the_swap(tmp_path: Path) -> None:
    WRITERS["pmemo"](tmp_path / "pmemo")
    assert facts("check", "pmemo", "--root", tmp_path / "pmemo")["unlabelled"] == ["9", "1000"]
    assert "2 songs, left out (9, 1000)" in run("check", "pmemo", "--root", tmp_path / "pmemo").stdout
    ids = (*range(2, 60), 175, 536)
    write_deam(tmp_path / "deam", ids)
    write_deam_dynamic(tmp_path / "deam", ids, exchanged=True)
    found = facts("check", "deam", "--root", tmp_path / "deam")
    (pair,) = found["duplicates"]
    assert pair.keys() == {"175", "536"}
    assert len(set(pair.values())) == 1
    assert found["labels"]["valence"]["max"] == 7.1
    assert found["evidence"]["ids 2-1000"]["songs compared"] == 60
    assert found["evidence"]["ids 2-1000"]["r of static valence with dynamic arousal"] > 0.99
    text = run("check", "deam", "--root", tmp_path / "deam").stdout
    assert "swap check          ids 2-1000: r of static valence with dynamic arousal 1.000" in text
    assert "60 songs (ids 2-1000) carry valence and arousal exchanged" in text
    assert "paper  1,261  -1,2" in text


def test_paper_counts_that_agree_say_so(reference: Path) -> None:
    data = reference / "data"
    lines = run("check", "deam", "--root", data / "deam", "--splits", data / "splits" / "deam").stdout
    assert all(f"paper {count:>6,}  equal" in lines for count in (1261, 271, 270))


def test_own_table_is_checked_too(tmp_path: Path) -> None:
    file = write(tmp_path / "my.csv", "track_id,path,valence,arousal\na,a.wav,0,1\n")
    result = run("check", file, "--scale", "0", "1")
    assert result.exit_code == 0
    assert "1 to 1 on 1-9" in result.stdout
    assert "paths in" in result.stderr
    assert run("check", file, "--scale", "1", "0").exit_code == 2
    assert "is not a number from 1 to 9" in run("check", file).stderr


def test_build_writes_what_load_reads(tmp_path: Path) -> None:
    WRITERS["deam"](tmp_path / "deam")
    out = tmp_path / "out.csv"
    result = run("build", "deam", "--root", tmp_path / "deam", "--deam-labels", "repaired", "--out", out)
    assert result.exit_code == 0
    assert f"m2e-extract --dataset {out} --root {tmp_path / 'deam'}" in result.stderr
    built = load(str(out), tmp_path / "deam")
    assert (built.name, built.letter) == ("deam", "D")
    assert "repaired" in built.provenance
    assert "repaired" in run("check", out).stdout
    again = run("build", out, "--root", tmp_path / "deam", "--out", tmp_path / "again.csv", "--json")
    assert json.loads(again.stdout)["dataset"] == "deam"
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()
    assert run("build", "deam", "--root", tmp_path / "deam", "--out", tmp_path / "out.txt").exit_code == 2


def test_build_replaces_only_what_it_built(tmp_path: Path) -> None:
    mine = write(tmp_path / "my.csv", "track_id,path,valence,arousal,title\nx,x.wav,0,1,T\n")
    before = mine.read_bytes()
    result = run("build", mine, "--scale", "0", "1", "--out", mine)
    assert result.exit_code == 1
    assert "was not written by m2e-manifest" in result.stderr
    assert mine.read_bytes() == before
    out = tmp_path / "out.csv"
    assert run("build", mine, "--scale", "0", "1", "--out", out).exit_code == 0
    assert run("build", mine, "--scale", "0", "1", "--out", out).exit_code == 0
    labels = WRITERS["emomusic"](tmp_path / "emomusic")[0]
    before = labels.read_bytes()
    assert run("build", "emomusic", "--root", tmp_path / "emomusic", "--out", labels).exit_code == 1
    assert labels.read_bytes() == before


def test_next_commands_say_the_choices_again(tmp_path: Path) -> None:
    write_deam(tmp_path / "deam")
    (tmp_path / "deam" / "MEMD_audio").mkdir()
    (tmp_path / "deam" / "MEMD_audio" / "2.mp3").touch()
    for split, listed in (("train", "2\n"), ("validation", "3\n"), ("test", "175\n")):
        write(tmp_path / "my lists" / f"{split}.txt", listed)
    options = ["--root", str(tmp_path / "deam"), "--splits", str(tmp_path / "my lists"), "--deam-labels", "repaired"]
    said = run("check", "deam", *options).stderr
    assert said.strip() == f"Next: {shlex.join(['m2e-extract', '--dataset', 'deam', *options])}"
    mine = write(tmp_path / "my.csv", "track_id,path,valence,arousal\nx,deam/MEMD_audio/2.mp3,0,1\n")
    assert run("check", mine, "--scale", "0", "1").stderr.strip().endswith("--scale 0.0 1.0")


def test_check_without_a_name_lists_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2E_DATA", str(tmp_path))
    write_deam(tmp_path / "deam")
    write(tmp_path / "emomusic" / "annotations" / "songs_info.csv", "")
    result = run("check")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == len(DATASETS)
    assert f"deam            audio of 0 of 8 tracks in {tmp_path / 'deam'}" in lines[1]
    assert f"emomusic        incomplete or damaged in {tmp_path / 'emomusic'}" in lines[2]
    assert f"pmemo           not there in {tmp_path / 'pmemo'}" in lines[3]
    rows = json.loads(run("check", "--json").stdout)
    assert [row["dataset"] for row in rows] == list(DATASETS)
    assert [row["ready"] for row in rows] == [row["dataset"] == "deam" for row in rows]
    assert "static_annotations.csv: no such file" in rows[2]["problem"]
    for options in (("--root", tmp_path), ("--deam-labels", "repaired")):
        assert run("check", *options).exit_code == 2


def test_steps_are_shown_only_where_the_folder_is_to_blame(tmp_path: Path) -> None:
    write_deam(tmp_path / "deam")
    result = run("check", "deam", "--root", tmp_path / "deam", "--splits", tmp_path / "none")
    assert result.exit_code == 1
    assert not result.stdout
    assert result.stderr.startswith(f"Error: {tmp_path / 'none'}: no such folder")


def test_tables_of_ones_own_are_not_published() -> None:
    for command in (["fetch"], ["verify-audio", "--digests"]):
        assert "my.csv: a table of your own is not published" in run(*command, "my.csv").stderr


def test_out_that_is_no_file(tmp_path: Path) -> None:
    write_deam(tmp_path / "deam")
    os.mkfifo(tmp_path / "out.csv")
    assert run("build", "deam", "--root", tmp_path / "deam", "--out", tmp_path / "out.csv").exit_code == 1


def test_names_from_outside_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    evil = "x\x1b]0;t\x07\nError: y"
    write(tmp_path / evil / "my.csv", "track_id,path,tags,artist\n1,1.wav,x,\u202eevil\u2028\x9b\n")
    write(tmp_path / "tags.csv", "track_id,path,tags\n1,1.wav,\u202eevil\n")
    write(tmp_path / "header.csv", f'track_id,path,tags,"{evil}"\n1,1.wav,x,y\n')
    for command in ("check", "show"):
        for file in (tmp_path / evil / "my.csv", tmp_path / "tags.csv", tmp_path / "header.csv", tmp_path / evil):
            result = run(command, file)
            assert (result.stdout + result.stderr).replace("\n", "").isprintable()
            assert not any(line.startswith("Error: y") for line in result.stderr.splitlines())


@pytest.mark.parametrize(
    "arguments", [("check", "deam", "--splits"), ("verify-audio", "mtg-jamendo", "--root"), ("check", "deam", "--root")]
)
def test_paths_that_cannot_be(arguments: tuple[str, ...], tmp_path: Path) -> None:
    write_deam(tmp_path / "deam")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("x" * 300, str(tmp_path / "loop" / "x")):
        result = run(*arguments, path, *(["--root", str(tmp_path / "deam")] if "--splits" in arguments else []))
        assert result.exit_code == 1
        assert len(result.stderr.strip().splitlines()) == 1
        assert Path(path).parts[-2 if "loop" in path else 0] in result.stderr


def test_build_aligned(tmp_path: Path) -> None:
    for name in ("deam", "emomusic"):
        WRITERS[name](tmp_path / name)
    other = tmp_path / "emomusic"
    out = tmp_path / "out.csv"
    assert (
        run("build", "deam", "--root", tmp_path / "deam", "--align", f"emomusic={other}", "--out", out).exit_code == 0
    )
    split = {track.clip_group: track.split for track in load("emomusic", other).tracks}
    shared = [track for track in load(str(out)).tracks if track.clip_group in split]
    assert len(shared) == 4
    assert all(track.split == split[track.clip_group] for track in shared)


def test_show(tmp_path: Path) -> None:
    WRITERS["pmemo"](tmp_path)
    result = run("show", "pmemo", "4", "--root", tmp_path, "--json")
    assert json.loads(result.stdout) == {
        "track_id": "4",
        "audio": str(tmp_path / "chorus/4.mp3"),
        "audio_found": False,
        "split": load("pmemo", tmp_path).tracks[1].split,
        "valence": 9.0,
        "arousal": 4.2,
        "clip_group": "pmemo/4",
        "artist": "Beyoncé\x93",
    }
    assert len(run("show", "pmemo", "--root", tmp_path, "--limit", "2").stdout.splitlines()) == 2
    assert "pmemo has no track '9'" in run("show", "pmemo", "9", "--root", tmp_path).stderr


def test_leaks(reference: Path) -> None:
    data = reference / "data"
    arguments = [item for name, letter in (("deam", "D"), ("emomusic", "E")) for item in (
        "--data", f"{letter}={data / name}", "--splits", f"{letter}={data / 'splits' / name}"
    )]  # fmt: skip
    result = run("leaks", *arguments)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["emomusic", "125", "deam", "82", "+1", "16", "+1", "27"] in rows
    assert ["deam", "270", "emomusic", "66", "20", "27"] in rows
    assert "+n: the clip is there under another id" in result.stderr
    assert "m2e-cache relabel features/NAME --align OTHER=DIR" in result.stderr
    found = json.loads(run("leaks", *arguments, "--json").stdout)
    assert {
        "tested": "emomusic",
        "seen": "deam",
        "split": "test",
        "same": 27,
        "duplicates": 0,
        "artists": None,
    } in found


def test_leaks_of_tables_of_ones_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "songs.csv", "track_id,path,valence,arousal\nx,x.wav,0,1\n")
    one, two = (f"{tmp_path / folder / 'songs.csv'}" for folder in ("a", "b"))
    assert run("leaks", "--data", one, "--scale", "0", "1").exit_code == 0
    result = run("leaks", "--data", one, "--data", two, "--scale", "0", "1")
    assert result.exit_code == 2
    assert "songs is given twice" in result.stderr


def test_leaks_of_default_splits(tmp_path: Path) -> None:
    """DEAM follows the EmoMusic that the user names, wherever that is, unless lists are given."""
    ids = range(2, 200)
    write_deam(tmp_path / "one" / "deam", ids)
    write_emomusic(tmp_path / "two" / "songs", ids)
    data = ("--data", f"D={tmp_path / 'one' / 'deam'}", "--data", f"E={tmp_path / 'two' / 'songs'}")
    result = run("leaks", *data)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["emomusic", "50", "deam", "0", "0", "50"] in rows
    assert "No clip of a test set is in a train or validation split." in result.stderr
    for split, listed in (("train", range(100, 190)), ("validation", range(190, 199)), ("test", [2])):
        write(tmp_path / "lists" / f"{split}.txt", "".join(f"{i}\n" for i in listed))
    rows = [line.split() for line in run("leaks", *data, "--splits", f"D={tmp_path / 'lists'}").stdout.splitlines()]
    assert not any(row[:3] == ["emomusic", "50", "deam"] and row[3] == "0" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("leaks", "--data", "deam"), "'deam' is not NAME=DIR"),
        (("leaks", "--data", "D=x", "--splits", "E=y"), "emomusic is not among --data"),
        (("leaks", "--data", "D=x", "--data", "deam=y"), "deam is given twice"),
        (("leaks", "--data", "D=x", "--splits", "D=y", "--splits", "D=z"), "deam is given twice"),
        (("check", "my.csv", "--scale", "-inf", "inf"), "is no range"),
        (("check", "my.csv", "--scale", "-1e308", "1e308"), "is no range"),
        (("check", "my.csv", "--scale", "nan", "1"), "is no range"),
        (("check", "emomusic", "--align", "none"), "--align none concerns deam"),
        (("check", "my.csv", "--align", "none"), "--align none concerns deam"),
        (("check", "deam", "--align", "emomusic="), "'emomusic=' is not NAME or NAME=DIR"),
        (("check", "deam", "--align", ""), "'' is not NAME or NAME=DIR"),
        (("check", "pmemo", "--deam-labels", "repaired"), "--deam-labels concerns deam, and none of pmemo"),
        (("check", "deam", "--jamendo-split", "1"), "--jamendo-split concerns mtg-jamendo"),
        (("check", "deam", "--scale", "0", "1"), "--scale concerns CSV files of your own"),
        (("check", "mtg-jamendo", "--jamendo-split", "5"), "5 is not in the range"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], line: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert line in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["check", "build", "show", "fetch", "verify-audio"])
def test_unknown_name(command: str, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "x.csv")] if command == "build" else []
    result = run(command, "dean", *out)
    assert result.exit_code == 1
    assert "did you mean deam?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "build", "show", "fetch", "verify-audio", "leaks"])
def test_every_command_has_an_example(command: str) -> None:
    assert re.search(r"Examples?:\n? +m2e-manifest", run(command, "--help").stdout)
