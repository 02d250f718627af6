"""What every command does alike."""

import copy
import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from m2e.common.console import Command, say
from m2e.common.errors import DataError, printable


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


def test_what_names_hold_reaches_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2J\nError: b\u202e\udcff\x9bé"
    shown = "a\\x1b[2J\\nError: b\\u202e\\udcff\\x9bé"
    say(evil)
    assert capsys.readouterr().err == f"{shown}\n"
    assert str(DataError(evil)) == shown
    assert str(copy.copy(DataError(evil))) == shown  # as on its way from one process to another


def test_names_that_people_use_can_be_copied() -> None:
    for name in ("音\u3000楽", "a\u00a0b", "\U0001f468\u200d\U0001f469", "Señorita [x]"):
        assert printable(name) == name


def test_a_path_that_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    @click.command(cls=Command)
    def reads() -> None:
        (tmp_path / ("x" * 300)).read_bytes()

    result = CliRunner().invoke(reads)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/{'x' * 300}: File name too long\n"


def test_a_missing_extra_is_one_line_and_a_missing_module_of_ours_is_a_bug() -> None:
    @click.command(cls=Command)
    @click.argument("name")
    def needs(name: str) -> None:
        importlib.import_module(name)

    result = CliRunner().invoke(needs, ["no_such_package"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no_such_package is not installed")
    assert isinstance(CliRunner().invoke(needs, ["m2e.nowhere"]).exception, ModuleNotFoundError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("ending", ["", "sys.stdout.write('more')"])
def test_a_full_disk_behind_standard_output_is_one_line(ending: str) -> None:
    code = f"""
import click, sys
from m2e.common.console import Command
@click.command(cls=Command)
def shows():
    {ending or "click.echo('result')"}
shows()
"""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.stderr == "Error: cannot write the output: No space left on device\n"
    assert ended.returncode == 1


def test_an_interrupt_is_exit_130() -> None:
    @click.command(cls=Command)
    def interrupted() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(interrupted)
    assert (result.exit_code, result.stderr) == (130, "interrupted.\n")
