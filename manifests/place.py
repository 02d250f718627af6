"""Where the files of a data set are: below its root, one level of nesting forgiven, and never outside.

An archive may unpack into a folder of its own name, and audio and annotations may come in two of them.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path, PurePosixPath

from m2e.cache.errors import DataError
from m2e.cache.names import Names

# More folders than any real path has, and few enough to follow them all in every row of a table.
_DEEPEST = 64


class Place:
    """A data set's root folder. Links that lead out of it are refused, whatever names them.

    Raises:
        DataError: the folder is a link in a loop.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self._resolved = root.resolve()
        except RuntimeError as error:
            raise DataError(f"{root}: this link cannot be followed") from error
        self._folders: dict[str, Path] = {}  # of tables, that are inside
        self._followed: dict[Path, bool] = {}
        self._found: dict[str, list[tuple[Path, frozenset[str]]]] = {}
        self._names = Names()

    def inside(self, relative: str, where: str) -> Path:
        """The path of `relative`, a cell of a table at `where`.

        Raises:
            DataError: it is empty, absolute, climbs with "..", or leads out of the root through a link.
        """
        name = relative.rpartition("/")[2]
        folder = relative.removesuffix(name)
        plain = name not in ("", ".", "..")
        try:
            if plain and (home := self._folders.get(folder)):
                path, inside = home / name, True
            else:
                path = self._path(relative, where)
                inside = self._is_inside(path.parent)
            if "\\" in relative and not path.exists():
                raise DataError(f"{where}: path {relative[:200]!r}: folders are separated by /")
            if not inside or (path.is_symlink() and not self._is_inside(path)):
                raise DataError(f"{where}: path {relative!r} is not a path inside {self.root}: a link leads out of it")
        except (OSError, RuntimeError) as error:
            raise DataError(f"{where}: path {relative[:200]!r} below {self.root} cannot be followed") from error
        if plain:
            self._folders[folder] = path.parent
        return self._spelt(path)

    def _spelt(self, path: Path) -> Path:
        """A path that is inside, or what is inside and is spelt like it where nothing is there."""
        found = self._names.find(path)
        if found is None or found == path:
            return path
        outside = not self._is_inside(found.parent) or (found.is_symlink() and not self._is_inside(found))
        return path if outside else found

    def _path(self, relative: str, where: str) -> Path:
        parts = PurePosixPath(relative).parts
        if not parts or ".." in parts or relative.startswith(("/", "\\")) or len(parts) > _DEEPEST:
            raise DataError(f"{where}: path {relative[:200]!r} is not a path inside {self.root}")
        return self.root / relative

    def file(self, relative: Path) -> Path:
        """Where an official file is: at `relative` below the root, or below one of its folders.

        A file that is nowhere gets its normal place, so that a message can name it.

        Raises:
            DataError: two folders hold one, or a link leads out of the root.
        """
        found = [base for base, names in self._homes(str(relative.parent)) if relative.name in names]
        if len(found) > 1 and found[0] != self.root:
            raise DataError(
                f"{self.root}: both {found[0].name} and {found[1].name} hold {relative}: "
                "give the folder of one data set as --root"
            )
        return (found or [self.root])[0] / relative

    def audio(self, *relatives: str) -> Path:
        """Where an audio file is: the first of `relatives` ("folder/name") below the root or one of its folders.

        Raises:
            DataError: a link leads out of the root.
        """
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
                (base, self._list(base / folder)) for base in self._bases if is_folder(base / folder)
            ]
        return self._found[folder]

    @cached_property
    def _bases(self) -> list[Path]:
        """The root and the folders in it. A folder that is a link is looked into only under its own name."""
        with os.scandir(self.root) as entries:
            below = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]
        return [self.root, *sorted(below)]

    def _list(self, folder: Path) -> frozenset[str]:
        self._check(folder)
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    self._check(Path(entry))
                names.append(entry.name)
        return frozenset(names)

    def _check(self, path: Path) -> None:
        try:
            inside = self._is_inside(path)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: this link cannot be followed") from error
        if not inside:
            raise DataError(
                f"{path}: this link leads out of {self.root} and is not followed: "
                "put the files there, or give a folder that holds both as --root"
            )

    def _is_inside(self, path: Path) -> bool:
        """Whether a path is the root or below it when all links are followed."""
        if path not in self._followed:
            resolved = path.resolve()
            self._followed[path] = resolved == self._resolved or self._resolved in resolved.parents
        return self._followed[path]


def is_folder(path: Path) -> bool:
    """Whether a folder is there and can be looked for: beside the data set may lie what is not the user's."""
    try:
        return path.is_dir()
    except OSError:
        return False
