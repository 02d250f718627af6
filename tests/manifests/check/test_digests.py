"""Audio against published digests: found, resumed, and honest about what it cannot tell."""

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner, Result
from support.official import write, write_jamendo

from m2e.manifests import load
from m2e.manifests.check.digests import STATE_FILE, verify_audio
from m2e.manifests.cli import main

LISTS = {
    suffix: f"data/download/autotagging_moodtheme_{kind}_sha256_tracks.txt"
    for kind, suffix in (("audio", ".mp3"), ("audio-low", ".low.mp3"))
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve tracks with audio, six of them of low quality, and the digests of eleven."""
    write_jamendo(tmp_path)
    lines: dict[str, list[str]] = {suffix: [] for suffix in LISTS}
    for number in range(948, 960):
        suffix = ".low.mp3" if number % 2 else ".mp3"
        name = f"{number % 100:02d}/{number}{suffix}"
        path = write(tmp_path / "audio" / name, f"sound {number}")
        if number != 959:
            lines[suffix].append(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {name}\n")
    for suffix, file in LISTS.items():
        write(tmp_path / file, "".join(lines[suffix]))
    return tmp_path


def run(root: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["verify-audio", "mtg-jamendo", "--root", str(root), "--digests", *options])


def tally(result: Result) -> dict[str, int]:
    return {state: n for state, n in json.loads(result.stdout).items() if state not in ("dataset", "paths") and n}


def test_good_audio(root: Path) -> None:
    result = run(root, "--json")
    assert result.exit_code == 0, result.output
    assert tally(result) == {"good": 11, "unlisted": 1}


def test_bad_and_missing_audio(root: Path) -> None:
    (root / "audio/48/948.mp3").write_text("other")
    (root / "audio/50/950.mp3").unlink()
    os.mkfifo(root / "audio/52/fifo")
    (root / "audio/52/952.mp3").unlink()
    (root / "audio/52/fifo").rename(root / "audio/52/952.mp3")
    result = run(root, "--allow-missing")
    assert result.exit_code == 1
    bad, pipe = str(root / "audio/48/948.mp3"), str(root / "audio/52/952.mp3")
    assert result.stdout.splitlines() == [f"bad\t{bad}", f"unreadable\t{pipe}"]
    assert "2 audio files of mtg-jamendo are not as published (8 good, 1 bad, 1 unreadable, 1 missing" in result.stderr
    assert json.loads(run(root, "--json").stdout)["paths"] == {"bad": [bad], "unreadable": [pipe]}


def test_nothing_verified_is_a_failure(root: Path, tmp_path: Path) -> None:
    for file in LISTS.values():
        write(root / file, f"{'0' * 64} 00/1.mp3\n")
    result = run(root)
    assert result.exit_code == 1
    assert "nothing of mtg-jamendo could be verified (0 good" in result.stderr
    assert "says how to get it" in run(tmp_path / "none").stderr


def test_missing_audio_is_a_failure_unless_allowed(root: Path) -> None:
    (root / "audio/50/950.mp3").unlink()
    result = run(root)
    assert result.exit_code == 1
    assert "1 audio files of mtg-jamendo are missing (10 good" in result.stderr
    assert run(root, "--allow-missing").exit_code == 0


@pytest.mark.parametrize("name", ["audio/48/948.mp3", LISTS[".mp3"], "data/tags/moodtheme_split.txt", "fifo", "audio"])
def test_nothing_is_added_to_a_file_of_another_kind(name: str, root: Path) -> None:
    os.mkfifo(root / "fifo")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    result = CliRunner().invoke(main, ["verify-audio", "mtg-jamendo", "--root", str(root), "--state", str(root / name)])
    assert result.exit_code in (1, 2)
    said = ("is no list of verified audio", "is a directory", "is a pipe")
    assert any(words in result.stderr for words in said)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("state", ["x" * 300, "/dev/full"])
def test_state_that_cannot_be(state: str, root: Path) -> None:
    result = run(root, "--state", state)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_line_cut_short_does_not_take_the_next_with_it(root: Path) -> None:
    assert run(root).exit_code == 0
    state = root / STATE_FILE
    state.write_bytes(state.read_bytes()[:-9])
    assert run(root).exit_code == 0
    assert len({*state.read_text().splitlines()} - {""}) == 1 + 11 + 1


def test_lists_that_contradict_each_other(root: Path) -> None:
    path = root / LISTS[".mp3"]
    path.write_text(path.read_text() + f"{'0' * 64} 48/948.mp3\n")
    assert "48/948.mp3 has another digest already" in run(root).stderr


def test_good_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load("mtg-jamendo", root)
    digests = {
        name: digest
        for file in LISTS.values()
        for digest, name in (line.split() for line in (root / file).read_text().splitlines())
    }
    first = verify_audio(manifest, digests, root / STATE_FILE)
    for _ in range(5):
        assert next(first).state == "good"
    first.close()  # as an interrupt does
    read: list[str] = []
    digest_of = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or digest_of(file, name))
    changed = manifest.tracks[0].audio_path
    changed.write_text("longer than before")
    states = [verdict.state for verdict in verify_audio(manifest, digests, root / STATE_FILE)]
    assert states.count("bad") == 1
    assert states.count("good") == 10
    assert str(changed) in read
    assert len(read) == 11 - 4


def test_state_that_was_cut_short_or_damaged_costs_only_time(root: Path) -> None:
    assert run(root).exit_code == 0
    state = root / STATE_FILE
    state.write_bytes(state.read_bytes()[:-9] + b"\xff\x00")
    assert tally(run(root, "--json")) == {"good": 11, "unlisted": 1}


def test_state_elsewhere_or_nowhere(root: Path, tmp_path: Path) -> None:
    assert run(root, "--state", str(tmp_path / "state.txt")).exit_code == 0
    assert not (root / STATE_FILE).exists()
    result = run(root, "--state", str(tmp_path / "none" / "state.txt"))
    assert result.exit_code == 1
    assert "--state FILE" in result.stderr
    (root / STATE_FILE).symlink_to(tmp_path / "victim.txt")
    assert "is a link to" in run(root).stderr
    assert not (tmp_path / "victim.txt").exists()
    for content in ("", "text\n"):
        (tmp_path / "victim.txt").write_text(content)
        assert "is there already and is no list of verified audio" in run(root).stderr
        assert (tmp_path / "victim.txt").read_text() == content
    (tmp_path / "state.txt").replace(tmp_path / "victim.txt")  # a list is a list, on whatever disk
    assert run(root).exit_code == 0


def test_lists_that_are_missing_or_damaged(root: Path) -> None:
    (root / LISTS[".mp3"]).write_text("0123 ../../etc/passwd\n")
    assert "line 1 is not a SHA-256 and a path" in run(root).stderr
    for file in LISTS.values():
        (root / file).unlink()
    assert "the digests come with https://github.com/MTG" in run(root).stderr


def test_sets_that_publish_no_digests(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["verify-audio", "deam", "--digests", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert "no digests of its audio are published" in result.stderr


def test_interrupt_keeps_what_was_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest_of, read = hashlib.file_digest, []

    def interrupted(file: BinaryIO, name: str) -> object:
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(file.name)
        return digest_of(file, name)

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", interrupted)
        result = run(root)
    assert result.exit_code == 130
    assert "interrupted: 4 good files are noted" in result.stderr
    assert len((root / STATE_FILE).read_text().splitlines()) == 1 + 4
    assert tally(run(root, "--json")) == {"good": 11, "unlisted": 1}
