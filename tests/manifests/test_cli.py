"""m2e-manifest, as a user calls it."""

import json
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
    assert "2 songs, left out (9, 1000, ...)" in run("check", "pmemo", "--root", tmp_path / "pmemo").stdout
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
    assert "--align" in result.stderr
    found = json.loads(run("leaks", *arguments, "--json").stdout)
    assert {
        "tested": "emomusic",
        "seen": "deam",
        "split": "test",
        "same": 27,
        "duplicates": 0,
        "artists": None,
    } in found


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
    assert "Example: m2e-manifest" in run(command, "--help").stdout
