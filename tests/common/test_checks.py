"""Every type of the cache checks itself when it is made; the message gives the value and the accepted form."""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from support.caches import CONFIG, make_labels, random_track

from m2e.cache import ChordSequence, DataError, ExtractionConfig, Key
from m2e.cache.failures import Failure
from m2e.cache.harmony import chord_from_class

LABELS = make_labels("deam", "D", 2)
TAGGED = make_labels("mine", "", 2, ("calm", "dark"))
TRACK = random_track("t1")
FAILURE = Failure("t1", "t1.mp3", "audio", "it is empty", 0)
NOTHING = np.zeros((0, 2), np.float32)


def refused(change: dict[str, Any], message: str, of: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        replace(of, **change)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("encoder", value) for value in ("", None, 5, "a\nb", "\x1b[2J")),
        *(("encoder_revision", value) for value in ("", b"0", "a\u202eb")),
        *(("chords", value) for value in ("", None)),
        *(("chords_revision", value) for value in (None, 0)),
        *(
            ("layers", value)
            for value in ((7, 5), (5, 5), (), [5, 6], (True,), (5.0,), ("5",), (-1,), (1 << 40,), 5, "56")
        ),
        *(("sample_rate", value) for value in (0, -1, 24_000.0, "24000", True, None, 10**9)),
        *(("segment_seconds", value) for value in ("thirty", 0, -1, math.nan, math.inf, 1e-9, True, None, 10**6)),
        *(("min_tail_seconds", value) for value in ("five", -1, math.nan, True)),
        *(("tail", value) for value in ("Keep", "", None, 1, ["keep"])),
        *(("resampler", value) for value in ("bogus", None, {})),
        *(("precision", value) for value in ("float64", None)),
        *(("feature_version", value) for value in (0, 1.0, True, "1")),
    ],
)
def test_extraction_settings(field: str, value: Any) -> None:
    refused({field: value}, f"extraction settings: {field} is {repr(value)[:40]}", CONFIG, DataError)


def test_every_extraction_setting_is_tried_above() -> None:
    (mark,) = test_extraction_settings.pytestmark  # type: ignore[attr-defined]
    assert {field for field, _ in mark.args[1]} == {field.name for field in fields(ExtractionConfig)}


def test_equal_settings_have_one_fingerprint() -> None:
    assert replace(CONFIG, segment_seconds=30).fingerprint == CONFIG.fingerprint
    assert type(replace(CONFIG, min_tail_seconds=5).min_tail_seconds) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track_id": ""}, "track id ''"),
        ({"track_id": None}, "track id None"),
        ({"track_id": "\ud800"}, "track id '\\ud800'"),
        ({"track_id": "x" * 10_000}, "must be 1-64 bytes"),
        ({"embeddings": [[[1.0]]]}, "embeddings are list"),
        ({"embeddings": np.ones((1, 3, 8), np.int64)}, "embeddings are int64"),
        ({"embeddings": np.ones((3, 8), np.float32)}, "(3, 8)"),
        ({"chords": None}, "chords must be a ChordSequence"),
        ({"key": "C major"}, "key a Key or None"),
        ({"duration": math.nan}, "duration is nan"),
        ({"duration": "3"}, "duration is '3'"),
        ({"audio_bytes": -1}, "audio_bytes is -1"),
        ({"audio_bytes": 1.5}, "audio_bytes is 1.5"),
        ({"audio_sha256": "0" * 32}, "it must be 32 bytes"),
    ],
)
def test_features(change: dict[str, Any], message: str) -> None:
    refused(change, message, TRACK, ValueError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "a\x1b"}, "dataset is"),
        ({"letter": 5}, "letter is 5"),
        ({"track_ids": ["a", "b"]}, "track_ids is ['a', 'b']"),
        ({"splits": ("train", "Test")}, "a split is 'Test'"),
        ({"splits": ("train", None)}, "splits is"),
        ({"artist": ("",)}, "artist do not match 2 tracks"),
        ({"tags": np.zeros((2, 1), np.uint8)}, "tags do not match 2 tracks"),
        ({"valence_arousal": [[1.0, 2.0]] * 2}, "valence_arousal do not match"),
        ({"valence_arousal": np.full((2, 2), 9.5, np.float32)}, "reach 9.5 to 9.5"),
        ({"valence_arousal": np.array([[1, np.nan], [5, 5]], np.float32)}, "must both be on 1-9, or both absent"),
        ({"provenance": None}, "provenance is None"),
    ],
)
def test_labels(change: dict[str, Any], message: str) -> None:
    refused(change, message, LABELS, ValueError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag_names": ("calm", "calm")}, "stands twice"),
        ({"tag_names": ("calm", "")}, "no name"),
        ({"tags": np.full((2, 2), 2, np.uint8)}, "tags must be 0 or 1, and reach 2 to 2"),
        ({"tags": np.full((2, 2), 0.5)}, "tags do not match"),
    ],
)
def test_tags(change: dict[str, Any], message: str) -> None:
    refused(change, message, TAGGED, ValueError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track_id": "\x1b"}, "track id"),
        ({"path": None}, "path is None"),
        ({"audio_bytes": -1}, "audio_bytes is -1"),
        ({"attempts": 0}, "attempts is 0; it must be a whole number, 1 or more"),
        ({"attempts": True}, "attempts is True"),
    ],
)
def test_failures(change: dict[str, Any], message: str) -> None:
    refused(change, message, FAILURE, ValueError)


@pytest.mark.parametrize(
    ("tonic", "mode"), [(12, "major"), (-1, "minor"), (0.5, "major"), (True, "major"), (0, "Major"), (0, None)]
)
def test_keys(tonic: Any, mode: Any) -> None:
    with pytest.raises(ValueError, match="tonic must be 0-11 and mode"):
        Key(tonic, mode)


@pytest.mark.parametrize(
    ("intervals", "root", "quality", "message"),
    [
        ([[0, 1]], [259], [0], "root must hold whole numbers"),  # 3, in eight bits
        ([[0, 1]], np.array([259]), [0], "root must hold whole numbers"),
        ([[0, 1]], [0.7], [0], "root must hold whole numbers"),
        ([[0, 1]], [0], [True], "quality must hold whole numbers"),
        ([0, 1], [0], [0], r"intervals have shape \(2,\)"),
        ([[0, 1, 2, 3]], [0, 0], [0, 0], r"intervals have shape \(1, 4\)"),
        ([[0, 1]], [[0]], [0], "root must hold whole numbers"),
    ],
)
def test_chords(intervals: Any, root: Any, quality: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChordSequence(intervals, root, quality)


def test_a_track_may_have_no_chords() -> None:
    assert len(ChordSequence(NOTHING, [], [])) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-1, 170])
def test_chord_classes(number: int) -> None:
    with pytest.raises(ValueError, match="must be 0 to 169"):
        chord_from_class(number)
