from pathlib import Path

import pytest

from m2e.manifests.track import Manifest, Track, ValenceArousal


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
    frame = manifest.frame()
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
    frame = Manifest("mine", "", (Track("a", Path("a.mp3")),), names).frame()
    assert list(frame.columns) == ["path", "split", "clip_group", "artist", "valence", "arousal", *names]
