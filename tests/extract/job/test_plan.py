"""What a run decides to do, without doing it."""

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2e.cache.failures import Failure, read_failures, record_failure, settle_failure
from m2e.cache.layout import INDEX
from m2e.cache.types import FOREIGN, UNKNOWN
from m2e.common.errors import DataError
from m2e.extract.job import overwriting
from m2e.extract.job.part import Part
from m2e.extract.job.plan import Plan, Selection, make_plan
from m2e.manifests.store import Standing, manifest_labels
from m2e.manifests.types import Manifest, Track

SHA = bytes.fromhex("9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0")  # of b"aaa"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Tracks t00 to t11, each a file of three bytes, but for t03, whose file is not there."""
    paths = [tmp_path / f"t{i:02d}" for i in range(12)]
    for path in paths:
        path.write_bytes(b"aaa")
    paths[3].unlink()
    return Manifest("songs", "", tuple(Track(path.name, path) for path in paths))


def index_of(stored: Mapping[str, bytes]) -> Any:
    index = np.zeros(len(stored), INDEX)
    for row, (track_id, audio) in zip(index, stored.items(), strict=True):
        row["id"], row["audio_bytes"] = track_id.encode(), len(audio)
        row["audio_sha256"] = np.frombuffer(SHA if audio == b"aaa" else bytes(32), "u1")
    return index


def plan(
    manifest: Manifest,
    stored: Mapping[str, bytes],
    failed: Mapping[str, int] | None = None,
    generations: Mapping[str, int] | None = None,
    standing: Standing | None = None,
    begun: int | None = None,
    **how: object,
) -> Plan:
    """The plan where the cache holds features of `stored` audio, and `failed` of that size did."""
    index = index_of(stored)
    paths = {track.track_id: str(track.audio_path) for track in manifest.tracks}
    failures = {
        track_id: Failure(track_id, paths[track_id], "audio", "no music", size, 2, _sha(stored.get(track_id)))
        for track_id, size in (failed or {}).items()
    }
    of_records = np.array([(generations or {}).get(track_id, 0) for track_id in stored], np.int64)
    nowhere = np.zeros(len(manifest.tracks), np.bool_)
    sure = standing or Standing.of(manifest_labels(manifest), None)
    return make_plan(manifest, index, of_records, failures, Selection(**how), sure, nowhere, begun)  # type: ignore[arg-type]


def _sha(audio: bytes | None) -> str:
    return "" if audio is None else SHA.hex() if audio == b"aaa" else bytes(32).hex()


def ids(made: Plan) -> list[str]:
    return [task.track_id for task in made.tasks]


def test_what_is_stored_missing_or_failed_is_left(manifest: Manifest) -> None:
    made = plan(manifest, {"t00": b"aaa", "t01": b"aaa"}, {"t02": 3, "t04": 99})
    assert made.done == ("t00", "t01")
    assert [track.track_id for track in made.missing] == ["t03"]
    assert set(made.failed) == {"t02"}
    assert ids(made) == [f"t{i:02d}" for i in range(4, 12)]  # t04's audio is another file by now
    assert [task.attempts for task in made.tasks[:2]] == [2, 0]
    assert ids(plan(manifest, {}, {"t02": 3}, retry_failed=True))[:3] == ["t00", "t01", "t02"]


def test_changed_audio_is_done_again_as_a_newer_record(manifest: Manifest) -> None:
    stored = {"t00": b"aaa", "t01": b"aaaa", "t02": b"bbb"}
    made = plan(manifest, stored)
    assert (made.done, made.changed, made.again) == (("t00", "t02"), ("t01",), {"t01"})
    assert made.generation == 1
    assert ids(made)[-1] == "t01"
    assert plan(manifest, stored, generations={"t00": 9, "t01": 2}).generation == 3
    assert plan(manifest, {"t00": b"aaa"}).generation == 0
    by_content = plan(manifest, stored, check_audio=True)
    assert (by_content.done, by_content.again) == (("t00",), {"t01", "t02"})
    everything = plan(manifest, stored, {"t05": 3}, overwrite=True)
    assert everything.done == ()
    assert not everything.failed
    assert everything.again == {"t00", "t01", "t02"}
    assert sorted(ids(everything)) == [f"t{i:02d}" for i in range(12) if i != 3]


