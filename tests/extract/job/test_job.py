"""m2e-extract as a function: what it does is what the command does."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.music import write_songs

from m2e.cache import DataError
from m2e.extract import Extracted, Extractor, extract
from m2e.extract.cli import main

TRY_OUT = {"encoder": "tiny", "chords": "template", "device": "cpu", "jobs": 1}


def files(cache: Path) -> dict[str, bytes]:
    """All that does not name processes."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in cache.rglob("*")
        if path.suffix == ".h5" or path.name == "config.json"
    }


def test_the_command_and_the_function_give_the_same_files(tmp_path: Path) -> None:
    table = write_songs(tmp_path, 3)
    (tmp_path / "2.ogg").write_bytes(b"no music")
    options = ["--encoder", "tiny", "--chords", "template", "--device", "cpu", "--jobs", "1"]
    CliRunner().invoke(main, ["--dataset", str(table), "--cache", str(tmp_path / "a"), *options])
    told: list[tuple[str, str]] = []
    (found,) = extract(
        str(table), cache=tmp_path / "b", tell=lambda event, dataset, values: told.append((event, dataset)), **TRY_OUT
    )
    assert files(tmp_path / "a") == files(tmp_path / "b") != {}
    assert (found.kept, found.new, found.failed, found.cache) == (2, 2, 1, tmp_path / "b" / "songs")
    assert found.is_good()
    assert not found.is_good(strict=True)
    assert told == [("plan", "songs"), *[("track", "songs")] * 3, ("end", "songs")]
    (again,) = extract(str(table), cache=tmp_path / "b", limit=1, **TRY_OUT)
    assert isinstance(again, Extracted)
    assert (again.kept, again.new) == (1, 0)


def test_what_cannot_be_done_is_an_exception(tmp_path: Path) -> None:
    table = str(write_songs(tmp_path, 1))
    for wrong in ({"encoder": "tinny"}, {"chords": "none"}, {"layers": (9,)}, {"name": "deam"}, {"tail": "some"}):
        with pytest.raises(DataError):
            extract(table, cache=tmp_path / "c", **{**TRY_OUT, **wrong})
    with pytest.raises(DataError):
        extract([table, "deam"], root=tmp_path, cache=tmp_path / "c")
    with pytest.raises(DataError):
        Extractor("tiny", chords="template", device="cpu")(str(tmp_path / "none.mp3"))


def test_importing_loads_nothing_and_changes_nothing() -> None:
    """But for the word to HDF5 that files may load no native code."""
    code = (
        "import os, signal, sys, threading, warnings, h5py\n"
        "os.environ['HDF5_PLUGIN_PRELOAD'] = '::'\n"
        "def state():\n"
        "    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "    return dict(os.environ), handlers, list(warnings.filters), threading.active_count(), sys.excepthook\n"
        "before = state()\n"
        "import m2e.cache, m2e.extract, m2e.train, m2e.predict, m2e.manifests\n"
        "heavy = {'torch', 'transformers', 'librosa', 'music21', 'pandas', 'sklearn', 'scipy', 'matplotlib', 'av'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
