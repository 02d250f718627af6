"""m2e-cache plot draws what is in the cache."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.caches import make_cache, make_labels

from m2e.cache import FeatureCache
from m2e.cache.plot import STYLE, draw, plot, summarise


def by_title(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_bars_and_points_are_the_caches(tmp_path: Path) -> None:
    labels = make_labels("deam", "D", 20)
    cache = FeatureCache.open(make_cache(tmp_path / "deam", labels))
    with mpl.rc_context(STYLE):
        figure = draw(summarise(cache))
    axes = by_title(figure)
    assert sum(bar.get_height() for bar in axes["length"].patches) == 20
    (keys,) = (each for title, each in axes.items() if title.startswith("key"))
    found = [key for key in map(cache.key, cache.track_ids) if key]
    assert sum(bar.get_height() for bar in keys.patches) == len(found)
    minor = keys.containers[1]
    assert minor[3].get_height() == sum(str(key) == "A minor" for key in found)
    points = np.concatenate([dots.get_offsets() for dots in axes["labels"].collections])
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(labels.valence_arousal, axis=0))
    (chords,) = (each for title, each in axes.items() if title.startswith("chords"))
    assert 0 < sum(bar.get_height() for bar in chords.patches) <= 100 + 1e-6


def test_tags_are_counted_by_split(tmp_path: Path) -> None:
    labels = make_labels("jamendo", "J", 20, ("calm", "$dark", "epic"))
    cache = FeatureCache.open(make_cache(tmp_path / "jamendo", labels))
    with mpl.rc_context(STYLE):
        figure = draw(summarise(cache))
    axes = by_title(figure)["tracks of each tag"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    totals = dict(zip(labels.tag_names, labels.tags.sum(axis=0).tolist(), strict=True))
    drawn = np.sum([[bar.get_width() for bar in container] for container in axes.containers], axis=0)
    assert dict(zip(names, drawn.tolist(), strict=True)) == totals
    assert drawn.tolist() == sorted(drawn.tolist(), reverse=True)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 5))
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(plot, [str(folder)], catch_exceptions=False).exit_code == 0
    assert Path("deam.png").read_bytes()[:4] == b"\x89PNG"
    result = CliRunner().invoke(plot, [str(folder), "--out", "x.gif"])
    assert result.exit_code == 2
    result = CliRunner().invoke(plot, [str(folder), "--out", "none/x.png"])
    assert result.exit_code == 1
    assert "none/x.png" in result.stderr