def test_changed_audio_that_failed_is_not_tried_again(manifest: Manifest) -> None:
    stored = {"t00": b"aaaa", "t01": b"aaa"}
    made = plan(manifest, stored, {"t00": 3})
    assert (set(made.failed), made.done, made.again) == ({"t00"}, ("t01", "t00"), set())
    assert plan(manifest, stored, {"t00": 3}, retry_failed=True).again == {"t00"}
    assert plan(manifest, stored, {"t00": 5}).again == {"t00"}


def test_what_failed_to_be_done_again_keeps_its_features_until_it_is_retried(manifest: Manifest) -> None:
    stored = {"t00": b"aaa"}
    made = plan(manifest, stored, {"t00": 3})
    assert (set(made.failed), made.done, made.again) == ({"t00"}, ("t00",), set())
    made = plan(manifest, stored, {"t00": 3}, retry_failed=True)
    assert (made.again, made.changed, made.generation) == ({"t00"}, (), 1)
    (task,) = (task for task in made.tasks if task.track_id == "t00")
    assert (task.attempts, task.keeps) == (2, SHA.hex())
    assert set(made.retried) == {"t00"}


def test_a_failure_ends_when_the_former_audio_is_back(manifest: Manifest) -> None:
    made = plan(manifest, {"t00": b"aaa"}, {"t00": 99})
    assert ([failure.track_id for failure in made.settled], made.failed, made.done) == (["t00"], {}, ("t00",))


def test_to_accept_cut_audio_tries_again_what_failed_as_audio(manifest: Manifest) -> None:
    failed = {"t00": 3, "t01": 3}
    assert set(plan(manifest, {}, failed).failed) == {"t00", "t01"}
    assert plan(manifest, {}, failed, accept_cut=True).failed == {}
    crash = Failure("t00", "t00", "worker", "crashed", 3)
    assert not Selection(accept_cut=True).tries_again(crash)
    assert Selection(retry_failed=True).tries_again(crash)


def test_overwriting_goes_on_where_it_was_interrupted_and_otherwise_begins_anew(manifest: Manifest) -> None:
    stored = {f"t{i:02d}": b"aaa" for i in (0, 1, 2)}
    made = plan(manifest, stored, generations={"t00": 1}, begun=1, overwrite=True)
    assert (made.done, made.again, made.generation) == (("t00",), {"t01", "t02"}, 1)
    # Records of two generations come of changed audio, too.
    mixed = plan(manifest, stored, generations={"t00": 1}, overwrite=True)
    assert (mixed.done, mixed.again, mixed.generation) == ((), set(stored), 2)
    changed = plan(manifest, {**stored, "t00": b"aaaa"}, generations={"t00": 1}, begun=1, overwrite=True)
    assert (changed.again, changed.generation) == (set(stored), 2)


def test_an_interrupted_overwrite_is_known_by_its_file(tmp_path: Path) -> None:
    whole, half = Part(), Part(1, 2)
    assert overwriting.begun(tmp_path, whole) is None
    overwriting.begin(tmp_path, whole, 3)
    assert (overwriting.begun(tmp_path, whole), overwriting.begun(tmp_path, half)) == (3, None)
    overwriting.end(tmp_path, whole)
    overwriting.end(tmp_path, whole)
    assert overwriting.begun(tmp_path, whole) is None
    (tmp_path / "overwrite-0-of-1.json").write_text('{"generation": "3"}')
    with pytest.raises(DataError, match=r"overwrite-0-of-1\.json: generation is '3'"):
        overwriting.begun(tmp_path, whole)


