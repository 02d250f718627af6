"""Whether static labels are exchanged, from correlations with dynamic annotations; DEAM's two ways to be read."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from support.official import write_deam, write_deam_dynamic

from m2e.common.errors import DataError
from m2e.common.ratings import MIN_SONGS
from m2e.manifests import Choices, Manifest, ValenceArousal, load
from m2e.manifests.check.swap import SwapCheck, dynamic_means, swap_check
from m2e.manifests.dataset import DEFAULT_CHOICES

REPAIRED = Choices(deam_labels="repaired")
SONGS = range(2, 42)


def deam(
    root: Path, choices: Choices = DEFAULT_CHOICES, ids: Iterable[int] = SONGS, exchanged: bool | None = None
) -> Manifest:
    """DEAM with the songs `ids` and four others; dynamic annotations unless `exchanged` is None."""
    write_deam(root, (*ids, 1001, 2000))
    if exchanged is not None:
        write_deam_dynamic(root, (*ids, 1001, 2000), exchanged)
    return load("deam", root, choices=choices)


def points(manifest: Manifest) -> dict[str, ValenceArousal | None]:
    return {track.track_id: track.valence_arousal for track in manifest.tracks}


def turned(point: ValenceArousal | None) -> ValenceArousal:
    assert point
    return ValenceArousal(point.arousal, point.valence)


def test_figures_are_pearson_correlations() -> None:
    rng = np.random.default_rng(0)
    static = {str(i): ValenceArousal(*rng.uniform(1, 9, 2)) for i in range(60)}
    dynamic = [{str(i): float(rng.normal()) for i in range(10, 70)} for _ in range(2)]
    check = swap_check(static, *dynamic)
    assert check
    assert check.songs == 50
    ids = [str(i) for i in range(10, 60)]
    labels = [[getattr(static[i], name) for i in ids] for name in ("valence", "arousal")]
    means = [[dynamic[k][i] for i in ids] for k in range(2)]
    found = (check.valence_valence, check.valence_arousal, check.arousal_valence, check.arousal_arousal)
    assert found == pytest.approx([np.corrcoef(a, b)[0, 1] for a in labels for b in means])


@pytest.mark.parametrize("exchanged", [False, True])
def test_verdict(exchanged: bool) -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(2, 8, (MIN_SONGS, 2))
    static = {str(i): ValenceArousal(*(row[::-1] if exchanged else row)) for i, row in enumerate(truth)}
    valence, arousal = ({str(i): float(x) for i, x in enumerate(column)} for column in truth.T)
    check = swap_check(static, valence, arousal)
    assert check
    assert check.exchanged is exchanged
    del valence["0"]
    assert swap_check(static, valence, arousal) is None


def test_a_column_that_does_not_vary_decides_nothing() -> None:
    static = {str(i): ValenceArousal(5, 1 + i / 10) for i in range(40)}
    assert swap_check(static, dict.fromkeys(static, 0.1), dict.fromkeys(static, 0.2)) is None
    assert swap_check({}, {}, {}) is None


def test_means_over_rows_of_unequal_length(tmp_path: Path) -> None:
    path = tmp_path / "valence.csv"
    path.write_text("song_id,sample_15000ms,sample_15500ms\n2,-0.5,0.25\n3,.5,\n4,,\n")
    assert dynamic_means(path) == {"2": -0.125, "3": 0.5}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id,x\n2,1\n", "its header does not begin with song_id"),
        ("song_id,x\n2,high\n", "row 2: holds a sample that is not a number from -1 to 1"),
        ("song_id,x\n2,nan\n", "row 2: holds a sample"),
        ("song_id,x\n2,1e999\n", "row 2: holds a sample"),
        ("song_id,x\n2,-1.01\n", "row 2: holds a sample"),
        ("song_id,x\n2,1_0\n", "row 2: holds a sample"),
        ("song_id,x\n2,0.5\n\n2,0.5\n", "row 4: song_id '2' stands twice"),
    ],
)
def test_damaged_dynamic_annotations(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "valence.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=line):
        dynamic_means(path)


@pytest.mark.parametrize("exchanged", [True, None])
def test_deam_is_kept_or_repaired(exchanged: bool | None, tmp_path: Path) -> None:
    kept, repaired = (deam(tmp_path, choices, exchanged=exchanged) for choices in (Choices(), REPAIRED))
    for track_id, point in points(kept).items():
        assert points(repaired)[track_id] == (turned(point) if int(track_id) <= 1000 else point)
    evidence = "as the dynamic annotations show" if exchanged else "without dynamic annotations enough to check"
    assert kept.notes[0].startswith("40 songs (ids 2-1000) carry valence and arousal exchanged")
    assert all(evidence in manifest.notes[0] for manifest in (kept, repaired))
    assert "as distributed; splits" in kept.provenance
    assert "repaired: valence and arousal exchanged for 40 songs" in repaired.provenance
    assert [t.split for t in kept.tracks] == [t.split for t in repaired.tracks]
    assert bool(kept.evidence) is bool(exchanged)


def test_a_corrected_release_is_left_alone(tmp_path: Path) -> None:
    kept, repaired = (deam(tmp_path, choices, exchanged=False) for choices in (Choices(), REPAIRED))
    assert points(kept) == points(repaired)
    assert "right in this file" in repaired.notes[0]
    assert "exchanged for 0 songs" in repaired.provenance


def test_dynamic_annotations_that_tell_nothing(tmp_path: Path) -> None:
    """Neither noise nor a weak correlation is a verdict: the ids decide, and the note says so."""
    write_deam(tmp_path, SONGS)
    for file in write_deam_dynamic(tmp_path, SONGS, exchanged=False):
        header, *rows = file.read_text().splitlines()
        rows[::2] = rows[::2][::-1]
        ids = (row.partition(",")[0] for row in file.read_text().splitlines()[1:])
        shuffled = [f"{i},{row.partition(',')[2]}" for i, row in zip(ids, rows, strict=True)]
        file.write_text("\n".join([header, *shuffled, ""]))
    kept, repaired = (load("deam", tmp_path, choices=choices) for choices in (Choices(), REPAIRED))
    assert points(kept) != points(repaired)
    assert "going by their ids: the dynamic annotations do not tell" in kept.notes[0]
    assert "repaired: valence and arousal exchanged for 40 songs" in repaired.provenance


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((0.92, 0.59, 0.57, 0.94), False),
        ((0.58, 0.96, 0.95, 0.57), True),
        ((0.92, 0.85, 0.57, 0.94), None),
        ((0.79, 0.1, 0.1, 0.94), None),
        ((0.01, 0.02, 0.02, 0.01), None),
        ((-0.95, 0.1, 0.1, -0.95), None),
    ],
)
def test_verdict_needs_clear_figures(figures: tuple[float, float, float, float], verdict: bool | None) -> None:
    assert SwapCheck(100, *figures).exchanged is verdict


def test_songs_that_should_be_right_and_are_not(tmp_path: Path) -> None:
    write_deam(tmp_path, (*SONGS, *range(1001, 1060)))
    write_deam_dynamic(tmp_path, (*SONGS, *range(1001, 1060)), exchanged=True)
    manifest = load("deam", tmp_path, choices=REPAIRED)
    assert "of ids 1001-2058 exchanged: this is not the published file" in manifest.notes[1]
    assert [songs for songs, _ in manifest.evidence] == ["ids 2-1000", "ids 1001-2058"]


def test_real_deam_is_exchanged(reference: Path) -> None:
    root = reference / "data" / "deam"
    kept, repaired = (load("deam", root, choices=choices) for choices in (Choices(), REPAIRED))
    figures = {songs: [round(value, 3) for _, value in values] for songs, values in kept.evidence}
    assert figures == {
        "ids 2-1000": [744, 0.575, 0.956, 0.949, 0.57],
        "ids 1001-2058": [1058, 0.912, 0.556, 0.52, 0.929],
    }
    assert sum(points(kept)[i] != points(repaired)[i] for i in points(kept)) > 700
    assert all(points(kept)[i] == points(repaired)[i] for i in points(kept) if int(i) > 1000)
    emomusic = points(load("emomusic", reference / "data" / "emomusic"))
    pairs = [(points(repaired)[i], point) for i, point in emomusic.items()]
    assert len(pairs) == 744
    for name in ("valence", "arousal"):
        r = np.corrcoef([[getattr(point, name) for point in pair] for pair in pairs], rowvar=False)[0, 1]
        assert r > 0.9997
