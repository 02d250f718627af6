"""The one error that users meet: a line that says what is wrong, where, and what to do."""

import unicodedata

# They turn the direction of what follows.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """`text` as one line that a terminal shows and never obeys: names from outside may hold escape codes.

    Spaces of all widths, and what joins letters or emoji, stay, so that a name can be copied.
    """
    return "".join(char if char.isprintable() or _is_harmless(char) else ascii(char)[1:-1] for char in text)


def first_line(error: BaseException) -> str:
    """Of an exception's message; its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) in ("Zs", "Cf") and char not in _TURNS


class DataError(Exception):
    """Input that cannot be used: a file, a folder, a checkpoint or a cache.

    The message is one printable line for people: what, where, and what to do. The commands print it and exit with
    `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RequestError(DataError):
    """What was asked for is not to be had here, whatever the data: another option is needed."""

    exit_code = 2


class UnreadableError(DataError):
    """A file of a cache is there and cannot be read, as its owner or a disk has it; what it holds is unknown."""


class NewerError(DataError):
    """A file of a cache was written by a newer m2e, and is as good as that left it."""


class DamagedError(DataError):
    """A file of a cache is not as any m2e wrote it."""


class LockedError(DataError):
    """Another process holds a cache's lock."""
