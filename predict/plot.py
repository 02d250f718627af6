"""A picture of one song: its place on the valence-arousal plane, its timeline, its tags and its chords."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m2e.common.errors import DataError, printable
from m2e.predict.result import SongPrediction
from m2e.predict.text import clock

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

SUFFIXES = (".png", ".svg", ".pdf")
VALENCE, AROUSAL, INK, GRID = "#1f6fb4", "#c2571a", "#333333", "#dddddd"
_MOST_TAGS = 8
# Chords shorter than this share of the song get no label: there is no room for one.
_LABELLED = 0.02


def save_plot(prediction: SongPrediction, path: Path) -> None:
    """Write the picture as .png, .svg or .pdf.

    Raises:
        DataError: another suffix, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a plot is one of {', '.join(SUFFIXES)}")
    try:
        timeline_figure(prediction).savefig(path, dpi=110)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def timeline_figure(prediction: SongPrediction) -> Figure:
    """The picture as a figure; a model without valence and arousal, or without tags, has fewer panels."""
    from matplotlib.figure import Figure

    emotion = prediction.emotion
    has_va = emotion.valence is not None
    tags = [tag.name for tag in emotion.likeliest[:_MOST_TAGS]]
    panels = [("va", 3.0)] * has_va + [("tags", 0.45 + 0.28 * len(tags))] * bool(tags) + [("chords", 0.6)]
    figure = Figure(figsize=(11, 1.5 + sum(height for _, height in panels)), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(panels), 2, width_ratios=[1, 2.6], height_ratios=[height for _, height in panels])
    key = f", {prediction.key}" if prediction.key else ""
    name = Path(printable(prediction.song)).name
    # A dollar sign would begin a formula.
    title = f"{name if len(name) <= 80 else name[:79] + '…'} ({clock(prediction.seconds)}{key})"
    if prediction.notes:
        title += f"\n{'; '.join(map(str, prediction.notes))}"
    figure.suptitle(title, color=INK, parse_math=False)
    last = len(panels) - 1
    for row, (kind, _) in enumerate(panels):
        axes = figure.add_subplot(grid[row, 1])
        if kind == "va":
            _draw_plane(figure.add_subplot(grid[row, 0]), prediction)
            _draw_curves(axes, prediction)
        elif kind == "tags":
            _draw_bars(figure.add_subplot(grid[row, 0]), prediction, tags)
            _draw_tags(axes, prediction, tags)
        else:
            _draw_chords(axes, prediction)
        axes.set_xlim(0, prediction.seconds)
        axes.xaxis.set_major_locator(_ticks(prediction.seconds))
        axes.xaxis.set_major_formatter(lambda seconds, _: clock(seconds))
        axes.tick_params(labelbottom=row == last)
    return figure


def _edges(prediction: SongPrediction) -> np.ndarray:
    return np.array([*(moment.start for moment in prediction.timeline), prediction.timeline[-1].end])


def _ticks(seconds: float) -> Locator:
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(next((step for step in (1, 5, 10, 30, 60, 120, 300, 600) if seconds / step <= 10), 3600))


def _draw_curves(axes: Axes, prediction: SongPrediction) -> None:
    for name, colour in (("valence", VALENCE), ("arousal", AROUSAL)):
        whole = getattr(prediction.emotion, name)
        values = [getattr(moment.emotion, name) for moment in prediction.timeline]
        axes.stairs(np.clip(values, 1, 9), _edges(prediction), baseline=None, color=colour, linewidth=2.2, label=name)
        axes.axhline(np.clip(whole, 1, 9), color=colour, linewidth=1, linestyle=":")
    axes.set(ylim=(0.8, 9.2), yticks=[1, 3, 5, 7, 9])
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.set_title("each segment; dotted: the song", loc="left", fontsize=9, color=INK)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9, borderaxespad=0.2)


