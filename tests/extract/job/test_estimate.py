"""What --dry-run says, against what an extraction then does; and the events that a script can follow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import Result
from support.lent import invoke
from support.music import write_songs

from m2e.cache import ExtractionConfig, FeatureCache
from m2e.extract.audio.reader import load_audio, split_segments
from m2e.extract.cli import main
from m2e.extract.job.estimate import count_segments, header_seconds

OPTIONS = ("--encoder", "tiny", "--chords", "template", "--device", "cpu", "--jobs", "1")


def extract(table: Path, *options: str) -> Result:
    arguments = ["--dataset", str(table), "--cache", str(table.parent / "cache"), *OPTIONS, *options]
    return invoke(main, arguments, catch_exceptions=False)


def test_a_dry_run_foretells_the_cache_and_writes_nothing(tmp_path: Path) -> None:
    table = write_songs(tmp_path / "songs", 8)
    (tmp_path / "songs/0.wav").write_bytes(b"not audio")
    (tmp_path / "songs/1.flac").unlink()
    before = sorted(tmp_path.rglob("*"))
    result = extract(table, "--dry-run", "--json")
    assert result.exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
    foretold = json.loads(result.stdout)
    assert foretold["event"] == "estimate"
    assert (foretold["tracks"], foretold["unreadable"], foretold["jobs"]) == (6, 1, 1)
    assert foretold["hours"] == pytest.approx(6 * 2 / 3600, rel=0.05)
    assert foretold["seconds"] > 0
    assert "1 without audio" in result.stderr

    assert extract(table).exit_code == 0
    cache = FeatureCache.open(tmp_path / "songs/cache/songs")
    assert cache.hours == pytest.approx(foretold["hours"], rel=0.01)
    embeddings = sum(cache.embeddings(track_id).size for track_id in cache.track_ids) * 2
    assert embeddings < foretold["cache_bytes"] < embeddings + 6 * 300
    assert json.loads(extract(table, "--dry-run", "--json").stdout)["tracks"] == 0


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_the_header_says_what_decoding_gives(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.sin(np.arange(500_000) / 30) * 0.3, 22_050)
    assert header_seconds(path) == pytest.approx(load_audio(path).duration, abs=0.1)


@pytest.mark.parametrize("tail", ["drop", "keep"])
@pytest.mark.parametrize("seconds", [0.2, 4, 29.9, 30, 34, 36, 60, 89, 95])
def test_segments_are_counted_as_they_are_cut(tail: str, seconds: float) -> None:
    config = replace(ExtractionConfig("x", "y"), tail=tail)
    wave = np.zeros(round(seconds * 1000), np.float32)
    assert count_segments(seconds, config) == len(split_segments(wave, 30_000, tail, 5_000))


def test_events_tell_of_every_track(tmp_path: Path) -> None:
    table = write_songs(tmp_path / "songs", 4)
    (tmp_path / "songs/0.wav").write_bytes(b"not audio")
    plan, *tracks, end = map(json.loads, extract(table, "--json-events").stdout.splitlines())
    assert plan == {"event": "plan", "dataset": "songs", "todo": 4, "done": 0, "missing": 0, "failed": 0}
    assert {(each["track_id"], each["ok"]) for each in tracks} == {
        ("song00", False),
        ("song01", True),
        ("song02", True),
        ("song03", True),
    }
    assert [bool(each["reason"]) for each in tracks] == [not each["ok"] for each in tracks]
    assert (end["event"], end["new"], end["failed"]) == ("end", 3, 1)