def test_what_may_be_of_other_audio_is_compared(manifest: Manifest) -> None:
    stored = {"t00": b"aaa", "t01": b"bbb", "t02": b"bbb", "t03": b"aaa"}
    here = np.full(12, 7, np.uint64)
    heard = here.copy()
    unknown = np.zeros((12, 32), np.uint8)
    heard[:2] = UNKNOWN
    made = plan(manifest, stored, standing=Standing(heard, unknown, here))
    assert (made.done, made.changed) == (("t00", "t02", "t03"), ("t01",))  # t02 is taken to be what it was
    assert made.confirmed.tolist() == [i != 1 for i in range(12)]
    heard[:] = UNKNOWN
    unsure = plan(manifest, stored, standing=Standing(heard, unknown, here))
    assert (unsure.done, unsure.changed) == (("t00", "t03"), ("t01", "t02"))
    assert (unsure.unheard, unsure.doubtful) == (1, 1)
    assert np.flatnonzero(~unsure.confirmed).tolist() == [1, 2, 3]
    heard[:] = FOREIGN
    known = unknown.copy()
    known[:4] = np.frombuffer(SHA, "u1")
    other = plan(manifest, stored, standing=Standing(here, known, here))  # made with other settings, of other audio
    assert (other.done, other.changed) == (("t00", "t03"), ("t01", "t02"))
    learned = other.learn(Standing(here, known, here))
    assert (learned.heard[1:3].tolist(), learned.audio[1:3].any()) == ([UNKNOWN, UNKNOWN], False)
    sealed = other.sealed({"t01"}, manifest.tracks, index_of({**stored, "t01": b"aaa"}))
    assert np.flatnonzero(~sealed.confirmed).tolist() == [2]
    foreign = plan(manifest, stored, standing=Standing(heard, unknown, here))
    assert (foreign.done, [track.track_id for track in foreign.missing]) == (("t00",), ["t03"])


def test_audio_that_cannot_be_looked_at_is_neither_changed_nor_missing(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: Path, **how: Any) -> os.stat_result:
        number = {"t00": errno.EIO, "t01": errno.ESTALE, "t04": errno.EACCES, "t05": errno.ENOTDIR}.get(Path(path).name)
        if number:
            raise OSError(number, os.strerror(number))
        return real(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    stored = dict.fromkeys(("t00", "t01", "t02", "t03"), b"aaa")
    made = plan(manifest, stored)
    assert sorted(made.done) == ["t00", "t01", "t02", "t03"]
    assert (made.unheard, made.changed) == (3, ())
    assert [(track.track_id, reason) for track, reason in made.unreadable] == [("t04", "Permission denied")]
    assert [track.track_id for track in made.missing] == ["t05"]


def test_audio_whose_content_cannot_be_read_is_not_changed(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def opened(path: Path, *how: Any) -> Any:
        if path.name == "t01":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *how)

    monkeypatch.setattr(Path, "open", opened)
    made = plan(manifest, {"t00": b"bbb", "t01": b"aaa", "t02": b"aaa"}, check_audio=True)
    assert (sorted(made.done), made.unheard, made.changed) == (["t01", "t02"], 1, ("t00",))


@pytest.mark.parametrize(("changed", "of", "asks"), [(1, 4, False), (1, 11, False), (2, 11, True), (11, 11, True)])
def test_much_changed_audio_at_once_is_a_question(manifest: Manifest, changed: int, of: int, asks: bool) -> None:
    names = [f"t{i:02d}" for i in range(12) if i != 3][:of]
    stored = {name: b"aaaa" if i < changed else b"aaa" for i, name in enumerate(names)}
    assert plan(manifest, stored).is_suspicious(False) == asks


def test_parts_share_out_every_track_and_the_limit_is_of_the_whole(manifest: Manifest) -> None:
    for n in (1, 2, 5):
        parts = [plan(manifest, {"t07": b"aaa"}, part=Part(i, n), limit=9) for i in range(n)]
        assert sorted(name for part in parts for name in ids(part)) == [
            f"t{i:02d}" for i in range(10) if i not in (3, 7)
        ]
        assert sorted(name for part in parts for name in part.done) == ["t07"]
        assert len([track for part in parts for track in part.missing]) == 1


def test_a_part_depends_on_nothing_but_the_id_and_is_fair() -> None:
    names = [f"track_{i:07d}" for i in range(20_000)]
    counts = [sum(name in Part(i, 8) for name in names) for i in range(8)]
    assert sum(counts) == 20_000
    assert max(counts) - min(counts) < 300  # 2,500 each; the sd of a fair draw is 47
    assert [("track_0000000" in Part(i, 8)) for i in range(8)].index(True) == 2  # for ever: caches rely on it


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "2/2", "-1/2", "0/0", "a/b", "1/2/3", "0.5/2"])
def test_what_is_not_a_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"part|i/n"):
        Part.parse(text)


