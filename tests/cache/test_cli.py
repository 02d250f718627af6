"""m2e-cache, as a user calls it."""

import csv
import io
import json
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from support.caches import CONFIG, make_cache, make_labels, random_track
from support.crash.hostile import HOSTILE

from m2e.cache import FeatureCache, FeatureWriter
from m2e.cache.cli import main
from m2e.cache.failures import Failure, record_failure
from m2e.cache.folders import training_command
from m2e.cache.writer import features_folder
from m2e.common import console


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "deam", make_labels("deam", "D", 10))


def test_info_says_what_is_there(folder: Path) -> None:
    record_failure(features_folder(folder, CONFIG), Failure("x1", "x1.mp3", "audio", "x1.mp3 is empty", 0))
    facts = json.loads(CliRunner().invoke(main, ["info", str(folder), "--json"], catch_exceptions=False).stdout)
    (group,) = facts["features"]
    assert group["tracks"] == 10
    assert group["splits"] == {"train": 6, "validation": 2, "test": 2}
    assert group["failures"] == {"audio": 1}
    assert group["config"]["layers"] == [5, 6, 7]
    assert group["environments"][0]["numpy"] == np.__version__
    text = CliRunner().invoke(main, ["info", str(folder)], catch_exceptions=False).stdout
    assert "x1.mp3 is empty" in text


def test_a_track_that_was_done_later_is_no_failure(folder: Path) -> None:
    record_failure(features_folder(folder, CONFIG), Failure("t0001", "a.mp3", "audio", "was empty", 0))
    with (features_folder(folder, CONFIG) / "failures-elsewhere-1.jsonl").open("w") as file:
        file.write('{"track_id": "half a li')
    facts = json.loads(CliRunner().invoke(main, ["info", str(folder), "--json"]).stdout)
    assert facts["features"][0]["failures"] == {}


