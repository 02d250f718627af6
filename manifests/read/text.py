"""Text files from outside, checked before any reader believes them: size, encoding, columns, numbers, ids.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from m2e.common.errors import DataError
from m2e.common.regular import open_regular

# Above any real file (a million tracks in one table are about 100 MB), and low enough that a forged one cannot take the
# memory.
MAX_BYTES = 512 << 20
MAX_LINE = 1 << 18
MAX_LINES = 2_000_000
_BLOCK = 1 << 20
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# Not U+0080-009F: one of PMEmo's artists holds such a character.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DECIMAL_ID = re.compile(r"[1-9]\d{0,8}", re.ASCII)


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file, with their ends, which are those that CSV knows, without a byte order mark.

    The whole file is checked before the first line is given, and never held in memory.

    Raises:
        DataError: no such file, unreadable, empty, or not UTF-8 text; larger than any table of tracks, or lines longer
            or more than in one.
    """
    try:
        with io.BufferedReader(open_regular(path)) as raw:
            _check(path, raw)
            raw.seek(0)
            # The check was strict: what is replaced here came in since.
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
            for number in itertools.count(1):
                line = file.readline(MAX_LINE + 1)
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}: line {number} has over {MAX_LINE:,} characters: it is no table of tracks")
                if not line:
                    return
                yield line
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _check(path: Path, raw: BinaryIO) -> None:
    """Raise DataError unless all that `raw` holds is UTF-8 text of a size that a table may have."""
    if os.fstat(raw.fileno()).st_size > MAX_BYTES:
        raise DataError(f"{path}: is larger than {MAX_BYTES >> 20} MiB: it is no table of tracks")
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = lines = 0
    blank, last = True, b""
    while block := raw.read(_BLOCK):
        if b"\0" in block:
            raise DataError(f"{path}: holds a NUL byte at {start + block.index(0)}: it is no UTF-8 text file")
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, start - pending + error.start) from error
        start += len(block)
        lines += block.count(b"\n") + block.count(b"\r") - (last + block).count(b"\r\n")
        last = block[-1:]
        blank = blank and not text.strip(" \t\r\n\ufeff")
        if lines > MAX_LINES:
            raise DataError(f"{path}: has over {MAX_LINES:,} lines: it is no table of tracks")
    if pending := len(decoder.getstate()[0]):
        raise _not_utf8(path, start - pending)
    if blank:
        raise DataError(f"{path}: is empty")


def _not_utf8(path: Path, byte: int) -> DataError:
    return DataError(f"{path}: byte {byte} is not UTF-8: save the file as UTF-8 text")


def number(text: str, low: float, high: float) -> float | None:
    """The number that `text` writes in decimal, where it is in [low, high]; None for anything else."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if low <= value <= high else None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a CSV file.

    `row[column]` is the cell without surrounding white space, or a DataError where it holds control characters.

    Attributes:
        path: of the file.
        position: as a spreadsheet numbers rows.
        columns: name -> index in `cells`, of the columns that were asked for.
        cells: their texts.
    """

    path: Path
    position: int
    columns: Mapping[str, int]
    cells: tuple[str, ...]

    @property
    def where(self) -> str:
        """ "file: row 7", for messages."""
        return f"{self.path}: row {self.position}"

    def __getitem__(self, column: str) -> str:
        cell = self.cells[self.columns[column]]
        if CONTROL.search(cell):
            raise DataError(f"{self.where}: {column} {cell[:80]!r} holds control characters")
        return cell

    def number(self, column: str, low: float, high: float) -> float:
        """The cell as a number in [low, high]; DataError for anything else, NaN and infinities included."""
        text = self[column]
        value = number(text, low, high)
        if value is None:
            hint = " (decimals are written with a point)" if "," in text else ""
            raise DataError(f"{self.where}: {column} {text[:80]!r} is not a number from {low:g} to {high:g}{hint}")
        return value

    def decimal_id(self, column: str) -> str:
        """The cell as an id such as "948", safe as part of a file name; DataError for anything else."""
        if not _DECIMAL_ID.fullmatch(self[column]):
            raise DataError(f"{self.where}: {column} {self[column][:80]!r} is not a positive whole number")
        return self[column]


@dataclass(frozen=True)
class Table:
    """A CSV file.

    Attributes:
        columns: all names of the header.
        rows: at least one.
        preamble: the cells of the line above the header, after its first; empty where there is none.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    preamble: tuple[str, ...] = ()


def read_cells(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV file as lists of cells, one after the other; blank lines are empty lists.

    Raises:
        DataError: as `read_lines`; broken quotes, or a cell of over 131,072 characters.
    """
    reader = csv.reader(read_lines(path), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}: is no CSV file: line {reader.line_num}: {error}") from error


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = (), mark: str = "") -> Table:
    """A CSV file that has `columns`, and maybe others, in any order, under one header line.

    Rows of empty cells, as spreadsheets leave them, are skipped, and so are empty cells at the end of a row.

    Args:
        columns: must be there.
        optional: are read where they are there.
        mark: a first line that begins with this cell is the preamble.

    Raises:
        DataError: as `read_cells`; rows of unequal length, a column that is doubled, missing or spelt otherwise, no row
            at all.
    """
    numbered = enumerate(([cell.strip() for cell in cells] for cells in read_cells(path)), start=1)
    _, names = next(numbered)
    preamble: tuple[str, ...] = ()
    if mark and names[:1] == [mark]:
        preamble = tuple(cell for cell in names[1:] if cell)
        _, names = next(numbered, (0, []))
    while names and not names[-1]:
        names.pop()
    if odd := [name for name in names if CONTROL.search(name)]:
        raise DataError(f"{path}: the name of a column, {odd[0][:80]!r}, holds control characters")
    for name in (*columns, *optional):
        if name not in names and (near := [other for other in names if other.casefold() == name.casefold()]):
            raise DataError(f"{path}: its column {near[0]!r} should be called {name!r}")
    missing = [name for name in columns if name not in names]
    if missing:
        hint = "; columns are separated by commas" if len(names) == 1 and re.search(r"[;\t|]", names[0]) else ""
        raise DataError(f"{path}: lacks the columns {missing}; it needs {list(columns)} and has {names[:20]}{hint}")
    doubled = [name for name, times in Counter(names).items() if name and times > 1]
    if doubled:
        raise DataError(f"{path}: has more than one column {sorted(doubled)[:20]}")
    wanted = [name for name in (*columns, *optional) if name in names]
    places = [names.index(name) for name in wanted]
    index = {name: i for i, name in enumerate(wanted)}
    rows = []
    for number, cells in numbered:
        if not any(cells):
            continue
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) != len(names):
            raise DataError(f"{path}: row {number} has {len(cells)} cells, the header {len(names)}")
        rows.append(Row(path, number, index, tuple(cells[i] for i in places)))
    if not rows:
        raise DataError(f"{path}: has no row below its header")
    return Table(tuple(names), rows, preamble)


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of `read_table`."""
    return read_table(path, columns).rows


def check_unique(rows: Iterable[Row], column: str) -> None:
    """Raise DataError where two of `rows`, of one file or of several, have the same cell in `column`."""
    first: dict[str, Row] = {}
    for row in rows:
        if first.setdefault(row[column], row) is not row:
            raise DataError(f"{row.where}: {column} {row[column]!r} stands already at {first[row[column]].where}")
