"""Which songs: files, folders that are searched, or paths read from standard input."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from m2e.cache.errors import DataError

# What a folder is searched for; a file that is named is tried whatever its suffix.
SUFFIXES = frozenset(
    [
        ".aac",
        ".aif",
        ".aiff",
        ".alac",
        ".ape",
        ".au",
        ".flac",
        ".m4a",
        ".mka",
        ".mp3",
        ".mp4",
        ".oga",
        ".ogg",
        ".opus",
        ".wav",
        ".webm",
        ".wma",
    ]
)


def find_songs(arguments: Iterable[str], lines: Iterable[str]) -> list[Path]:
    """The songs that the arguments name, each once, in order; a folder's by name, with those of its subfolders.

    Args:
        arguments: files, folders, or "-" for the paths of `lines`.
        lines: paths, one a line; read only for "-".

    Raises:
        DataError: a folder holds no audio files, or there are no songs at all.
    """
    songs: dict[Path, None] = {}
    for argument in arguments:
        named = (line.rstrip("\r\n") for line in lines) if argument == "-" else [argument]
        for name in named:
            if name:
                songs |= dict.fromkeys(_expand(Path(name)))
    if not songs:
        raise DataError("there are no songs: standard input names none")
    return list(songs)


def _expand(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = sorted(_search(path))
    if not found:
        raise DataError(f"{path} holds no audio files ({' '.join(sorted(SUFFIXES))})")
    yield from found


def _search(top: Path) -> Iterator[Path]:
    """Audio below a folder. Links are followed, after all else, and into no folder that was searched already."""
    seen = set[tuple[int, int]]()
    tops = deque([top])
    while tops:
        for folder, below, names in os.walk(tops.popleft()):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            shown = [Path(folder, name) for name in below if not name.startswith(".")]
            tops.extend(path for path in shown if path.is_symlink())
            below[:] = [path.name for path in shown if not path.is_symlink()]
            songs = (Path(folder, name) for name in names if not name.startswith("."))
            yield from (song for song in songs if song.suffix.lower() in SUFFIXES and song.is_file())
