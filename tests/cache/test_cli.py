"""m2e-cache, as a user calls it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.caches import CONFIG, make_cache, make_labels

from m2e.cache import FeatureCache
from m2e.cache.cli import main
from m2e.cache.failures import Failure, record_failure
from m2e.cache.writer import features_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "deam", make_labels("deam", "D", 10))


def test_info_says_what_is_there(folder: Path) -> None:
    record_failure(features_folder(folder, CONFIG), Failure("x1", "x1.mp3", "audio", "x1.mp3 is empty", 0))
    facts = json.loads(CliRunner().invoke(main, ["info", str(folder), "--json"], catch_exceptions=False).stdout)
    assert facts["tracks"] == 10
    assert facts["splits"] == {"train": 6, "validation": 2, "test": 2}
    assert facts["failures"] == {"audio": 1}
    assert facts["config"]["layers"] == [5, 6, 7]
    text = CliRunner().invoke(main, ["info", str(folder)], catch_exceptions=False).stdout
    assert "x1.mp3 is empty" in text


def test_a_track_that_was_done_later_is_no_failure(folder: Path) -> None:
    record_failure(features_folder(folder, CONFIG), Failure("t0001", "a.mp3", "audio", "was empty", 0))
    with (features_folder(folder, CONFIG) / "failures-elsewhere-1.jsonl").open("w") as file:
        file.write('{"track_id": "half a li')
    facts = json.loads(CliRunner().invoke(main, ["info", str(folder), "--json"]).stdout)
    assert facts["failures"] == {}


def test_verify_finds_a_flipped_byte(folder: Path) -> None:
    assert CliRunner().invoke(main, ["verify", str(folder)]).exit_code == 0
    (shard,) = folder.glob("features-*/shard-*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = CliRunner().invoke(main, ["verify", str(folder)])
    assert result.exit_code == 1
    assert shard.name in result.stdout
    assert "1 of 1 files are damaged" in result.stderr


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


@pytest.mark.parametrize("command", ["info", "verify", "export --out x"])
def test_a_folder_that_is_no_cache_is_one_line(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert CliRunner().invoke(main, [*command.split(), str(tmp_path / "none")]).exit_code == 2
