"""m2e-cache plot: a cache at a glance, drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from m2e.common.console import Command, say
from m2e.common.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from m2e.cache.harmony import Key
    from m2e.cache.reader import FeatureCache

# Tracks read at once: their embeddings come along and are not needed.
_BATCH = 256
_MOST_CHORDS = 24
_SPLITS = {"train": "#999999", "validation": "#1f6fb4", "test": "#c2571a", "": "#d9d9d9"}
STYLE = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}
# Neighbours share all notes but one.
_FIFTHS = ("C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#", "A#", "F")


@click.command(cls=Command, epilog="Example: m2e-cache plot features/deam --out deam.png")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .png, .svg or .pdf.  [default: the data set's name, .png]",
)
@click.option("--features", metavar="PREFIX", help="Which settings, where a folder holds several.")
def plot(folder: Path, out: Path | None, features: str | None) -> None:
    """Draw lengths, keys, chords and labels of a cache's tracks as one picture."""
    import matplotlib as mpl

    from m2e.cache.reader import FeatureCache

    cache = FeatureCache.open(folder, features)
    out = out or Path(f"{cache.labels.dataset}.png")
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise click.BadParameter(f"{out} is none of .png, .svg, .pdf", param_hint="--out")
    if not cache.track_ids:
        raise DataError(f"{folder} holds no features yet: there is nothing to draw")
    with mpl.rc_context(STYLE):
        try:
            draw(summarise(cache)).savefig(out, dpi=110)
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror or error}") from error
    say(f"The picture of {len(cache.track_ids)} tracks is in {out}.")


@dataclass(frozen=True, eq=False)
class Summary:
    """What is drawn of N tracks.

    Attributes:
        title: name, tracks and hours.
        minutes: length of each track [shape=(N,)].
        keys: of each track; None where none was found.
        chord_seconds: how long each chord sounds in all tracks, transposed to C major or A minor.
        splits: of each track; "" for none.
        tag_names: the T tags.
        tags: 0 or 1 [shape=(N, T)].
        valence_arousal: on 1-9, NaN where absent [shape=(N, 2)].
    """

    title: str
    minutes: NDArray[np.float64]
    keys: tuple[Key | None, ...]
    chord_seconds: Counter[str]
    splits: NDArray[np.str_]
    tag_names: tuple[str, ...]
    tags: NDArray[np.uint8]
    valence_arousal: NDArray[np.float32]


def summarise(cache: FeatureCache) -> Summary:
    """Read what is drawn; tracks that left the manifest count without labels."""
    labels = cache.labels
    keys: list[Key | None] = []
    sounding: Counter[str] = Counter()
    for first in range(0, len(cache.track_ids), _BATCH):
        table = cache.load(cache.track_ids[first : first + _BATCH])
        keys += table.keys
        for chords, key in zip(table.chords, table.keys, strict=True):
            seconds = np.diff(chords.intervals, axis=1)[:, 0]
            for label, length in zip(chords.normalise(key).labels, seconds.tolist(), strict=True):
                sounding[label] += length
    row = {track_id: i for i, track_id in enumerate(labels.track_ids)}
    known = np.array([row.get(track_id, -1) for track_id in cache.track_ids])
    there = known >= 0
    tags = np.where(there[:, None], labels.tags[known], 0)
    valence_arousal = np.where(there[:, None], labels.valence_arousal[known], np.nan)
    return Summary(
        title=f"{labels.dataset}: {len(cache.track_ids)} tracks, {cache.hours:.1f} hours",
        minutes=cache.durations / 60,
        keys=tuple(keys),
        chord_seconds=sounding,
        splits=np.array(cache.splits),
        tag_names=labels.tag_names,
        tags=tags,
        valence_arousal=valence_arousal,
    )


def draw(summary: Summary) -> Figure:
    """The picture: lengths, keys and chords on the left, labels on the right."""
    from matplotlib.figure import Figure

    rated = not np.isnan(summary.valence_arousal).all()
    tagged = bool(summary.tag_names)
    right = [["plane", "ratings"]] * rated + [["tags", "tags"]] * tagged
    columns = [["lengths", "chords"], ["keys", "chords"], *right]
    height = max(7.5, 1.5 + 0.17 * len(summary.tag_names))
    figure = Figure(figsize=(4.2 * len(columns), height), layout="constrained")
    figure.suptitle(summary.title)
    axes: dict[str, Axes] = figure.subplot_mosaic([list(row) for row in zip(*columns, strict=True)])
    _draw_lengths(axes["lengths"], summary)
    _draw_keys(axes["keys"], summary)
    _draw_chords(axes["chords"], summary)
    if rated:
        _draw_plane(axes["plane"], summary)
        _draw_ratings(axes["ratings"], summary)
    if tagged:
        _draw_tags(axes["tags"], summary)
        axes["tags"].locator_params(axis="x", integer=True)
    for counts in ("lengths", "keys", *["ratings"] * rated):
        axes[counts].locator_params(axis="y", integer=True)
    return figure


