"""Whatever lies in the place of an encoder's or a cache's small files: one line, no traceback, no waiting."""

import shutil
from pathlib import Path

import pytest
from click.testing import Result
from support.lent import invoke
from support.music import write_songs
from support.odd import NO_FILES, NO_JSON, Make, put

from m2e.extract.cli import main
from m2e.extract.encoders.registry import find_encoder

ALL = {**NO_FILES, **NO_JSON}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two songs, and features of them."""
    folder = tmp_path_factory.mktemp("songs")
    table = write_songs(folder, 2)
    assert extract(table, folder / "features").exit_code == 0
    return table


def extract(table: Path, cache: Path, *more: str) -> Result:
    options = ["--chords", "template", "--device", "cpu", "--jobs", "1"]
    if "--encoder" not in more:
        more = ("--encoder", "tiny", *more)
    return invoke(main, ["--dataset", str(table), "--cache", str(cache), *options, *more])


def assert_one_line(result: Result, name: str) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2), result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert name in last


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_an_encoder(songs: Path, tmp_path: Path, name: str, make: Make) -> None:
    source = find_encoder("tiny")
    assert source.folder
    encoder = Path(shutil.copytree(source.folder, tmp_path / "mine"))
    put(encoder / name, make)
    # --dry-run loads the encoder here, not in a worker.
    assert_one_line(extract(songs, tmp_path, "--encoder", str(encoder), "--dry-run"), "mine")


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_chord_weights(songs: Path, tmp_path: Path, make: Make) -> None:
    make(tmp_path / "btc.pt")
    more = ("--chords", "btc", "--chord-checkpoint", str(tmp_path / "btc.pt"))
    assert_one_line(extract(songs, tmp_path, *more), "btc.pt")


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", ["config.json", "failures-a-1.jsonl", "provenance-a.json"])
def test_a_cache(songs: Path, tmp_path: Path, name: str, make: Make) -> None:
    cache = Path(shutil.copytree(songs.parent / "features", tmp_path / "features"))
    (features,) = cache.glob("songs/features-*")
    put(features / name, make)
    result = extract(songs, cache)
    if result.exit_code:
        assert_one_line(result, name)