def slurm(task: int, count: int, first: int, last: int, step: int = 1) -> dict[str, str]:
    numbers = {"ID": task, "COUNT": count, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


def test_the_environment_says_which_part() -> None:
    def part(environment: dict[str, str]) -> str:
        found = Part.from_environment(environment)
        assert found
        return str(found[0])

    assert Part.from_environment({}) is None
    assert Part.from_environment({"SLURM_JOB_ID": "5", "WORLD_SIZE": "4"}) is None
    assert [part(slurm(i, 4, 0, 3)) for i in range(4)] == ["0/4", "1/4", "2/4", "3/4"]
    assert [part(slurm(i, 3, 1, 3)) for i in (1, 2, 3)] == ["0/3", "1/3", "2/3"]  # --array=1-3
    assert [part(slurm(i, 3, 10, 20, 5)) for i in (10, 15, 20)] == ["0/3", "1/3", "2/3"]  # --array=10-20:5
    assert part({"RANK": "1", "WORLD_SIZE": "2"}) == "1/2"
    assert part({**slurm(2, 4, 0, 3), "RANK": "0", "WORLD_SIZE": "1"}) == "2/4"
    for uneven in (slurm(7, 3, 1, 7), slurm(2, 3, 1, 7), {"RANK": "2", "WORLD_SIZE": "2"}):  # --array=1,2,7
        with pytest.raises(ValueError, match=r"evenly|part"):
            Part.from_environment(uneven)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_COUNT is not set"),
        ({**slurm(0, 4, 0, 3), "SLURM_ARRAY_TASK_ID": "three"}, "SLURM_ARRAY_TASK_ID is 'three', no whole number"),
        ({**slurm(0, 4, 0, 3), "SLURM_ARRAY_TASK_STEP": "0"}, "SLURM_ARRAY_TASK_STEP is 0"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is not set"),
        ({"RANK": "1.5", "WORLD_SIZE": "2"}, "RANK is '1.5'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "counted from 0"),
    ],
)
def test_variables_that_make_no_parts_are_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Part.from_environment(environment)


def test_of_several_writers_failures_the_latest_attempt_counts(tmp_path: Path) -> None:
    record_failure(tmp_path, Failure("a", "a.wav", "audio", "second", 3, attempts=2))
    record_failure(tmp_path, Failure("b", "b.wav", "audio", "known", 3))
    other = tmp_path / "failures-elsewhere-1.jsonl"
    other.write_text(
        '{"track_id": "a", "path": "a.wav", "stage": "audio", "reason": "first", "audio_bytes": 3, "attempts": 1}\n'
        '{"track_id": "c", "path": "c.wav", "stage": "audio", "reason": "old form", "audio_bytes": 3}\n'
        '{"track_id": ["d"], "path": "", "stage": "", "reason": "", "audio_bytes": 3}\n'
        '{"track_id": "e", "pa'
    )
    failures = read_failures(tmp_path, {"b": bytes(32)})
    assert {track_id: (failure.reason, failure.attempts) for track_id, failure in failures.items()} == {
        "a": ("second", 2),
        "c": ("old form", 1),
    }


def test_a_failure_stands_until_there_are_newer_features_or_it_is_settled(tmp_path: Path) -> None:
    old, new = bytes(32), SHA
    failure = Failure("a", "a.wav", "audio", "no music", 3, 2, old.hex())
    record_failure(tmp_path, failure)
    assert read_failures(tmp_path, {"a": old}) == read_failures(tmp_path, {}) == {"a": failure}
    assert read_failures(tmp_path, {"a": new}) == {}
    settle_failure(tmp_path, failure)
    for kept in ({"a": old}, {}):
        assert read_failures(tmp_path, kept) == {}
    assert read_failures(tmp_path)["a"].attempts == 2
    again = replace(failure, attempts=3)
    record_failure(tmp_path, again)
    assert read_failures(tmp_path, {"a": old}) == {"a": again}


@pytest.mark.parametrize("part", [(0, 0), (1, 1), (-1, 2), (True, 2), ("0", "2"), (0.5, 2)])
def test_parts_check_themselves(part: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="counted from 0 to N - 1"):
        Part(*part)


@pytest.mark.parametrize("how", [{"limit": 0}, {"limit": True}, {"limit": "5"}, {"part": (0, 2)}])
def test_selections_check_themselves(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(how))} is .*; it must be"):
        Selection(**how)
