"""Predictions as text: a page for one song, a line a song for many, rows of CSV."""

from __future__ import annotations

from collections.abc import Iterator

from m2e.common.console import aligned
from m2e.predict.result import Emotion, SongPrediction

_MOST_TAGS = 3
_MOST_CHORDS = 16


def song_page(prediction: SongPrediction) -> str:
    """One song: the whole, then a line a segment."""
    emotion = prediction.emotion
    rows = [["song", f"{prediction.song} ({clock(prediction.seconds)})"]]
    rows += [["note", str(note)] for note in prediction.notes]
    if emotion.valence is not None and emotion.arousal is not None:
        rows += [["valence", f"{emotion.valence:.2f} on 1-9"], ["arousal", f"{emotion.arousal:.2f} on 1-9"]]
    for i, tag in enumerate(tag for tag in emotion.likeliest if tag.given):
        rows.append(["" if i else "tags", f"{tag.name} {tag.probability:.2f} (given from {tag.threshold:.2f} on)"])
    if emotion.tags and not emotion.likeliest[0].given:
        tag = emotion.likeliest[0]
        rows.append(["tags", f"none; the likeliest is {tag.name} {tag.probability:.2f} (from {tag.threshold:.2f} on)"])
    labels = prediction.chords.labels
    more = f" ... ({len(labels)} in all)" if len(labels) > _MOST_CHORDS else ""
    rows += [["key", str(prediction.key or "-")], ["chords", " ".join(labels[:_MOST_CHORDS]) + more or "-"]]
    timeline = [["time", *_headings(emotion)]]
    for moment in prediction.timeline:
        timeline.append([f"{clock(moment.start)}-{clock(moment.end)}", *_cells(moment.emotion)])
    return f"{aligned(rows)}\n\n{aligned(timeline)}"


def summary_headings(prediction: SongPrediction) -> list[str]:
    """Headings of `summary_row`."""
    return [*_headings(prediction.emotion)[:-1], "key", "tags", "song"]


def summary_row(prediction: SongPrediction) -> list[str]:
    """One song among many; the path last, since it is as long as it likes."""
    *scores, tags = _cells(prediction.emotion)
    return [*scores, str(prediction.key or "-"), tags, prediction.song]


def csv_headings(prediction: SongPrediction) -> list[str]:
    """Headings of `csv_rows`."""
    return ["song", "segment", "start", "end", "key", "valence", "arousal", *(t.name for t in prediction.emotion.tags)]


def csv_rows(prediction: SongPrediction) -> Iterator[list[str]]:
    """The whole song, as segment "all", then its segments, numbered from 1 on; tags as probabilities."""
    parts = [("all", 0.0, prediction.seconds, prediction.emotion)]
    parts += [(str(i), m.start, m.end, m.emotion) for i, m in enumerate(prediction.timeline, start=1)]
    # What no encoding holds must not stop the table.
    song = prediction.song.encode(errors="replace").decode()
    for number, start, end, emotion in parts:
        scores = [emotion.valence, emotion.arousal, *(tag.probability for tag in emotion.tags)]
        values = ["" if value is None else f"{value:.6f}" for value in scores]
        yield [song, number, f"{start:.3f}", f"{end:.3f}", str(prediction.key or ""), *values]


def clock(seconds: float) -> str:
    """Minutes and seconds, as players show them."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _headings(emotion: Emotion) -> list[str]:
    return [*(["valence", "arousal"] if emotion.valence is not None else []), "tags"]


def _cells(emotion: Emotion) -> list[str]:
    scores = [f"{value:.2f}" for value in (emotion.valence, emotion.arousal) if value is not None]
    given = [f"{tag.name} {tag.probability:.2f}" for tag in emotion.likeliest if tag.given]
    return [*scores, ", ".join(given[:_MOST_TAGS]) or "-"]
