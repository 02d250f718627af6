"""What all commands share: one-line errors, a progress bar, and where people's output goes."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from m2e.common.errors import DataError, printable
from m2e.common.streams import hold_standard_streams
from m2e.common.system import check_system

# Files that are written by name say so themselves: here it is standard output.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# People read stderr; stdout carries results only, so that it can be piped.
console = Console(stderr=True, highlight=False)


def say(text: str, label: str = "", style: str = "yellow") -> None:
    """Print a line for people as it is, never as markup (file names may hold brackets), after a coloured label."""
    console.print(Text.assemble((f"{label} " if label else "", style), printable(text)), soft_wrap=True)


def tell(*cells: object) -> None:
    """Print a line of results on standard output, cells between tabs: names from outside are shown, never obeyed."""
    click.echo("\t".join(printable(str(cell)) for cell in cells))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, the last one ragged; cells are shown as `tell` does."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )


class Command(click.Command):
    """A click command that says in one line what it cannot use or write, and exits with 1; with 130 after Ctrl-C."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        hold_standard_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            check_system()
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except DataError as error:
            raise _told(error) from error
        except ModuleNotFoundError as error:
            if (error.name or "m2e").startswith("m2e"):
                raise
            raise click.ClickException(
                f"{error.name} is not installed here; m2e without extras only looks into caches: pip install 'm2e[all]'"
            ) from error
        except BrokenPipeError:
            # The reader of a pipe went away (`| head`): nothing is wrong, and nobody is left to tell.
            _discard_output()
            ctx.exit(0)
        except OSError as error:
            if error.filename is not None:
                raise click.ClickException(printable(f"{error.filename}: {error.strerror}")) from error
            if error.errno not in _FULL:
                raise
            _discard_output()
            raise click.ClickException(f"cannot write the output: {error.strerror}") from error
        except KeyboardInterrupt:
            say("interrupted.")
            raise SystemExit(130) from None


def _told(error: DataError) -> click.ClickException:
    told = click.ClickException(str(error))
    told.__dict__["exit_code"] = error.exit_code  # of the class for all others
    return told


def _discard_output() -> None:
    """What standard output still holds cannot be written, and Python tries that once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Group(click.Group):
    """A click group whose commands are `Command`s."""

    command_class = Command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        hold_standard_streams()
        return super().main(*args, **kwargs)


class PluginGroup(Group):
    """A group that takes in further commands from an entry-point group, loaded only when asked for or listed.

    A command of a package that lacks its requirements says so in one line; the others work.
    """

    def __init__(self, *args: Any, entry_points: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entry_points = entry_points

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=self._entry_points).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        found = entry_points(group=self._entry_points, name=cmd_name)
        if own or not found:
            return own
        try:
            command = next(iter(found)).load()
        except ImportError as error:
            return _unavailable(cmd_name, error)
        return command if isinstance(command, click.Command) else None


def _unavailable(name: str, error: ImportError) -> click.Command:
    """A command that stands for one that cannot be loaded."""
    line = f"{error.name or error} is not installed here: pip install 'm2e[all]'"

    @click.command(name, cls=Command, short_help=line, context_settings={"ignore_unknown_options": True})
    @click.argument("anything", nargs=-1, type=click.UNPROCESSED)
    def unavailable(anything: tuple[str, ...]) -> None:
        raise DataError(f"{name}: {line}")

    return unavailable


# More than any machine has cores; each takes a GB.
PROCESSES = click.IntRange(1, 1024)
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default="features",
    envvar="M2E_CACHE",
    show_default=True,
    show_envvar=True,
    help="Folder of all caches, one subfolder a data set.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU where there is one.",
)


@contextmanager
def counting(description: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """A `progress_bar` of one task; call what it gives with how many are newly done, and with the total once known."""
    with progress_bar(unit) as progress:
        task = progress.add_task(description, total=total, rate=0.0)
        started = time.monotonic()

        def advance(newly: int, total: int | None = None) -> None:
            progress.update(task, advance=newly, total=total)
            done = progress.tasks[task].completed
            progress.update(task, rate=done / max(time.monotonic() - started, 1e-9))

        yield advance


def progress_bar(unit: str) -> Progress:
    """A bar with a count, the rate in `unit` a second, time gone and time left; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # names from outside may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]:.2f}} {unit}/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=False,
        disable=not console.is_terminal,
    )
