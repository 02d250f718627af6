"""The one error that users meet: a line that says what is wrong, where, and what to do."""


class DataError(Exception):
    """Input that cannot be used: a file, a folder, a checkpoint or a cache.

    The message is one line for people: what, where, and what to do. The commands print it and exit with 1.
    """
