"""Where predictions go: each form takes them one by one, and ends when the last one is in."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Protocol

import click

from m2e.common.console import aligned
from m2e.common.errors import printable
from m2e.predict.result import SongPrediction
from m2e.predict.text import csv_headings, csv_rows, song_page, summary_headings, summary_row


class Output(Protocol):
    """Takes predictions in order.

    Attributes:
        notes_apart: people would not see notes on a song in it, and are told otherwise.
    """

    notes_apart: bool

    def add(self, prediction: SongPrediction) -> None: ...

    def finish(self) -> None: ...


class Page:
    """One song in full on standard output, and as a picture where a path is given for one."""

    notes_apart = False

    def __init__(self, plot: Path | None) -> None:
        self._plot = plot

    def add(self, prediction: SongPrediction) -> None:
        click.echo(song_page(prediction))
        if self._plot:
            from m2e.predict.plot import save_plot

            save_plot(prediction, self._plot)

    def finish(self) -> None:
        return None


class Summary:
    """A line a song, as a table that is printed at the end: only then are its widths known."""

    notes_apart = True

    def __init__(self) -> None:
        self._rows: list[list[str]] = []

    def add(self, prediction: SongPrediction) -> None:
        if not self._rows:
            self._rows.append(summary_headings(prediction))
        self._rows.append(summary_row(prediction))

    def finish(self) -> None:
        if self._rows:
            click.echo(aligned(self._rows))


class JsonLines:
    """An object a song on standard output."""

    notes_apart = True

    def add(self, prediction: SongPrediction) -> None:
        click.echo(json.dumps(prediction.as_json()))

    def finish(self) -> None:
        return None


class Csv:
    """Rows on standard output, under one heading; names as they are, but on a terminal, which would obey them."""

    notes_apart = True

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._shown = printable if sys.stdout.isatty() else str
        self._begun = False

    def add(self, prediction: SongPrediction) -> None:
        rows = [] if self._begun else [csv_headings(prediction)]
        self._begun = True
        self._writer.writerows([self._shown(cell) for cell in row] for row in (*rows, *csv_rows(prediction)))

    def finish(self) -> None:
        sys.stdout.flush()
