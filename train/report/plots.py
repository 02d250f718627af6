"""Figures of a report as SVG: learning curves, curves of every tag, predicted against true valence and arousal.

Drawn without pyplot, so that nothing global is touched. Names from data are plain text, never mathematics.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from m2e.train.report.results import Curves
from m2e.train.scoring.metrics import tag_by_tag, valence_arousal_metrics

_STYLE = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "m2e",
}
_BLUE, _ORANGE, _GREY = "#2a6db0", "#c8571b", "#888888"
_WIDTH = 11.2  # inches: the page's width
_LOSSES = {
    "training": (_GREY, "training loss"),
    "tags": (_BLUE, "validation loss, tags"),
    "valence_arousal": (_ORANGE, "validation loss, valence and arousal"),
}
_TAG_COLUMNS, _CURVE_COLUMNS = 7, 3
GRID = np.linspace(0, 1, 101)


def learning_curves(curves: dict[str, Curves]) -> bytes:
    """Training and validation loss of each model; a dot marks the epoch that was chosen."""
    rows = math.ceil(len(curves) / _CURVE_COLUMNS)
    with mpl.rc_context(_STYLE):
        figure = _figure(rows, 2.6, left=0.6, bottom=0.45, wspace=0.22, hspace=0.42)
        panels = figure.subplots(rows, _CURVE_COLUMNS, squeeze=False).ravel()
        for panel in panels[len(curves) :]:
            panel.set_axis_off()
        for panel, (name, curve) in zip(panels, curves.items(), strict=False):
            drawn = {"training": curve.training, **{str(task): losses for task, losses in curve.validation.items()}}
            for kind, losses in drawn.items():
                panel.plot(range(1, len(losses) + 1), losses, color=_LOSSES[kind][0], linewidth=1.3)
            for task, losses in curve.validation.items():
                if losses:
                    best = curve.best_epoch[task]
                    panel.plot(best, losses[best - 1], "o", color=_LOSSES[task][0], markersize=5)
            panel.set_title(name, loc="left", fontweight="bold")
            panel.set_xlabel("epoch")
            _scale(panel, [loss for losses in drawn.values() for loss in losses])
            panel.grid(True, alpha=0.25, linewidth=0.6)
        _legend(figure, list(_LOSSES.values()))
        return _svg(figure)


def _scale(panel: Any, losses: Sequence[float]) -> None:
    """A logarithmic axis for losses, with plain numbers."""
    panel.set_yscale("log")
    wide = max(losses) > 10 * min(losses)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.xaxis.get_major_locator().set_params(integer=True)


def tag_curves(names: Sequence[str], truth: NDArray[np.floating], scores: NDArray[np.floating]) -> bytes:
    """Precision-recall and ROC curves of every tag, the best average precision first [shape=(N, T) both]."""
    each = tag_by_tag(truth, scores)
    order = sorted(range(len(names)), key=lambda i: -each[i][0])
    rows = math.ceil(len(names) / _TAG_COLUMNS)
    with mpl.rc_context(_STYLE):
        figure = _figure(rows, 1.7, left=0.3, bottom=0.3, wspace=0.16, hspace=0.22)
        panels = figure.subplots(rows, _TAG_COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
        for panel in panels[len(names) :]:
            panel.set_axis_off()
        for panel, i in zip(panels, order, strict=False):
            rate = float(truth[:, i].mean())
            average_precision, roc_auc = each[i]
            panel.plot([0, 1], [0, 1], color=_BLUE, linewidth=0.7, linestyle=":")
            panel.axhline(rate, color=_ORANGE, linewidth=0.7, linestyle=":")
            if 0 < rate < 1:
                precision, hit_rate = tag_points(truth[:, i], scores[:, i])
                panel.plot(GRID, hit_rate, color=_BLUE, linewidth=1.2)
                panel.plot(GRID, precision, color=_ORANGE, linewidth=1.2)
            name = names[i] if len(names[i]) <= 13 else f"{names[i][:12]}…"
            panel.set_title(name, loc="left", fontsize=7.5, fontweight="bold", pad=3)
            # Above the panel, for the curves may go anywhere in it.
            for x, value, colour in ((0.8, average_precision, _ORANGE), (1, roc_auc, _BLUE)):
                said = "-" if value is None else f"{value:.2f}"
                panel.text(x, 1.04, said, ha="right", fontsize=7, color=colour, transform=panel.transAxes)
            panel.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            panel.tick_params(labelsize=7)
        _legend(
            figure,
            [
                (_ORANGE, "precision (up) at recall (right), and average precision; dotted: share of positives"),
                (_BLUE, "true positive rate (up) at false positive rate (right), and ROC-AUC; dotted: chance"),
            ],
        )
        return _svg(figure)


def tag_points(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Precision at each recall and true positive rate at each false positive rate of `GRID`."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    false, true, _ = roc_curve(truth, scores)
    # Steps, not slopes: average precision is the area under these. Recall falls along scikit-learn's curve.
    at = np.searchsorted(-recall, -GRID, side="right") - 1
    return precision[at], np.interp(GRID, false, true)


def valence_arousal_scatter(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> bytes:
    """Predicted against true valence and arousal [shape=(N, 2) both]."""
    found = valence_arousal_metrics(truth, predicted)
    r2, rmse = (found.r2_valence, found.r2_arousal), (found.rmse_valence, found.rmse_arousal)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * 0.7, 3.9), layout="constrained")
        for i, (panel, name) in enumerate(zip(figure.subplots(1, 2), ("valence", "arousal"), strict=True)):
            panel.plot([1, 9], [1, 9], color=_GREY, linewidth=0.8)
            # More dots, fainter ones.
            panel.plot(truth[:, i], predicted[:, i], ".", color=_BLUE, alpha=max(0.4, min(0.8, 60 / len(truth))))
            outside = int(((predicted[:, i] < 1) | (predicted[:, i] > 9)).sum())
            panel.set(xlim=(0.8, 9.2), ylim=(0.8, 9.2), xticks=range(1, 10), yticks=range(1, 10), aspect="equal")
            panel.set_xlabel(f"true {name}")
            panel.set_ylabel(f"predicted {name}")
            title = f"R2 {'-' if r2[i] is None else f'{r2[i]:.3f}'}, RMSE {rmse[i]:.3f}"
            panel.set_title(title + (f", {outside} outside 1-9" if outside else ""), loc="left")
            panel.grid(True, alpha=0.25, linewidth=0.6)
        return _svg(figure)


def _figure(rows: int, row: float, left: float, bottom: float, wspace: float, hspace: float) -> Figure:
    """A figure of the page's width for rows of panels `row` inches high; margins in inches, gaps in panels.

    By hand: a layout engine takes seconds for many panels.
    """
    height = 0.65 + row * rows
    figure = Figure(figsize=(_WIDTH, height))
    figure.subplots_adjust(left / _WIDTH, bottom / height, 1 - 0.1 / _WIDTH, 1 - 0.5 / height, wspace, hspace)
    return figure


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    """One legend above all panels: colours and texts."""
    lines = [figure.axes[0].plot([], [], color=colour, label=text)[0] for colour, text in entries]
    figure.legend(
        handles=lines,
        loc="upper left",
        ncols=len(entries),
        frameon=False,
        fontsize=7.5,
    )


def _svg(figure: Figure) -> bytes:
    image = io.BytesIO()
    with warnings.catch_warnings():
        # A name may hold letters that the font lacks: they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()