def test_verify_finds_a_flipped_byte(folder: Path) -> None:
    assert CliRunner().invoke(main, ["verify", str(folder)]).exit_code == 0
    (shard,) = folder.glob("features-*/shard-*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = CliRunner().invoke(main, ["verify", str(folder)])
    assert result.exit_code == 1
    assert shard.name in result.stdout
    assert "1 of 2 files are damaged" in result.stderr


def test_export_is_readable_without_m2e(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", str(folder), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    cache = FeatureCache.open(folder)
    with np.load(tmp_path / "out" / "embeddings.npz") as file:
        arrays = dict(file)
    assert arrays["track_ids"].tolist() == list(cache.track_ids)
    np.testing.assert_array_equal(
        arrays["embeddings"][arrays["first"][3] : arrays["first"][4]].astype(np.float32), cache.embeddings("t0003")
    )
    with (tmp_path / "out" / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == list(cache.splits)
    assert float(rows[4]["arousal"]) == pytest.approx(cache.labels.valence_arousal[4, 1], abs=1e-4)
    with (tmp_path / "out" / "chords.csv").open() as file:
        chords = [row["chord"] for row in csv.DictReader(file) if row["track_id"] == "t0007"]
    assert chords == cache.chords("t0007").labels


def test_an_export_replaces_only_what_an_export_wrote(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "tracks.csv").write_text("by hand")
    command = ["export", str(folder), "--out", str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {out / 'tracks.csv'} is there already")
    assert "choose another folder" in result.stderr
    assert [path.name for path in out.iterdir()] == ["tracks.csv"]
    assert (out / "tracks.csv").read_text() == "by hand"
    (out / "tracks.csv").unlink()
    for _ in range(2):
        assert CliRunner().invoke(main, command).exit_code == 0
    assert {path.name for path in out.iterdir()} == {".m2e-export", "embeddings.npz", "tracks.csv", "chords.csv"}


@pytest.mark.parametrize("command", ["info", "verify", "export --out x"])
def test_a_folder_that_is_no_cache_is_one_line(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert CliRunner().invoke(main, [*command.split(), str(tmp_path / "none")]).exit_code == 2


def run(*words: str | Path, code: int = 0) -> tuple[str, str]:
    """Output and messages of a command that ends with `code`."""
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result.stdout, result.stderr


def test_info_compares_settings(folder: Path) -> None:
    make_cache(folder, make_labels("deam", "D", 4), replace(CONFIG, tail="keep", layers=(4,)))
    text, said = run("info", folder)
    assert "tail: " in text
    assert "--features" in said
    facts = json.loads(run("info", folder, "--json")[0])
    assert sorted(facts["differ"]) == ["layers", "tail"]
    assert sorted(group["tracks"] for group in facts["features"]) == [4, 10]
    chosen = json.loads(run("info", folder, "--features", features_folder(folder, CONFIG).name[9:14], "--json")[0])
    assert [group["tracks"] for group in chosen["features"]] == [10]
    assert "no features that begin with 'zzz'" in run("info", folder, "--features", "zzz", code=1)[1]


def test_from_damage_to_a_packed_cache(folder: Path, tmp_path: Path) -> None:
    (shard,) = folder.glob("features-*/shard-*.h5")
    with h5py.File(shard) as file:
        at = file["embeddings"].id.get_offset()
    content = bytearray(shard.read_bytes())
    content[at] ^= 1
    shard.write_bytes(content)
    damaged = json.loads(run("verify", folder, "--deep", "--json", code=1)[0])
    assert [its["tracks"] for its in damaged["damaged"]] == [["t0000"]]
    text, said = run("repair", folder)
    assert "redo  t0000" in text
    assert "Next: m2e-extract --dataset deam" in said
    assert run("verify", folder, "--deep")[0] == ""
    run("pack", folder)
    assert [path.name[:5] for path in folder.glob("features-*/*.h5")] == ["pack-"]
    assert "9 tracks, 9 new" in run("merge", folder, "--into", tmp_path / "all")[1]
    assert json.loads(run("info", tmp_path / "all", "--json")[0])["features"][0]["tracks"] == 9


def test_failures_are_listed(folder: Path) -> None:
    record_failure(features_folder(folder, CONFIG), Failure("x1", "x1.mp3", "audio", "x1.mp3 is empty", 0))
    text, said = run("failures", folder)
    assert text == "x1\taudio\t1\tx1.mp3\tx1.mp3 is empty\n"
    assert "--retry-failed" in said
    assert json.loads(run("failures", folder, "--json")[0])[0]["track_id"] == "x1"


@pytest.mark.parametrize("command", ["info", "verify", "repair", "pack", "merge", "failures", "export"])
def test_every_command_shows_an_example(command: str) -> None:
    assert f"Example: m2e-cache {command}" in run(command, "--help")[0]


def test_a_command_of_a_package_without_its_requirements_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("relabel", "m2e.nowhere:relabel", "m2e.cache.commands")
    monkeypatch.setattr("m2e.common.console.entry_points", lambda **which: EntryPoints([broken]).select(**which))
    assert "m2e.nowhere is not installed here" in run("relabel", "x", "--any", code=1)[1]
    assert "relabel" in run("--help")[0]
    assert "No such command 'else'" in run("else", code=2)[1]


def test_names_of_files_do_nothing_to_the_terminal(folder: Path) -> None:
    evil = "a\x1b[2J\tb\nc.mp3"
    record_failure(features_folder(folder, CONFIG), Failure("x1", evil, "audio", f"{evil} is empty", 0))
    (line,) = run("failures", folder)[0].splitlines()
    assert line.split("\t")[3:] == ["a\\x1b[2J\\tb\\nc.mp3", "a\\x1b[2J\\tb\\nc.mp3 is empty"]
    assert "\x1b" not in run("info", folder)[0]


@pytest.mark.parametrize("command", ["verify", "repair", "info", "failures", "pack"])
def test_forged_ids_do_nothing_to_the_terminal(folder: Path, command: str) -> None:
    HOSTILE["control characters"](features_folder(folder, CONFIG) / "shard-000000000000.h5")
    for options in ([], ["--json"]):
        if options and command == "pack":
            continue
        result = CliRunner().invoke(main, [command, str(folder), *options])
        assert "\x1b" not in result.output
        if command == "verify" and not options:
            assert "  \\x1b[2J\n" in result.stdout


def test_names_of_tasks_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    said = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=said, force_terminal=True, width=200, color_system=None))
    with console.progress_bar("files") as bar:
        bar.add_task("a[/b] [red]c", total=1, rate=0.0)
    assert "a[/b] [red]c" in said.getvalue()


def test_what_to_run_next_can_be_pasted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert training_command("D", Path("my features/deam")) == "m2e-train --datasets D --cache 'my features'"
    assert training_command("D", Path("features/deam"), "ab12").endswith("--cache features --features ab12")
    monkeypatch.chdir(folder)
    assert training_command("my songs", Path()) == f"m2e-train --datasets 'my songs' --cache {folder.parent}"


def test_failures_are_listed_where_nothing_succeeded(tmp_path: Path) -> None:
    record_failure(features_folder(tmp_path, CONFIG), Failure("x1", "x1.mp3", "audio", "x1.mp3 is empty", 0))
    assert run("failures", tmp_path)[0].startswith("x1\taudio")


def test_lost_settings_are_reported_until_they_are_there_again(folder: Path) -> None:
    (path,) = folder.glob("features-*/config.json")
    path.write_text(path.read_text().replace('"drop"', '"keep"'))
    said = run("repair", folder)[1]
    assert "1 files set aside" in said
    assert "has lost its config.json: the m2e-extract command" in said
    assert "Nothing more to do" not in said
    other = replace(CONFIG, layers=(1,))
    with FeatureWriter(folder, other) as writer:
        writer.add(random_track("t1", layers=1))
    result = CliRunner().invoke(main, ["verify", str(folder)])
    assert result.exit_code == 1
    assert f"{path}\t" in result.stdout


def test_a_folder_in_place_of_a_file_is_one_line(folder: Path) -> None:
    (features_folder(folder, CONFIG) / "failures-a-1.jsonl").mkdir()
    for command in ("info", "failures"):
        result = CliRunner().invoke(main, [command, str(folder)])
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert "failures-a-1.jsonl is a folder, not a regular file" in result.stderr
