"""Which songs: files, folders that are searched, or paths read from standard input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from m2e.common.errors import DataError
from m2e.common.names import Names
from m2e.extract.audio.formats import SUFFIXES


def find_songs(arguments: Iterable[str], lines: Iterable[str]) -> list[Path]:
    """The songs that the arguments name, each once, in order; a folder's by name, with those of its subfolders.

    A file that is named is tried whatever its suffix, and found where it is spelt otherwise (`m2e.common.names`). In a
    folder, all suffixes count that `m2e.extract.audio.formats` lists, in any case; links to folders are followed, each
    folder is searched once, and what begins with a dot is passed over.

    Args:
        arguments: files, folders, or "-" for the paths of `lines`.
        lines: paths, one a line; read only for "-".

    Raises:
        DataError: a folder holds no audio files, or there are no songs at all.
    """
    songs: dict[Path, None] = {}
    names = Names()
    for argument in arguments:
        named = (line.rstrip("\r\n") for line in lines) if argument == "-" else [argument]
        for name in named:
            if name:
                songs |= dict.fromkeys(_expand(names.find(Path(name)) or Path(name)))
    if not songs:
        raise DataError("there are no songs: standard input names none")
    return list(songs)


def _expand(path: Path) -> Iterator[Path]:
    if not os.path.isdir(path):  # noqa: PTH112 - no error where it cannot be looked at: reading it tells why
        yield path
        return
    # A link that leads nowhere is a song that cannot be read, which is said.
    songs = (song for song in _search(path) if song.suffix.lower() in SUFFIXES)
    found = sorted(song for song in songs if os.path.isfile(song) or os.path.islink(song))  # noqa: PTH113, PTH114
    if not found:
        raise DataError(f"{path} holds no audio files: none whose suffix is .mp3, .flac, .wav, .ogg, .m4a or the like")
    yield from found


def _search(root: Path) -> Iterator[Path]:
    """All files below a folder; of a folder that links lead to as well, by its own name."""
    searched: set[tuple[int, int]] = set()
    todo = [root]
    while todo:
        links: list[Path] = []
        for start in todo:
            for folder, folders, files in os.walk(start):
                status = os.stat(folder)  # noqa: PTH116
                if (status.st_dev, status.st_ino) in searched:
                    folders.clear()
                    continue
                searched.add((status.st_dev, status.st_ino))
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [path for name in folders if os.path.islink(path := Path(folder, name))]  # noqa: PTH114
                yield from (Path(folder, name) for name in files if not name.startswith("."))
        todo = links
