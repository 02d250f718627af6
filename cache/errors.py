"""The one error that users meet: a line that says what is wrong, where, and what to do."""


def printable(text: str) -> str:
    """`text` as one line that a terminal shows and never obeys: names from outside may hold escape codes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class DataError(Exception):
    """Input that cannot be used: a file, a folder, a checkpoint or a cache.

    The message is one printable line for people: what, where, and what to do. The commands print it and exit with 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))
