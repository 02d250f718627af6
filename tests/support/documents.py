"""Command lines and Python in the documentation, where they stand, and how they are marked.

A fenced block is run as it is written, in a copy of the workspace, unless a comment before it says otherwise:

    <!-- needs downloads -->            weights or data sets that tests do not have
    <!-- not run: the reason -->        anything else
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_MARK = re.compile(r"<!-- (needs downloads|not run: .+) -->")
_FENCE = re.compile(r"^\s*```(\w*)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        path: of the document.
        number: of its first line in it, from 1 on.
        language: what stands after the fence; "" for a plain one.
        mark: why it is not run; "" for one that is.
        text: what it holds.
    """

    path: Path
    number: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.number}"

    @property
    def commands(self) -> list[str]:
        """Command lines, put together where they are continued, without comments."""
        if self.language not in ("", "sh", "bash"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in (_without_comment(line.strip().removeprefix("$ ")) for line in lines) if line]


def _without_comment(line: str) -> str:
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a document."""
    mark = language = ""
    start: int | None = None
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if start is not None and fence:
            yield Block(
                path, start, language, mark, "\n".join(each.strip("\n") for each in lines[start - 1 : number - 1])
            )
            start, mark = None, ""
        elif start is None and fence:
            start, language = number + 1, fence[1]
        elif start is None and (found := _MARK.search(line)):
            mark = found[1]
        elif start is None and line.strip():
            mark = ""


def inline_commands(path: Path) -> Iterator[str]:
    """Code within sentences and tables that begins like one of our commands."""
    outside = re.sub(r"^\s*```.*?^\s*```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`(m2e-[a-z]+ [^`]+)`", outside)


def _lexer(line: str) -> shlex.shlex:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    return lexer


def our_commands(line: str) -> Iterator[list[str]]:
    """The m2e commands of a shell line, with their arguments."""
    words: list[str] = []
    try:
        tokens = list(_lexer(line))
    except ValueError:
        tokens = line.split()
    for token in [*tokens, ";"]:
        if set(token) <= set("|;&<>"):
            if words and re.fullmatch(r"m2e-[a-z]+", words[0]):
                yield words
            words = []
        elif words or "=" not in token:  # variables stand before a command
            words = [*words, token] if words or token not in ("do", "then", "time", "exec") else []
