"""What there is to say of a track's audio stands beside its features."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import FeatureCache, FeatureWriter, write_labels
from m2e.cache.care.merge import merge
from m2e.cache.care.pack import pack
from m2e.cache.cli import main
from m2e.cache.folders import features_folder
from m2e.cache.notes import NOTE_KINDS, Note, read_notes, record_notes

LABELS = make_labels("deam", "D", 4)
CUT, RATE = Note("cut", (4.8, 12.0)), Note("rate", (11_127.0,))
EVERY = (
    Note("cut", (4.81,)),
    CUT,
    Note("damaged", (0.5, 12.0)),
    Note("silent"),
    Note("cancels", (2.0,)),
    Note("clipped", (0.25,)),
    Note("offset", (-0.1,)),
    Note("streams", (3.0, 2.0)),
    RATE,
    Note("changes", (1.0,)),
)


def noted(folder: Path) -> Path:
    """A cache of four tracks, the first of which has two notes, and the second one."""
    write_labels(folder, LABELS)
    with FeatureWriter(folder, CONFIG) as writer:
        for track_id, notes in zip(LABELS.track_ids, ((CUT, RATE), (CUT,), (), ()), strict=True):
            writer.add(replace(random_track(track_id), notes=notes))
    return folder


@pytest.mark.parametrize("note", EVERY, ids=str)
def test_a_note_is_a_line_and_comes_back_as_it_was(note: Note) -> None:
    assert str(note).startswith(f"{note.kind}: ")
    assert "\n" not in str(note)
    values = json.loads(json.dumps(note.as_json()))
    assert values["text"] == str(note)
    assert Note.from_json(values) == note


def test_every_kind_has_its_words() -> None:
    assert {note.kind for note in EVERY} == set(NOTE_KINDS)
    assert str(CUT) == "cut: 4.8 of 12.0 s"
    assert str(EVERY[2]) == "damaged: 0.5 s of 12.0 s could not be decoded"


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("loud", ()),
        ("cut", ()),
        ("cut", (1.0, 2.0, 3.0)),
        ("silent", (1.0,)),
        ("rate", (math.nan,)),
        ("rate", ("fast",)),
        ("rate", [44_100.0]),
        (["cut"], (1.0,)),
    ],
)
def test_a_note_checks_itself(kind: object, numbers: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Note(kind, numbers)  # type: ignore[arg-type]


def test_tracks_keep_their_notes_when_they_are_packed_and_merged(tmp_path: Path) -> None:
    folder = noted(tmp_path / "deam")
    expected = {"t0000": (CUT, RATE), "t0001": (CUT,)}
    assert FeatureCache.open(folder).notes == expected
    pack(features_folder(folder, CONFIG))
    assert FeatureCache.open(folder).notes == expected
    merge([folder], tmp_path / "target")
    assert FeatureCache.open(tmp_path / "target").notes == expected
    assert CliRunner().invoke(main, ["verify", str(folder)]).exit_code == 0


def test_a_note_is_of_the_audio_that_was_heard(tmp_path: Path) -> None:
    folder = features_folder(noted(tmp_path / "deam"), CONFIG)
    record_notes(folder, "t0002", b"\0" * 32, [CUT])
    record_notes(folder, "gone", b"\1" * 32, [CUT])
    assert set(FeatureCache.open(tmp_path / "deam").notes) == {"t0000", "t0001"}
    with FeatureWriter(tmp_path / "deam", CONFIG, generation=1) as writer:
        writer.add(replace(random_track("t0000", seed=99), audio_bytes=77))  # other audio, of which nothing is to say
    assert set(FeatureCache.open(tmp_path / "deam").notes) == {"t0001"}


def test_broken_and_newer_lines_are_passed_over(tmp_path: Path) -> None:
    digest = b"\7" * 32
    record_notes(tmp_path, "a", digest, [CUT])
    values = {"track_id": "b", "audio_sha256": digest.hex(), "notes": [CUT.as_json()]}
    for changed in (
        {"notes": [{"kind": "haunted", "numbers": []}]},
        {"notes": [{"kind": "cut", "numbers": ["a", None]}]},
        {"notes": "cut"},
        {"audio_sha256": 7},
        {"track_id": None},
    ):
        with (tmp_path / "notes-elsewhere-1.jsonl").open("a") as file:
            file.write(json.dumps(values | changed) + "\n")
    with (tmp_path / "notes-elsewhere-1.jsonl").open("a") as file:
        file.write('[1]\n\x00\n{"track_id": "half a li')
    assert read_notes(tmp_path, {"a": digest, "b": digest}) == {"a": (CUT,)}


def test_info_counts_and_lists_them(tmp_path: Path) -> None:
    folder = noted(tmp_path / "deam")
    (group,) = json.loads(CliRunner().invoke(main, ["info", str(folder), "--json"]).stdout)["features"]
    assert group["notes"] == {"cut": 2, "rate": 1}
    assert group["noted"][0] == {"track_id": "t0000", "notes": [CUT.as_json(), RATE.as_json()]}
    text = CliRunner().invoke(main, ["info", str(folder)], catch_exceptions=False).stdout
    assert "t0000: cut: 4.8 of 12.0 s; rate: its sample rate is 11127 Hz" in text
    plain = make_cache(tmp_path / "plain", LABELS)
    lines = CliRunner().invoke(main, ["info", str(plain)]).stdout.splitlines()
    assert [line.split() for line in lines if line.strip().startswith("note")] == [["notes", "-"]]
