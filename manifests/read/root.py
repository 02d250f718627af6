"""Where the files of a data set are: below its root, one level of nesting forgiven.

An archive may unpack into a folder of its own name, and audio and annotations may come in two of them. Links are
followed, since people keep audio on another disk. What a table names stays below the root by its name, and what is
written stays there by where it really goes.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path, PurePosixPath

from m2e.common.errors import DataError
from m2e.common.names import Names

# More folders than any real path has, and few enough to follow them all in every row of a table.
_DEEPEST = 64


class Place:
    """A data set's root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, Path] = {}  # of tables, that are inside
        self._found: dict[str, list[tuple[Path, frozenset[str]]]] = {}
        self._names = Names()

    def inside(self, named: str, where: str) -> Path:
        """The path of `named`, a cell of a table at `where`: relative to the root, or absolute and below it.

        Raises:
            DataError: it is empty, climbs with "..", or is absolute and elsewhere.
        """
        name = named.rpartition("/")[2]
        folder = named.removesuffix(name)
        plain = name not in ("", ".", "..")
        home = self._folders.get(folder) if plain else None
        path = home / name if home else self._path(named, where)
        if "\\" in named and not path.exists():
            raise DataError(f"{where}: path {named[:200]!r}: folders are separated by /")
        if plain:
            self._folders[folder] = path.parent
        return self._spelt(path)

    def _spelt(self, path: Path) -> Path:
        """A path, or what is spelt like it where nothing is there."""
        return self._names.find(path) or path

    def _path(self, named: str, where: str) -> Path:
        parts = PurePosixPath(named).parts
        below = PurePosixPath(named)
        if below.is_absolute():
            root = self.root.absolute().as_posix()
            if not below.is_relative_to(root):
                raise DataError(
                    f"{where}: path {named[:200]!r} is not a path inside {self.root}: give a folder that holds all "
                    "of them, --root DIR (--root / takes every absolute path)"
                )
            below = below.relative_to(root)
        if not below.parts or ".." in parts or named.startswith("\\") or len(parts) > _DEEPEST:
            raise DataError(f"{where}: path {named[:200]!r} is not a path inside {self.root}")
        return self.root / below

    def to_write(self, relative: str) -> Path:
        """Where a file of this name goes that m2e brings.

        Raises:
            DataError: that is not below the root, whatever links are on the way.
        """
        path = self._path(relative, relative)
        try:
            root, parent = self.root.resolve(), path.parent.resolve()
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: a link on its way cannot be followed") from error
        if parent != root and root not in parent.parents:
            raise DataError(f"{path}: a link leads out of {self.root}, and nothing is written through it")
        return path

    def file(self, relative: Path) -> Path:
        """Where an official file is: at `relative` below the root, or below one of its folders.

        A file that is nowhere gets its normal place, so that a message can name it.

        Raises:
            DataError: two folders hold one.
        """
        found = [base for base, names in self._homes(str(relative.parent)) if relative.name in names]
        if len(found) > 1 and found[0] != self.root:
            raise DataError(
                f"{self.root}: both {found[0].name} and {found[1].name} hold {relative}: "
                "give the folder of one data set as --root"
            )
        return (found or [self.root])[0] / relative

    def audio(self, *relatives: str) -> Path:
        """Where an audio file is: the first of `relatives` ("folder/name") below the root or one of its folders."""
        for relative in relatives:
            folder, _, name = relative.rpartition("/")
            for base, names in self._homes(folder):
                if name in names:
                    return base / relative
        for relative in relatives:
            for base, _ in self._homes(relative.rpartition("/")[0]):
                if (found := self._spelt(base / relative)) != base / relative:
                    return found
        return self.root / relatives[0]

    def _homes(self, folder: str) -> list[tuple[Path, frozenset[str]]]:
        """Where a folder of this name is, and what it holds; looked up only once."""
        if folder not in self._found:
            self._found[folder] = [
                (base, frozenset(os.listdir(base / folder)))  # noqa: PTH208 - names are all that is asked for
                for base in self._bases
                if is_folder(base / folder)
            ]
        return self._found[folder]

    @cached_property
    def _bases(self) -> list[Path]:
        """The root and the folders in it, each once though links lead to it as well."""
        below = [path for path in self.root.iterdir() if path.name[0] != "." and is_folder(path)]
        bases: dict[tuple[int, int], Path] = {}
        for path in (self.root, *sorted(below, key=lambda path: (path.is_symlink(), path))):
            status = path.stat()
            bases.setdefault((status.st_dev, status.st_ino), path)
        return list(bases.values())


def is_folder(path: Path) -> bool:
    """Whether a folder is there and can be looked for: beside the data set may lie what is not the user's."""
    try:
        return path.is_dir()
    except OSError:
        return False