def _draw_lengths(axes: Axes, summary: Summary) -> None:
    axes.hist(summary.minutes, bins=30, color="#555555")
    axes.set(title="length", xlabel="minutes", ylabel="tracks")


def _draw_keys(axes: Axes, summary: Summary) -> None:
    found = Counter(str(key) for key in summary.keys if key)
    for offset, (mode, colour) in enumerate((("major", "#e0a030"), ("minor", "#4a5fa5"))):
        counts = [found[f"{tonic} {mode}"] for tonic in _FIFTHS]
        axes.bar(np.arange(12) + 0.4 * offset - 0.2, counts, width=0.4, color=colour, label=mode)
    without = sum(key is None for key in summary.keys)
    axes.set(title="key, by fifths" + (f" ({without} without)" if without else ""), ylabel="tracks")
    axes.set_xticks(range(12), _FIFTHS)
    axes.margins(y=0.18)
    axes.legend(frameon=False, ncols=2, loc="upper right")


def _draw_chords(axes: Axes, summary: Summary) -> None:
    total = summary.chord_seconds.total()
    labels, seconds = zip(*summary.chord_seconds.most_common(_MOST_CHORDS), strict=True) if total else ((), ())
    axes.bar(range(len(labels)), np.array(seconds) / max(total, 1e-9) * 100, color="#555555")
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
    left = f"; {len(summary.chord_seconds) - len(labels)} more" if len(summary.chord_seconds) > len(labels) else ""
    axes.set(title=f"chords in C major or A minor{left}", ylabel="% of the time")


def _draw_plane(axes: Axes, summary: Summary) -> None:
    for split, colour in _SPLITS.items():
        values = summary.valence_arousal[summary.splits == split]
        if len(values):
            size = 9 if len(summary.splits) > 500 else 25
            axes.scatter(
                values[:, 0], values[:, 1], s=size, alpha=0.6, linewidths=0, color=colour, label=split or "no split"
            )
    axes.axhline(5, color="#dddddd", zorder=0)
    axes.axvline(5, color="#dddddd", zorder=0)
    axes.set(title="labels", xlabel="valence", ylabel="arousal", xlim=(0.8, 9.2), ylim=(0.8, 9.2), aspect="equal")
    axes.set(xticks=range(1, 10), yticks=range(1, 10))
    axes.legend(frameon=False, loc="upper left", fontsize=8, markerscale=2, handletextpad=0.2)


def _draw_ratings(axes: Axes, summary: Summary) -> None:
    bins = np.linspace(1, 9, 25).tolist()
    for name, values, colour in zip(
        ("valence", "arousal"), summary.valence_arousal.T, ("#1f6fb4", "#c2571a"), strict=True
    ):
        axes.hist(values[~np.isnan(values)], bins=bins, histtype="step", linewidth=1.6, color=colour, label=name)
    axes.set(title="labels, each alone", xlabel="on 1-9", ylabel="tracks", xlim=(0.8, 9.2), xticks=range(1, 10))
    axes.margins(y=0.18)
    axes.legend(frameon=False, loc="upper left", ncols=2)


def _draw_tags(axes: Axes, summary: Summary) -> None:
    order = np.argsort(-summary.tags.sum(axis=0), kind="stable")
    left = np.zeros(len(order))
    for split, colour in _SPLITS.items():
        counts = summary.tags[summary.splits == split].sum(axis=0)[order]
        if counts.any():
            axes.barh(range(len(order)), counts, left=left, color=colour, label=split or "no split")
        left = left + counts
    axes.set_yticks(range(len(order)), [summary.tag_names[i] for i in order], fontsize=8)
    axes.set(title="tracks of each tag", xlabel="tracks", ylim=(len(order) - 0.4, -0.6))
    axes.legend(frameon=False, loc="lower right")
