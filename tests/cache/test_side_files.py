"""Whatever lies in the place of a cache's files: one line, no traceback, no waiting."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.caches import CONFIG, make_cache, make_labels, random_track
from support.odd import NO_FILES, NO_JSON, Make, put

from m2e.cache import DataError, FeatureCache, FeatureWriter, read_labels, write_labels
from m2e.cache.cli import main
from m2e.cache.failures import Failure, read_failures, record_failure
from m2e.cache.folders import features_folder

LABELS = make_labels("deam", "D", 6)
COMMANDS = ("info", "verify", "repair", "pack", "failures", "export")
ALL = {**NO_FILES, **NO_JSON}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_cache(tmp_path / "deam", LABELS)
    record_failure(features_folder(tmp_path / "deam", CONFIG), Failure("x", "x.mp3", "audio", "it is empty", 0))
    return tmp_path / "deam"


def run(command: str, folder: Path) -> Result:
    options = ["--out", f"{folder}-{command}"] if command == "export" else []
    return CliRunner().invoke(main, [command, str(folder), *options])


def assert_no_traceback(result: Result) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1), result.output
    if result.exit_code == 1:
        assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", ["config.json", "failures-a-1.jsonl", "provenance-a.json"])
def test_notes_and_settings(folder: Path, name: str, make: Make, command: str) -> None:
    put(features_folder(folder, CONFIG) / name, make)
    assert_no_traceback(run(command, folder))


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_labels_and_features(folder: Path, make: Make, command: str) -> None:
    copy = Path(shutil.copytree(folder, folder.with_name("copy")))
    put(folder / "labels.h5", make)
    assert_no_traceback(run(command, folder))
    (shard,) = copy.glob("features-*/shard-*.h5")
    put(shard, make)
    assert_no_traceback(run(command, copy))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_the_lock(folder: Path, make: Make) -> None:
    put(folder / "pack.lock", make)
    assert_no_traceback(run("pack", folder))


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_merging(folder: Path, make: Make, tmp_path: Path) -> None:
    put(features_folder(folder, CONFIG) / "provenance-a.json", make)
    assert_no_traceback(CliRunner().invoke(main, ["merge", str(folder), "--into", str(tmp_path / "all")]))


def test_lines_that_are_no_failures_are_passed_over(folder: Path) -> None:
    features = features_folder(folder, CONFIG)
    good = asdict(Failure("y", "y.mp3", "audio", "it is empty", 0))
    wrong = [{**good, "track_id": "\x1b[2J"}, {**good, "attempts": 0}, {**good, "attempts": True}, {**good, "path": 1}]
    lines = [str(each).replace("'", '"').replace("True", "true") for each in wrong]
    lines += ['{"a":' * 100_000, "x" * 300_000, '{"track_id": Infinity}', "[]"]
    (features / "failures-b-1.jsonl").write_text("\n".join(lines) + "\n")
    assert read_failures(features).keys() == {"x"}


def test_a_failure_is_not_written_into_a_pipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_folder(folder, CONFIG)
    (note,) = features.glob("failures-*")
    put(note, NO_FILES["pipe"])
    with pytest.raises(DataError, match="is a pipe"):
        record_failure(features, Failure("y", "y.mp3", "audio", "it is empty", 0))


def _meanwhile(replace: Callable[[], object], read: Callable[[], object], times: int) -> None:
    """Read `times` times while another thread replaces all the time."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            replace()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(times):
            read()
    finally:
        done.set()
        thread.join()


def test_labels_that_are_replaced_meanwhile_are_read_whole(folder: Path) -> None:
    """What was checked is what is read, though another file has the name by then."""
    texts = [make_labels("deam", "D", n, tags) for n, tags in ((6, ()), (600, ("calm", "dark")))]
    turn = iter(range(10**9))
    _meanwhile(lambda: write_labels(folder, texts[next(turn) % 2]), lambda: read_labels(folder), 300)


def test_files_that_are_replaced_by_the_same_are_read(folder: Path) -> None:
    """As two workers that seal the same tracks do."""
    (shard,) = folder.glob("features-*/shard-*.h5")

    def again() -> None:
        shard.unlink()
        with FeatureWriter(folder, CONFIG) as writer:
            for i, track_id in enumerate(LABELS.track_ids):
                writer.add(random_track(track_id, seed=i, segments=1 + i % 4))

    before = shard.read_bytes()
    again()
    assert shard.read_bytes() == before

    def replaced() -> None:
        temporary = shard.with_name(".tmp-x")
        temporary.write_bytes(before)
        temporary.replace(shard)

    _meanwhile(replaced, lambda: FeatureCache.open(folder).load(), 200)
