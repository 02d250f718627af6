"""The picture of a song shows the song's numbers."""

from pathlib import Path

import numpy as np
import pytest

from m2e.cache import ChordSequence, DataError, Key
from m2e.predict.plot import save_plot, timeline_figure
from m2e.predict.result import Emotion, Moment, SongPrediction, TagScore

CHORDS = ChordSequence.from_labels([[0, 20], [20, 70]], ["A:min", "F"])


def emotion(valence: float | None, tags: dict[str, float]) -> Emotion:
    arousal = None if valence is None else 10 - valence
    return Emotion(tuple(TagScore(name, value, 0.5) for name, value in tags.items()), valence, arousal)


def prediction(valences: list[float | None], tags: dict[str, float], song: str = "song.mp3") -> SongPrediction:
    moments = [Moment(30 * i, 30 * i + 30, emotion(valence, tags)) for i, valence in enumerate(valences)]
    return SongPrediction(song, 1, 70.0, Key(9, "minor"), CHORDS, emotion(valences[0], tags), tuple(moments), "0")


def test_curves_points_and_bars_are_the_predictions() -> None:
    figure = timeline_figure(prediction([2.0, 9.5], {"calm": 0.2, "happy": 0.7}))
    curves, plane, cells, bars, _ = figure.axes
    valence, arousal = (patch.get_data() for patch in curves.patches)
    assert valence.values.tolist() == [2, 9]  # clipped to the scale
    assert arousal.values.tolist() == [8, 1]
    assert valence.edges.tolist() == [0, 30, 60]
    np.testing.assert_allclose(plane.lines[1].get_xydata(), [[2, 8]])
    assert [bar.get_width() for bar in bars.patches] == [0.7, 0.2]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["happy", "calm"]
    dots = [line.get_xydata().tolist() for line in cells.lines]
    assert dots == [[[15, 0], [45, 0]], []]


def test_a_model_of_one_task_has_fewer_panels() -> None:
    assert len(timeline_figure(prediction([3.0], {})).axes) == 3
    assert len(timeline_figure(prediction([None], {"calm": 0.4})).axes) == 3


def test_names_are_text_not_formulae(tmp_path: Path) -> None:
    odd = prediction([5.0], {"$\\frac": 0.4, "a_b": 0.6}, "music/$\\frac{1$\x1b.mp3")
    save_plot(odd, tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 10_000


def test_a_plot_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        save_plot(prediction([5.0], {}), tmp_path / "none" / "x.png")
    with pytest.raises(DataError, match=r"one of \.png"):
        save_plot(prediction([5.0], {}), tmp_path / "x.bmp")
