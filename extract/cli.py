"""m2e-extract: audio to cache."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from m2e.cache.settings import HIGHEST_LAYER, PRECISIONS, RESAMPLERS, TAILS
from m2e.common.console import PROCESSES, Command, cache_option, device_option, say
from m2e.common.interrupts import interruptible
from m2e.manifests.dataset import Choices
from m2e.manifests.options import check_choices, choices_options

if TYPE_CHECKING:
    from m2e.extract.job.part import Part
    from m2e.extract.job.session import Session

EPILOG = """\b
Examples:
  m2e-extract --dataset emomusic --root data/emomusic
  m2e-extract --dataset mtg-jamendo --root /music/mtg-jamendo --jobs 16
  m2e-extract --dataset deam --dataset pmemo
  m2e-extract --dataset my-songs.csv --encoder tiny --chords cnn
  m2e-extract --dataset mtg-jamendo --dry-run      how many hours, how long here, how large
  m2e-extract --dataset mtg-jamendo --shard 0/4      the first of four machines on one shared folder
  m2e-extract --dataset mtg-jamendo --shard auto      the part of this task of a SLURM job array
  m2e-extract --dataset mtg-jamendo --scheduler tcp://10.0.0.1:8786      the workers of a Dask cluster

\b
Data sets: mtg-jamendo (J), deam (D), emomusic (E), pmemo (P), demo-jamendo, demo-deam,
demo-emomusic, demo-pmemo, or a CSV of your own with the columns track_id, path and tags
and/or valence, arousal.

