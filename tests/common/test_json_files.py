"""JSON from outside is read within bounds, or refused with a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.odd import NO_FILES, NO_JSON, Make

from m2e.cache import DataError
from m2e.common.json_files import parse_object, read_object, typed, typed_list
from m2e.common.regular import append_regular, open_regular, read_regular


def test_an_object_comes_as_it_is(tmp_path: Path) -> None:
    values = {"a": 1, "b": [1.5, None, True], "c": {"d": {"e": "é"}}}
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    for name in ("a.json", "link.json"):
        assert read_object(tmp_path / name) == values


@pytest.mark.parametrize("make", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_object_is_refused_by_name(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.json (cannot be read: it|has 1,099,511,627,776 bytes)"):
        read_object(tmp_path / "a.json")


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "a.json")
    for take in (open_regular, append_regular, lambda path: read_regular(path, 10)):
        if take is append_regular and make is NO_FILES["link to nothing"]:
            continue  # to append makes a file
        with pytest.raises((DataError, OSError), match=r"a\.json is a |Is a directory|Too many levels"):
            take(tmp_path / "a.json")


@pytest.mark.parametrize("depth", [1, 16, 17, 1000])
def test_nesting_is_bounded(depth: int) -> None:
    text = '{"a":' * depth + "1" + "}" * depth
    if depth <= 16:
        assert parse_object(text)
    else:
        with pytest.raises(ValueError, match="nested over 16 deep"):
            parse_object(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000])
def test_numbers_are_finite(number: str) -> None:
    with pytest.raises(ValueError, match=r"number|integer string"):
        parse_object(f'{{"a": [{number}]}}')


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (10**400, float, False),
        (True, float, False),
        ("1", float, False),
        ("", str, True),
        (None, str, False),
        (False, bool, True),
        (0, bool, False),
        ([], list, True),
        ({}, list, False),
        ({}, dict, True),
    ],
)
def test_types_are_exact(value: Any, kind: type[Any], right: bool) -> None:
    values = {"a": value, "many": [value]}
    if right:
        assert typed(values, "a", kind) == value
        assert typed_list(values, "many", kind) == (value,)
        return
    for take, name in ((typed, "a"), (typed_list, "many")):
        with pytest.raises(ValueError, match=r"is .*, not (a|an|true)|too large"):
            take(values, name, kind)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="it has no width"):
        typed({}, "width", int)
