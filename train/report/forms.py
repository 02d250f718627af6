"""The forms of a report in which people and scripts read it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from m2e.common.console import console, say
from m2e.common.errors import printable
from m2e.common.files import write_atomically
from m2e.train.report.grids import Grid
from m2e.train.report.report import Report

REPORT_FILE = "report.json"
REPORT_FILES = (REPORT_FILE, "report.csv", "report.md", "report.html")


def as_csv(report: Report) -> str:
    """A line a metric of each result."""
    text, rows = io.StringIO(), list(report.rows())
    writer = csv.DictWriter(text, rows[0] if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(report: Report) -> str:
    """The tables and the facts."""
    lines = [f"# {_markdown(report.title)}", "", *(f"**{_markdown(line)}**\n" for line in report.cautions)]
    for grid in report.grids():
        lines += [f"## {_markdown(grid.title)}", "", _markdown_row(grid.columns)]
        lines.append(_markdown_row([":--" if i < grid.texts else "--:" for i in range(len(grid.columns))]))
        lines += [*(_markdown_row(row) for block in grid.blocks for row in block), ""]
    lines += [f"- {term}: {_markdown(text)}" for term, text in report.facts()]
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> str:
    """report.json, .csv, .md and .html in `folder`; returns the JSON text.

    Raises:
        DataError: they cannot be written.
    """
    text = json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / REPORT_FILE, text.encode())
    write_atomically(folder / "report.csv", as_csv(report).encode())
    write_atomically(folder / "report.md", as_markdown(report).encode())
    # Here, not above: only the page needs matplotlib, which takes a second.
    from m2e.train.report.page import render

    write_atomically(folder / "report.html", render(report).encode())
    return text


def show_report(report: Report) -> None:
    """Print it for people; 80 columns are enough."""
    for grid in report.grids():
        for part in grid.parts(console.width):
            console.print(_rich(part, report.cautions))
    for term, text in report.facts():
        say(f"{term:10} {text}")


def _rich(grid: Grid, cautions: Sequence[str]) -> Table:
    title = [escape(printable(grid.title)), *(f"[bold red]{escape(printable(line))}[/]" for line in cautions)]
    table = Table(title="\n".join(title), box=SIMPLE_HEAD, title_justify="left", collapse_padding=True, pad_edge=False)
    for i, heading in enumerate(grid.columns):
        table.add_column(heading, justify="left" if i < grid.texts else "right", no_wrap=True)
    for block in grid.blocks:
        for row in block:
            table.add_row(*(escape(printable(cell)) for cell in row))
        table.add_section()
    return table


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_markdown(cell) for cell in cells)} |"


def _markdown(text: str) -> str:
    """A line of text as it is: no markup, no HTML, no end of a table's cell."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
