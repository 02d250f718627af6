"""JSON from outside: read within bounds, and taken apart by type.

Python's own reader takes `NaN`, `Infinity` and 1e999 for numbers, and nests until its stack ends. Nothing that m2e
writes holds any of that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from m2e.common.errors import DataError
from m2e.common.regular import read_regular

T = TypeVar("T")

MOST_BYTES = 1 << 20
_MOST_LEVELS = 16
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def read_object(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        OSError: it cannot be opened or read.
        DataError: it is no regular file, larger than `most_bytes`, or no JSON object as `parse_object` takes it.
    """
    content = read_regular(path, most_bytes)
    try:
        return parse_object(content)
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object of finite numbers, nested at most 16 deep.

    Raises:
        ValueError: it is something else, or not UTF-8.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        values = json.loads(decoded, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    level: list[Any] = [values]
    for _ in range(_MOST_LEVELS + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return values
    raise ValueError(_TOO_DEEP)


def typed(values: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """The value under a name, which has to be there and of this very type; a whole number passes for a float.

    Raises:
        ValueError: it is missing, or of another type.
    """
    if name not in values:
        raise ValueError(f"it has no {name}")
    return _of(values[name], name, kind)


def typed_list(values: Mapping[str, Any], name: str, kind: type[T]) -> tuple[T, ...]:
    """The list under a name, all of one type; raises as `typed`."""
    return tuple(_of(value, f"of {name} one", kind) for value in typed(values, name, list))


def _of(value: Any, name: str, kind: type[T]) -> T:
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError as error:
            raise ValueError(f"{name} is too large a number") from error
    if type(value) is not kind:
        raise ValueError(f"{name} is {repr(value)[:80]}, not {_KINDS[kind]}")
    return value


_TOO_DEEP = f"it is nested over {_MOST_LEVELS} deep"


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text[:80]}, which is too large a number")
    return value
