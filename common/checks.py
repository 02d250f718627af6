"""What a type asks of the values that it is made of; `True` is no number, and neither NaN nor infinity is one."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from m2e.common.errors import DataError, printable

_SHOWN = 80
# It becomes the name of a folder, and stands in lists between commas.
_NAME = re.compile(r"[^./\\\s,](?:[^/\\,]{0,98}[^/\\\s,])?")
NAME_RULE = "1-100 printable characters without slashes and commas, no space at an end, no dot in front"


def require(right: bool, name: str, value: object, accepted: str) -> None:
    """Raise DataError, with the value and the accepted form, unless it is right."""
    if not right:
        raise DataError(unlike(name, value, accepted))


def unlike(name: str, value: object, accepted: str) -> str:
    """The sentence that says what a value is and what it must be."""
    return f"{name} is {repr(value)[:_SHOWN]}; it must be {accepted}"


def is_whole(value: object, low: int, high: float = math.inf) -> bool:
    """Whether it is an int in [low, high]."""
    return type(value) is int and low <= value <= high


def is_number(value: object, low: float, high: float) -> bool:
    """Whether it is an int or a float in [low, high]."""
    return (type(value) is int or isinstance(value, float)) and low <= value <= high and math.isfinite(value)


def is_line(value: object) -> bool:
    """Whether it is a text of one line that a terminal shows and does not obey; it may be empty."""
    return isinstance(value, str) and printable(value) == value


def is_one_of(value: object, accepted: Collection[str]) -> bool:
    """Whether it is one of these texts."""
    return isinstance(value, str) and value in accepted


def can_name(name: str) -> bool:
    """Whether a data set can have this name, see `NAME_RULE`."""
    return bool(_NAME.fullmatch(name)) and name.isprintable()
