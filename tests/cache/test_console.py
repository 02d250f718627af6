"""What every command does alike."""

import importlib

import click
import pytest
from click.testing import CliRunner

from m2e.cache.console import Command, say
from m2e.cache.errors import DataError


def test_brackets_in_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("songs/[red]one[/].mp3 [bold", "note")
    captured = capsys.readouterr()
    assert captured.err == "note songs/[red]one[/].mp3 [bold\n"
    assert captured.out == ""


def test_a_data_error_is_one_line_and_exit_1() -> None:
    @click.command(cls=Command)
    def broken() -> None:
        raise DataError("a.csv: is empty: write something into it")

    result = CliRunner().invoke(broken)
    assert result.exit_code == 1
    assert result.stderr == "Error: a.csv: is empty: write something into it\n"
    assert result.stdout == ""


def test_a_missing_extra_is_one_line_and_a_missing_module_of_ours_is_a_bug() -> None:
    @click.command(cls=Command)
    @click.argument("name")
    def needs(name: str) -> None:
        importlib.import_module(name)

    result = CliRunner().invoke(needs, ["no_such_package"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no_such_package is not installed")
    assert isinstance(CliRunner().invoke(needs, ["m2e.nowhere"]).exception, ModuleNotFoundError)
