import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m2e.cache import DataError
from m2e.manifests.dataset import Choices, RemoteFile
from m2e.manifests.splits import hash_split
from m2e.manifests.types import Manifest, Track, ValenceArousal

TRACK = Track("a", Path("a.mp3"), "train", frozenset({"calm"}))
MINE = Manifest("mine", "M", (TRACK,), ("calm",))


def test_a_frame_holds_every_track_in_order() -> None:
    manifest = Manifest(
        name="mine",
        letter="",
        tracks=(
            Track("b", Path("b.mp3"), "train", frozenset({"calm"}), None, "mine/b", "Ann"),
            Track("a", Path("a.mp3"), None, frozenset(), ValenceArousal(2.5, 8.0), "mine/a"),
        ),
        tag_names=("calm", "dark"),
    )
    frame = manifest.to_frame()
    assert frame.index.tolist() == ["b", "a"]
    assert frame.index.name == "track_id"
    assert frame["split"].iloc[0] == "train"
    assert frame["split"].isna().tolist() == [False, True]
    assert frame[["calm", "dark"]].to_numpy().tolist() == [[True, False], [False, False]]
    assert frame.loc["a", ["valence", "arousal"]].tolist() == [2.5, 8.0]
    assert frame["valence"].isna().tolist() == [True, False]
    assert frame.loc["b", ["path", "clip_group", "artist"]].tolist() == ["b.mp3", "mine/b", "Ann"]


@pytest.mark.parametrize("names", [(), ("valence",)])
def test_a_frame_of_no_tags_or_of_a_tag_named_like_a_label(names: tuple[str, ...]) -> None:
    frame = Manifest("mine", "", (Track("a", Path("a.mp3")),), names).to_frame()
    assert list(frame.columns) == ["path", "split", "clip_group", "artist", "valence", "arousal", *names]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"track_id": "\x1b[2J"}, "track id"),
        ({"track_id": 5}, "track id 5"),
        ({"audio_path": "a.mp3"}, "audio_path is 'a.mp3'; it must be a Path"),
        ({"split": "Train"}, "split is 'Train'; it must be one of train, validation, test, or None"),
        ({"split": ""}, "split is ''"),
        ({"tags": {"calm"}}, "tags is {'calm'}"),
        ({"tags": "calm"}, "tags is 'calm'"),
        ({"valence_arousal": (5.0, 5.0)}, "valence_arousal is (5.0, 5.0)"),
        ({"clip_group": None}, "clip_group is None"),
        ({"artist": None}, "artist is None"),
    ],
)
def test_tracks_check_themselves(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(TRACK, **change)


@pytest.mark.parametrize("value", [0.9, 9.1, float("nan"), "5", None, True])
def test_ratings_check_themselves(value: Any) -> None:
    for point in ((value, 5.0), (5.0, value)):
        with pytest.raises(ValueError, match="is not on the scale 1-9"):
            ValenceArousal(*point)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"name": name}, "a name has 1-100 printable")
            for name in ("", "../mine", "a/b", ".x", "a\nb", None, "x" * 101)
        ),
        ({"letter": "MM"}, "letter is 'MM'"),
        ({"letter": None}, "letter is None"),
        ({"tracks": [TRACK]}, "tracks must be a tuple of Track"),
        ({"tracks": (TRACK, TRACK)}, "track id 'a' stands twice"),
        ({"tag_names": ("calm", "calm")}, "a tag stands twice"),
        ({"tag_names": ("calm", "")}, "no name"),
        ({"tag_names": "calm"}, "tag_names is 'calm'"),
        ({"tag_names": ("dark",)}, "tags ['calm'] are not among"),
        ({"tracks": (replace(TRACK, tags=frozenset({5})),)}, "are not among"),
        ({"provenance": None}, "provenance is None"),
    ],
)
def test_manifests_check_themselves(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(MINE, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"deam_labels": "Repaired"},
        {"jamendo_split": 5},
        {"jamendo_split": True},
        {"scale": (9.0, 1.0)},
        {"scale": (1.0, float("inf"))},
        {"scale": (-1e308, 1e308)},
        {"scale": 9},
        {"align": ""},
        {"align": None},
    ],
)
def test_choices_check_themselves(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(change))} is .*; it must be"):
        Choices(**change)


def test_other_types_check_themselves() -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        RemoteFile("a", "a", "f" * 63)
    for shares in ((-0.1, 0.5), (0.9, 0.2), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="at most 1 in all"):
            hash_split("a", *shares)
