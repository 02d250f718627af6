"""Results laid out as tables of text: one for each task of a run, or in the layout of a table of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from m2e.train.config import TASKS, Task
from m2e.train.report.paper import DATASETS, PaperRow, PaperTable
from m2e.train.report.results import AS_PUBLISHED, LEAK_FREE, METRICS, Result

Row = tuple[str, ...]
Block = tuple[Row, ...]

_TITLES: dict[Task, str] = {"tags": "tags", "valence_arousal": "valence (V) and arousal (A)"}
_NOTHING = "-"


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        title: a line above it.
        columns: headings; a line break may divide one.
        blocks: rows, in groups that a line divides.
        texts: how many of the first columns are text; the others are numbers.
    """

    title: str
    columns: Row
    blocks: tuple[Block, ...]
    texts: int

    def parts(self, width: int) -> list[Grid]:
        """Grids of fewer number columns, where one is wider than `width` characters; an even number in each."""
        widest = [
            max(
                len(line)
                for row in (self.columns, *(row for block in self.blocks for row in block))
                for line in row[i].split("\n")
            )
            for i in range(len(self.columns))
        ]
        text, numbers = sum(widest[: self.texts]) + 2 * self.texts, widest[self.texts :]
        per = len(numbers)
        while per > 2 and text + max(sum(numbers[i : i + per]) for i in range(0, len(numbers), per)) + 2 * per > width:
            per -= 2
        return [self._columns(start, start + per) for start in range(self.texts, len(self.columns), per)]

    def _columns(self, start: int, stop: int) -> Grid:
        def cut(row: Row) -> Row:
            return (*row[: self.texts], *row[start:stop])

        blocks = (tuple(map(cut, block)) for block in self.blocks)
        told = (block for block in blocks if any(set(row[self.texts :]) - {_NOTHING} for row in block))
        return replace(self, columns=cut(self.columns), blocks=tuple(told))


def run_grids(results: Sequence[Result]) -> list[Grid]:
    """A grid a task: a block a test set, two rows a model."""
    return [_run_grid(task, rows) for task in TASKS if (rows := [each for each in results if each.task == task])]


def _run_grid(task: Task, results: Sequence[Result]) -> Grid:
    several = any(result.sd for result in results)
    headings = ["test set", "model", "metric", "ours", *["sd"] * several, "paper", "diff", "95 % interval"]
    blocks = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        block: list[Row] = []
        for result in results:
            if result.dataset != dataset:
                continue
            name = dataset if result.test == AS_PUBLISHED else LEAK_FREE
            heads = [(name, result.made.model), (f"{result.tracks} tracks", "")]
            for head, (heading, field) in zip_longest(heads, METRICS[task], fillvalue=("", "")):
                block.append((*head, heading, *_cells(result, field, several)))
        blocks.append(tuple(block))
    trained_on = max((result.made.trained_on for result in results), key=len)
    title = f"Test metrics of {_TITLES[task]}"
    return Grid(
        f"{title}, trained on {'+'.join(trained_on)}" if trained_on else title, tuple(headings), tuple(blocks), 3
    )


def _cells(result: Result, field: str, several: bool) -> Row:
    low, high = result.low(field), result.high(field)
    return (
        number(result.value(field)),
        *([number(result.spread(field))] if several else []),
        number(result.of_paper(field)),
        signed(result.difference(field)),
        _NOTHING if low is None or high is None else f"{low:.3f} to {high:.3f}",
    )


def table_grid(table: PaperTable, results: Sequence[Result]) -> Grid:
    """A table of the paper: its rows and columns; of each row our numbers, their 95 % interval, the paper's and the
    difference, and a second time on the leak-free test tracks where there are leaks."""
    letters = [letter for letter in DATASETS if any(letter in row.results for row in table.rows)]
    columns = [(letter, *metric) for letter in letters for metric in METRICS[_task(letter)][:2]]
    blocks: list[Block] = []
    if table.systems:
        blocks.append(
            tuple(
                (each.name, "paper" if each.in_paper else "other", *map(number, each.result)) for each in table.systems
            )
        )
    for row in table.rows:
        for test in (AS_PUBLISHED, LEAK_FREE):
            found = {letter: _find(results, row, letter, test) for letter in letters}
            if test == AS_PUBLISHED or any(found.values()):
                blocks.append(_block(row, test, columns, found))
    headings = (f"{letter}\n{heading}" for letter, heading, _ in columns)
    return Grid(f"Table {table.numeral} of the paper: {table.title}", (table.heading, "", *headings), tuple(blocks), 2)


def _task(letter: str) -> Task:
    return "tags" if letter == "J" else "valence_arousal"


def _find(results: Sequence[Result], row: PaperRow, letter: str, test: str) -> Result | None:
    for result in results:
        alike = set(result.made.trained_on) == set(row.sets(letter)) and result.made.inputs == row.inputs
        if alike and (result.letter, result.task, result.test) == (letter, _task(letter), test):
            return result
    return None


def _block(row: PaperRow, test: str, columns: Sequence[tuple[str, str, str]], found: dict[str, Result | None]) -> Block:
    def cells(read: Callable[[Result, str], float | None], show: Callable[[float | None], str]) -> Row:
        return tuple(show(read(result, field) if (result := found[letter]) else None) for letter, _, field in columns)

    lines: list[Row] = [("ours", *cells(Result.value, number))]
    if any(result and result.sd for result in found.values()):
        lines.append(("sd", *cells(Result.spread, number)))
    lines += [("95 % from", *cells(Result.low, number)), ("95 % to", *cells(Result.high, number))]
    if test == AS_PUBLISHED:
        pairs = [
            pair
            for letter in dict.fromkeys(name for name, *_ in columns)
            for pair in row.results.get(letter, (None, None))
        ]
        lines += [("paper", *map(number, pairs)), ("difference", *cells(Result.difference, signed))]
    else:
        lines.append(("tracks", *cells(lambda result, _: result.tracks, count)))
    names = [row.name if test == AS_PUBLISHED else f"{row.name}, {LEAK_FREE}", *[""] * (len(lines) - 1)]
    return tuple((name, *line) for name, line in zip(names, lines, strict=True))


def number(value: float | None) -> str:
    """Four digits after the point, as the paper gives them."""
    return _NOTHING if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """The same with its sign."""
    return _NOTHING if value is None else f"{value:+.4f}"


def count(value: float | None) -> str:
    """A number of tracks."""
    return _NOTHING if value is None else f"{value:.0f}"
