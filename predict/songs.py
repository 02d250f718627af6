"""Which songs: files, folders that are searched, or paths read from standard input."""

from __future__ import annotations

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
    found = [
        song
        for song in sorted(path.rglob("*"))
        if song.suffix.lower() in SUFFIXES
        and song.is_file()
        and not any(part.startswith(".") for part in song.relative_to(path).parts)
    ]
    if not found:
        raise DataError(f"{path} holds no audio files ({' '.join(sorted(SUFFIXES))})")
    yield from found
