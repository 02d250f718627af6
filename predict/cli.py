"""m2e-predict: songs to their emotions."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from m2e.common.console import PROCESSES, Command, device_option, progress_bar, say
from m2e.common.interrupts import interruptible
from m2e.common.system import check_processes

if TYPE_CHECKING:
    from m2e.predict.output import Output
    from m2e.predict.record import Record
    from m2e.predict.setup import Setup

EPILOG = """\b
Examples:
  m2e-predict song.mp3 --model runs/J-D-E-P-paper-0/student
  m2e-predict music --model runs/J-D-E-P-paper-0/student --csv > music.csv
  m2e-predict music --model runs/J-D-E-P-paper-0/student --out music.jsonl
  find music -newer yesterday | m2e-predict - --model owner/name --revision v1 --json
  m2e-predict --serve --model runs/J-D-E-P-paper-0/student

\b
With --out, run the same command again after an interrupt: songs in FILE are not heard again.
Exit codes: 0 done, broken songs are reported and skipped; 1 none succeeded, or the model cannot
be used, or the disk is full; 2 wrong usage; 130 or 143 interrupted.
"""


@click.command(cls=Command, epilog=EPILOG, context_settings={"max_content_width": 110})
@click.argument("songs", nargs=-1, metavar="[SONG|FOLDER|-]...")
@click.option(
    "--model",
    required=True,
    envvar="M2E_MODEL",
    show_envvar=True,
    metavar="DIR|OWNER/NAME",
    help="A model that m2e-train wrote, or one on the Hugging Face hub.",
)
@click.option("--revision", metavar="COMMIT|TAG", help="Of a model on the hub.  [default: its main branch]")
@click.option(
    "--encoder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The encoder's folder, where the model was trained on a local copy.",
)
@click.option(
    "--chord-checkpoint",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="BTC's btc_model_large_voca.pt, where it cannot be downloaded.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a song, one a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a row for the whole song, then a row a segment.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Of one song: write a .png, .svg or .pdf."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Append JSON lines to this file, and resume from it."
)
@click.option(
    "--accept-cut",
    is_flag=True,
    help="Hear what there is of songs that are cut or damaged, and say so.",
)
@click.option("--jobs", type=PROCESSES, metavar="N", help="Processes.  [default: one a core]")
@device_option
@click.option("--serve", is_flag=True, help="Instead of songs: a page in the browser, on this machine alone.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="With --serve: where.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8765, show_default=True, help="With --serve.")
@click.option(
    "--max-upload", type=click.IntRange(1), default=100, show_default=True, metavar="MB", help="With --serve: a song."
)
@click.option(
    "--time-limit",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    metavar="S",
    help="With --serve: a song's prediction.",
)
@click.option(
    "--memory-limit",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    metavar="MB",
    help="With --serve: what decoding and predicting may take beyond the loaded model.",
)
def main(
    songs: tuple[str, ...],
    model: str,
    revision: str | None,
    encoder: Path | None,
    chord_checkpoint: Path | None,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
    out: Path | None,
    accept_cut: bool,
    jobs: int | None,
    device: str,
    serve: bool,
    host: str,
    port: int,
    max_upload: int,
    time_limit: int,
    memory_limit: int,
) -> None:
    """Hear songs and print their mood tags, valence and arousal (on 1-9), key and chords: of the whole song, and of
    every 30 s of it.

    One song is shown in full, several as a line each. Audio is read by the code that m2e-extract reads it with.
    """
    if sum((as_json, as_csv, plot is not None, out is not None)) > 1:
        raise click.UsageError("--json, --csv, --plot and --out exclude each other")
    if serve == bool(songs):
        raise click.UsageError("give SONG, FOLDER or - (for paths on standard input), or else --serve")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    from m2e.predict.setup import describe, prepare
    from m2e.predict.songs import find_songs

    found = [] if serve else find_songs(songs, sys.stdin)
    if found:
        check_processes()
    if plot:
        _check_plot(plot, found)
    setup = prepare(
        model,
        revision=revision,
        encoder=encoder,
        chord_checkpoint=chord_checkpoint,
        device=device,
        accept_cut=accept_cut,
    )
    for caution in describe(setup)["cautions"]:
        say(caution, "note")
    if serve:
        from m2e.predict.serve.server import serve_page
        from m2e.predict.serve.worker import Limits

        serve_page(setup, host, port, Limits(max_upload * 1_000_000, time_limit, memory_limit * 1_000_000))
        return
    output = _choose_output(found, as_json, as_csv, plot)
    kept = 0
    if out is not None:
        output, found, kept = _resume(out, found, setup)
    resumes = f" What was done is in {out}: run the same command to go on." if out else ""
    with interruptible(lambda: say(f"interrupted.{resumes}")):
        try:
            done = _predict(found, setup, jobs, output, quiet=as_json or as_csv)
        finally:
            output.finish()
    if out:
        say(f"{kept + done} songs are in {out}, one JSON object a line ({done} new, {len(found) - done} failed).")
    elif plot and done:
        say(f"The picture is in {plot}.")
    if not kept + done:
        raise SystemExit(1)


def _check_plot(plot: Path, songs: Sequence[Path]) -> None:
    from m2e.predict.plot import SUFFIXES

    if plot.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{plot} is none of {', '.join(SUFFIXES)}", param_hint="--plot")
    if len(songs) > 1:
        raise click.UsageError(f"--plot is of one song, not of {len(songs)}")


def _choose_output(songs: Sequence[Path], as_json: bool, as_csv: bool, plot: Path | None) -> Output:
    from m2e.predict.output import Csv, JsonLines, Page, Summary

    if as_json:
        return JsonLines()
    if as_csv:
        return Csv()
    return Page(plot) if len(songs) == 1 else Summary()


def _resume(out: Path, songs: list[Path], setup: Setup) -> tuple[Record, list[Path], int]:
    """The file of predictions, the songs that it lacks, and how many it has."""
    from m2e.predict.record import Record

    record = Record(out, setup.digest)
    todo = [song for song in songs if not record.holds(song)]
    if len(todo) < len(songs):
        say(f"{len(songs) - len(todo)} of {len(songs)} songs are in {out} already")
    return record, todo, len(songs) - len(todo)


def _predict(songs: Sequence[Path], setup: Setup, jobs: int | None, output: Output, quiet: bool) -> int:
    """Predict every song into `output`; returns how many succeeded."""
    from m2e.common.cores import cpu_count
    from m2e.predict.batch import predict_songs

    jobs = 1 if setup.models.device == "cuda" else jobs or cpu_count()
    done = 0
    with progress_bar("songs") as bar:
        # Rows that run through the same terminal would tear the bar.
        bar.disable |= quiet and sys.stdout.isatty()
        task = bar.add_task("predicting", total=len(songs), rate=0.0)
        started = time.monotonic()
        for number, result in enumerate(predict_songs(songs, setup, jobs), start=1):
            if isinstance(result, str):
                say(result, "failed", "red")
            else:
                output.add(result)
                done += 1
                for note in result.notes if output.notes_apart else ():
                    say(f"{result.song}: {note}", "note")
            bar.update(task, advance=1, rate=number / (time.monotonic() - started))
    return done