def _draw_plane(axes: Axes, prediction: SongPrediction) -> None:
    path = np.array([(moment.emotion.valence, moment.emotion.arousal) for moment in prediction.timeline], float)
    path = np.clip(path, 1, 9)
    axes.plot(*path.T, color="#999999", linewidth=1, marker="o", markersize=4, zorder=2)
    assert prediction.emotion.valence is not None
    assert prediction.emotion.arousal is not None
    whole = np.clip([prediction.emotion.valence, prediction.emotion.arousal], 1, 9)
    axes.plot(*whole, marker="o", markersize=11, color=INK, markeredgecolor="white", zorder=3)
    axes.axhline(5, color=GRID, zorder=1)
    axes.axvline(5, color=GRID, zorder=1)
    for x, y, word in ((1.2, 8.7, "tense"), (8.8, 8.7, "excited"), (1.2, 1.3, "sad"), (8.8, 1.3, "calm")):
        axes.text(x, y, word, color="#888888", fontsize=9, ha="left" if x < 5 else "right", va="center")
    axes.set(xlim=(0.8, 9.2), ylim=(0.8, 9.2), xticks=[1, 3, 5, 7, 9], yticks=[1, 3, 5, 7, 9], aspect="equal")
    axes.set_xlabel("valence", color=VALENCE)
    axes.set_ylabel("arousal", color=AROUSAL)


def _draw_bars(axes: Axes, prediction: SongPrediction, tags: list[str]) -> None:
    shown = {tag.name: tag for tag in prediction.emotion.tags}
    for row, tag in enumerate(shown[name] for name in tags):
        axes.barh(row, tag.probability, height=0.7, color=INK if tag.given else "#bbbbbb")
        axes.plot([tag.threshold] * 2, [row - 0.42, row + 0.42], color=AROUSAL, linewidth=2)
    axes.set(xlim=(0, 1), ylim=(len(tags) - 0.5, -0.5), xticks=[0, 0.5, 1])
    axes.set_yticks(range(len(tags)), tags, fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("the song's tags; mark: threshold", loc="left", fontsize=9, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_tags(axes: Axes, prediction: SongPrediction, tags: list[str]) -> None:
    columns = {tag.name: i for i, tag in enumerate(prediction.emotion.tags)}
    order = [columns[name] for name in tags]
    values = np.array([[moment.emotion.tags[i].probability for moment in prediction.timeline] for i in order])
    rows = np.arange(len(tags) + 1) - 0.5
    axes.pcolormesh(_edges(prediction), rows, values, cmap="Greys", vmin=0, vmax=2, edgecolor="white", linewidth=1)
    for row, i in enumerate(order):
        given = [moment for moment in prediction.timeline if moment.emotion.tags[i].given]
        axes.plot([(m.start + m.end) / 2 for m in given], [row] * len(given), "o", markersize=4, color=INK)
    axes.set(ylim=(len(tags) - 0.5, -0.5), yticks=[])
    axes.set_title("each segment: the darker the likelier; dot: over the threshold", loc="left", fontsize=9, color=INK)
    axes.spines[:].set_visible(False)


def _draw_chords(axes: Axes, prediction: SongPrediction) -> None:
    from matplotlib import colormaps

    chords = prediction.chords
    for (start, end), root, label in zip(chords.intervals.tolist(), chords.root, chords.labels, strict=True):
        # Neighbours on the circle of fifths get neighbouring colours.
        colour = colormaps["twilight"]((7 * int(root) % 12) / 12 * 0.999) if root >= 0 else "white"
        axes.axvspan(start, end, facecolor=colour, alpha=0.55, edgecolor="white", linewidth=0.5)
        if end - start >= _LABELLED * prediction.seconds:
            short = label.replace(":min", "m").replace(":", "")
            axes.text((start + end) / 2, 0.5, short, ha="center", va="center", fontsize=7, color=INK, clip_on=True)
    axes.set(yticks=[], ylim=(0, 1))
    axes.set_ylabel("chords,\ncoloured by root", rotation=0, ha="right", va="center", fontsize=9, color=INK)
