"""Text files from outside, checked before any reader believes them: existence, encoding, columns, numbers, ids, paths.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2e.cache.errors import DataError

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# Not U+0080-009F: one of PMEmo's artists holds such a character.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DECIMAL_ID = re.compile(r"[1-9]\d{0,8}", re.ASCII)


def read_text(path: Path) -> str:
    """The UTF-8 text of `path`, without a byte order mark.

    Raises:
        DataError: no such file, unreadable, empty, or not UTF-8 text.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if b"\0" in raw:
        raise DataError(f"{path}: holds a NUL byte at {raw.index(0)}: it is no UTF-8 text file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8 text") from error
    if not text.strip():
        raise DataError(f"{path}: is empty")
    return text


@dataclass(frozen=True)
class Row:
    """One row of a CSV file.

    `row[column]` is the cell without surrounding white space, or a DataError where it holds control characters.

    Attributes:
        where: "file: row 7", for messages.
        cells: text by column name.
    """

    where: str
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        cell = self.cells[column]
        if _CONTROL.search(cell):
            raise DataError(f"{self.where}: {column} {cell[:80]!r} holds control characters")
        return cell

    def number(self, column: str, low: float, high: float) -> float:
        """The cell as a number in [low, high]; DataError for anything else, NaN and infinities included."""
        text = self[column]
        if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
            raise DataError(f"{self.where}: {column} {text!r} is not a number from {low:g} to {high:g}")
        return float(text)

    def decimal_id(self, column: str) -> str:
        """The cell as an id such as "948", safe as part of a file name; DataError for anything else."""
        if not _DECIMAL_ID.fullmatch(self[column]):
            raise DataError(f"{self.where}: {column} {self[column]!r} is not a positive whole number")
        return self[column]


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file that has `columns`, and maybe others, in any order, under one header line.

    Rows of empty cells, as spreadsheets leave them, are skipped.

    Raises:
        DataError: as `read_text`; rows of unequal length, a doubled or missing column, no row at all.
    """
    import io

    import pandas as pd

    try:
        # The header is read as a row: pandas would rename doubled columns and take a surplus one for an index.
        # Only the python engine tells a cell that is missing from one that is empty.
        table = pd.read_csv(
            io.StringIO(read_text(path)),
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            engine="python",
        )
    except ValueError as error:
        raise DataError(f"{path}: is no CSV file: {' '.join(str(error).split())}") from error
    header, *body = ([cell.strip() if isinstance(cell, str) else None for cell in row] for row in table.to_numpy())
    names = [name or "" for name in header]
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"{path}: lacks the columns {missing}; it needs {list(columns)} and has {names[:20]}")
    doubled = {name for name in names if name and names.count(name) > 1}
    if doubled:
        raise DataError(f"{path}: has more than one column {sorted(doubled)}")
    rows = []
    for number, cells in enumerate(body, start=2):
        if not any(cells):
            continue
        full = [cell for cell in cells if cell is not None]
        if len(full) < len(names):
            raise DataError(f"{path}: row {number} has {len(full)} cells, the header {len(names)}")
        rows.append(Row(f"{path}: row {number}", dict(zip(names, full, strict=True))))
    if not rows:
        raise DataError(f"{path}: has no row below its header")
    return rows


def check_unique(rows: Iterable[Row], column: str) -> None:
    """Raise DataError where two of `rows`, of one file or of several, have the same cell in `column`."""
    first: dict[str, Row] = {}
    for row in rows:
        if first.setdefault(row[column], row) is not row:
            raise DataError(f"{row.where}: {column} {row[column]!r} stands already at {first[row[column]].where}")
