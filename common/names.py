"""Files that are there under a name that is spelt a little otherwise: in another Unicode form, or in another case.

What a Mac or an archive has written in decomposed form ("e" and an accent), a table often holds in composed form; and
"a.wav" may be "a.WAV". Two files whose names differ in nothing else are never taken for each other.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from functools import cached_property
from pathlib import Path

# A link to a link to a link: more than anybody makes.
_MOST_LINKS = 8
# Comparing a name with so many takes a second.
_MOST_COMPARED = 20_000


def folded(name: str) -> str:
    """A name without its Unicode form and its case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Names:
    """Names of files and folders; each folder is read once, so that a million names can be looked up."""

    def __init__(self) -> None:
        self._folders: dict[Path, _Folder] = {}

    def find(self, path: Path) -> Path | None:
        """The path itself where something is there; else the only one that is spelt like it; else None."""
        return self._find(path, _MOST_LINKS)

    def _find(self, path: Path, links: int) -> Path | None:
        if os.path.exists(path):  # noqa: PTH110 - half the time of Path.exists
            return path
        if path.parent == path or not links:
            return None
        home = self._find(path.parent, links)
        if home is None:
            return None
        names = self._folder(home).by_folded.get(folded(path.name), ())
        found = home / names[0] if len(names) == 1 else None
        if found is None or os.path.exists(found):  # noqa: PTH110
            return found
        try:  # a link whose own target may be spelt otherwise
            return self._find(home / found.readlink(), links - 1)
        except OSError:
            return None

    def nearest(self, path: Path) -> Path | None:
        """What is there and is called most like `path`, which is not there; None where nothing is."""
        home, missing = path.parent, path.name
        while (found := self.find(home)) is None and home.parent != home:
            home, missing = home.parent, home.name
        folder = self._folder(found or home)
        near = difflib.get_close_matches(folded(missing), [*folder.by_folded][:_MOST_COMPARED], n=1)
        return (found or home) / folder.by_folded[near[0]][0] if near else None

    def _folder(self, path: Path) -> _Folder:
        if path not in self._folders:
            self._folders[path] = _Folder(path)
        return self._folders[path]


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def by_folded(self) -> dict[str, list[str]]:
        """Its names by what they are without form and case; none where it cannot be read."""
        names: dict[str, list[str]] = {}
        try:
            for name in sorted(os.listdir(self._path)):  # noqa: PTH208
                names.setdefault(folded(name), []).append(name)
        except OSError:
            pass
        return names


def hint(path: Path) -> str:
    """The end of a message about a file that is not there: "; the nearest is PATH", or "" where nothing is like it."""
    near = Names().nearest(path)
    return f"; the nearest is {near}" if near else ""