\b
Interrupted? Run the same command again: it goes on where it stopped.
Exit codes: 0 all good tracks are in; 1 none is (or --strict and some failed); 2 wrong usage;
130 or 143 interrupted, what was done is kept.
"""


# Of Dask's addresses.
_SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")


def _parse_part(context: click.Context, option: click.Parameter, text: str | None) -> Part:
    """What --shard says. A process that is one of several has to say it: all would do the same, or each a part."""
    from m2e.extract.job.part import Part

    if text not in (None, "auto"):
        try:
            return Part.parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{error}, nor auto") from error
    try:
        found = Part.from_environment(os.environ)
    except ValueError as error:
        raise click.UsageError(
            f"the environment is that of a SLURM job array or torchrun, but {error}: say which part to do, "
            "--shard I/N, or --shard 0/1 to do everything"
        ) from error
    if text == "auto":
        if found is None:
            raise click.UsageError(
                "--shard auto takes the part from a SLURM job array (SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT) "
                "or from RANK and WORLD_SIZE, and none of them is set: say --shard I/N"
            )
        say(f"--shard {found[0]}, from {found[1]}", "note")
        return found[0]
    if found and found[0].count > 1:
        part, variables = found
        raise click.UsageError(
            f"{variables} say that this process is one of {part.count}: say --shard auto to do its part, {part}, or "
            "--shard 0/1 to do everything"
        )
    return Part()


def _parse_scheduler(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    kind, _, count = text.rpartition(":")
    scheme, given, _ = text.partition("://")
    if not count.isdecimal() or (kind == "local" and int(count) < 1) or (given and scheme not in _SCHEMES):
        raise click.BadParameter(f"{text!r} is not an address such as tcp://10.0.0.1:8786, nor local:N")
    return text


def _parse_resources(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, float]:
    try:
        pairs = [pair.split("=") for pair in text.split(",")] if text else []
        amounts = {name: float(amount) for name, amount in pairs}
        if not all(name and 0 < amount < math.inf for name, amount in amounts.items()):
            raise ValueError("an amount is above 0")
        return amounts
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list such as GPU=1") from error


@click.command(cls=Command, epilog=EPILOG, context_settings={"max_content_width": 110})
@click.option(
    "--dataset",
    "datasets",
    required=True,
    multiple=True,
    metavar="NAME|FILE.csv",
    help="Which data set; given several times, one after the other.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Its folder, for one data set.  [default: NAME in $M2E_DATA, or in data]",
)
@cache_option
@click.option(
    "--encoder",
    default="MERT-v1-95M",
    show_default=True,
    metavar="NAME|DIR",
    help="MERT-v1-95M, MERT-v1-330M, a folder in Hugging Face layout, or tiny (untrained, for trying out).",
)
@click.option("--revision", metavar="COMMIT", help="Commit of the encoder on the hub, in place of the pinned one.")
@click.option(
    "--chords",
    type=click.Choice(["btc", "cnn", "template"]),
    default="btc",
    show_default=True,
    help="Chord recogniser: BTC with its published weights; a small network of ours, part of m2e; or templates.",
)
@click.option(
    "--chord-checkpoint",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="BTC's btc_model_large_voca.pt, where it cannot be downloaded.",
)
@click.option(
    "--layers", default="5,6,7", show_default=True, metavar="K,K,...", help="Hidden states to store (paper: 5 and 6)."
)
@click.option(
    "--tail",
    type=click.Choice(TAILS),
    default="drop",
    show_default=True,
    help="The remainder after the last full 30 s segment; kept only from 5 s on.",
)
@click.option(
    "--resampler",
    type=click.Choice(RESAMPLERS),
    default="sinc_hann",
    show_default=True,
    help="To 24 kHz: as the released code does, or soxr.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Of the encoder's products; the others differ measurably (docs/performance.md).",
)
@click.option(
    "--splits",
    type=click.Path(path_type=Path, file_okay=False),
    help="For one data set: folder with train.txt, validation.txt, test.txt, an id a line, in place of its own splits.",
)
@choices_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N tracks that have audio.")
@click.option(
    "--jobs",
    type=PROCESSES,
    metavar="N",
    help="Processes that extract; where a GPU does, that decode for it.  [default: one a core]",
)
@device_option
@click.option(
    "--shard",
    "part",
    callback=_parse_part,
    metavar="I/N|auto",
    help="Only part I, from 0 to N-1, of N parts of the tracks; run the others elsewhere, on the same cache. auto: the "
    "part that a SLURM job array, or RANK and WORLD_SIZE, give this process; there it has to be said.",
)
@click.option(
    "--scheduler",
    callback=_parse_scheduler,
    metavar="ADDRESS|local:N",
    help="Work on the Dask cluster of this scheduler, which shares the folders of audio, models and cache with this "
    "machine, or on N Dask workers here (docs/scaling.md).",
)
@click.option(
    "--worker-resources",
    callback=_parse_resources,
    metavar="NAME=AMOUNT,...",
    help="Only Dask workers that were given these, such as GPU=1. Of --device, auto is then cuda, and cpu without GPU.",
)
@click.option("--retry-failed", is_flag=True, help="Try tracks again that failed before.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Extract tracks again that the cache holds; each keeps its features until it has new ones. Goes on where an "
    "interrupted one stopped.",
)
@click.option(
    "--accept-cut",
    is_flag=True,
    help="Take what there is of files that are cut or damaged, with a note; those that failed before are tried again.",
)
@click.option(
    "--check-audio",
    is_flag=True,
    help="Find audio that changed by its digest, which reads every file; otherwise by its size.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Also where the audio of more than a tenth of the tracks in the cache changed, which is a question otherwise.",
)
@click.option("--name", metavar="NAME", help="Of a table of your own: its data set's, in place of the file's name.")
@click.option(
    "--replace",
    is_flag=True,
    help="Let your table take the place of another one of the same name in the cache; what is there is compared by its "
    "audio, and stays where that is the same.",
)
@click.option(
    "--export-chords",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the chords of every track in the cache as DIR/DATASET/TRACK.lab and .mid too.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 when a track failed or has no audio.")
@click.option(
    "--dry-run", is_flag=True, help="Extract nothing: say how many hours there are to do, and how long they would take."
)
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on standard output, a line a data set.")
@click.option("--json-events", "events", is_flag=True, help="As --json, with a line for each track as it ends, too.")
def main(
    datasets: tuple[str, ...],
    root: Path | None,
    cache: Path,
    encoder: str,
    revision: str | None,
    chords: str,
    chord_checkpoint: Path | None,
    layers: str,
    tail: Any,
    resampler: Any,
    precision: Any,
    splits: Path | None,
    choices: Choices,
    limit: int | None,
    jobs: int | None,
    device: str,
    part: Part,
    scheduler: str | None,
    worker_resources: dict[str, float],
    retry_failed: bool,
    accept_cut: bool,
    overwrite: bool,
    check_audio: bool,
    accept_changes: bool,
    name: str | None,
    replace: bool,
    export_chords: Path | None,
    strict: bool,
    dry_run: bool,
    as_json: bool,
    events: bool,
) -> None:
    """Read a data set's audio once and write MERT embeddings of every 30 s segment, the chords and the key of each
    track into an HDF5 cache, from which m2e-train trains without touching audio again.

    A broken file is recorded and skipped. Audio that changed since it was extracted is extracted again.
    """
    from m2e.extract.job.job import Job
    from m2e.extract.job.plan import Selection
    from m2e.extract.job.report import ignore

    if scheduler and scheduler.startswith("local:") and worker_resources:
        raise click.UsageError(
            "the workers of local:N have no resources: start workers with `dask worker ADDRESS --resources GPU=1`"
        )
    if scheduler and jobs:
        raise click.UsageError("--jobs counts processes of this machine; with --scheduler the cluster has its workers")
    if worker_resources and not scheduler:
        raise click.UsageError("--worker-resources says which Dask workers to take: it goes with --scheduler")
    if dry_run and scheduler:
        raise click.UsageError("--dry-run measures this machine; the workers of --scheduler are elsewhere")
    check_choices(choices, datasets)
    job = Job(
        datasets,
        root,
        cache,
        selection=Selection(
            limit=limit,
            part=part,
            retry_failed=retry_failed,
            overwrite=overwrite,
            check_audio=check_audio,
            accept_changes=accept_changes,
            accept_cut=accept_cut,
        ),
        device=device,
        jobs=jobs,
        scheduler=scheduler,
        worker_resources=worker_resources,
        splits=splits,
        choices=choices,
        name=name or "",
        replace=replace,
        tell=_print_event if events else _print_end if as_json else ignore,
        encoder=encoder,
        revision=revision,
        chords=chords,
        chord_checkpoint=chord_checkpoint,
        layers=_parse_layers(layers),
        tail=tail,
        resampler=resampler,
        precision=precision,
    )
    if job.sessions[0].config.encoder == "tiny":
        say("the tiny encoder is untrained: good for trying out, not for results", "note")
    if dry_run:
        from m2e.extract.job.estimate import say_estimate

        for session in job.sessions:
            say_estimate(session, jobs)
        return
    if export_chords:
        _check_exports(job.sessions, export_chords)
    with interruptible(lambda: job.say_what_is_kept(sys.argv[1:])):
        found = job.run()
    if export_chords:
        _export_chords(job.sessions, export_chords)
    if not all(each.is_good(strict) for each in found):
        raise SystemExit(1)


def _print_event(event: str, dataset: str, values: Mapping[str, object]) -> None:
    click.echo(json.dumps({"event": event, "dataset": dataset, **values}))


def _print_end(event: str, dataset: str, values: Mapping[str, object]) -> None:
    if event in ("end", "estimate"):
        _print_event(event, dataset, values)


def _check_exports(sessions: list[Session], folder: Path) -> None:
    """Before hours of work, and before the first data set's are written."""
    from m2e.common.files import check_export
    from m2e.extract.chords.files import chord_files

    for session in sessions:
        manifest = session.manifest
        check_export(
            folder / manifest.name, (name for track in manifest.tracks for name in chord_files(track.track_id))
        )


def _export_chords(sessions: list[Session], folder: Path) -> None:
    from m2e.cache import FeatureCache
    from m2e.cache.folders import feature_names, fingerprint_of
    from m2e.extract.chords.files import export_chords

    for session in sessions:
        if not feature_names(session.features):
            say(f"{session.manifest.name}: no chords are written, for no track could be extracted", "note")
            continue
        with FeatureCache.open(session.folder, fingerprint_of(session.features)) as cache:
            n = export_chords(cache, folder / session.manifest.name)
        say(f"{session.manifest.name}: the chords of {n} tracks are in {folder / session.manifest.name}")


def _parse_layers(text: str) -> tuple[int, ...]:
    try:
        layers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        layers = ()
    if not layers or layers[0] < 0 or not 0 < layers[-1] <= HIGHEST_LAYER:
        raise click.BadParameter(
            f"{text!r} is not a list such as 5,6,7 (0 is the input of block 1)", param_hint="--layers"
        )
    return layers
