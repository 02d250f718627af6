"""m2e-extract: audio to cache."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from m2e.cache.console import Command, cache_option, device_option, progress_bar, say

if TYPE_CHECKING:
    from m2e.cache import ExtractionConfig, FeatureWriter, TrackFeatures
    from m2e.cache.failures import Failure
    from m2e.extract.encoders import EncoderSource
    from m2e.extract.pipeline import Plan
    from m2e.manifests.track import Manifest

EPILOG = """\b
Examples:
  m2e-extract --dataset emomusic --root data/emomusic
  m2e-extract --dataset mtg-jamendo --root /music/mtg-jamendo --jobs 16
  m2e-extract --dataset deam --dataset pmemo
  m2e-extract --dataset my-songs.csv --encoder tiny --chords template

\b
Data sets: mtg-jamendo (J), deam (D), emomusic (E), pmemo (P), demo-jamendo, demo-deam,
demo-emomusic, demo-pmemo, or a CSV of your own with the columns track_id, path and tags
and/or valence, arousal.

\b
Interrupted? Run the same command again: it goes on where it stopped.
Exit codes: 0 all good tracks are in; 1 none is (or --strict and some failed); 2 wrong usage;
130 or 143 interrupted, what was done is kept.
"""


class _Terminated(BaseException):
    """SIGTERM arrived; an exception, so that the open shard is sealed on the way out."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


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
    type=click.Choice(["btc", "template"]),
    default="btc",
    show_default=True,
    help="Chord recogniser: BTC with its published weights, or templates, which need none.",
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
    type=click.Choice(["drop", "keep"]),
    default="drop",
    show_default=True,
    help="The remainder after the last full 30 s segment; kept only from 5 s on.",
)
@click.option(
    "--resampler",
    type=click.Choice(["sinc_hann", "soxr_hq"]),
    default="sinc_hann",
    show_default=True,
    help="To 24 kHz: as the released code does, or soxr.",
)
@click.option(
    "--splits",
    type=click.Path(path_type=Path, file_okay=False),
    help="For one data set: folder with train.txt, validation.txt, test.txt, an id a line, in place of its own splits.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N tracks that have audio.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes.  [default: one a core]")
@device_option
@click.option("--retry-failed", is_flag=True, help="Try tracks again that failed before.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a track failed or has no audio.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on standard output, a line a data set.")
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
    splits: Path | None,
    limit: int | None,
    jobs: int | None,
    device: str,
    retry_failed: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Read a data set's audio once and write MERT embeddings of every 30 s segment, the chords and the key of each
    track into an HDF5 cache, from which m2e-train trains without touching audio again.

    A broken file is recorded and skipped.
    """
    from m2e import manifests
    from m2e.cache import ExtractionConfig, FeatureWriter
    from m2e.extract.chords import recogniser_revision
    from m2e.extract.encoders import find_encoder
    from m2e.extract.pipeline import make_plan
    from m2e.manifests.labels import save_labels

    if len(datasets) > 1 and (root or splits):
        raise click.UsageError(
            "--root and --splits are of one data set; for the folder that holds several set M2E_DATA"
        )
    loaded = [manifests.load(dataset, root, splits) for dataset in datasets]
    source = find_encoder(encoder, revision)
    if source.name == "tiny":
        say("the tiny encoder is untrained: good for trying out, not for results", "note")
    config = ExtractionConfig(
        encoder=source.name,
        encoder_revision=source.revision,
        layers=_parse_layers(layers),
        tail=tail,
        resampler=resampler,
        chords=chords,
        chords_revision=recogniser_revision(chords, chord_checkpoint),
    )
    complete, tally = True, Tally()
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        for manifest in loaded:
            for note in manifest.notes:
                say(note, "note")
            folder = cache / manifest.name
            _note_other_settings(folder, config)
            tally = Tally()
            with FeatureWriter(folder, config) as writer:
                save_labels(manifest, folder)
                plan = make_plan(manifest, writer.folder, config, limit, retry_failed)
                _announce(manifest, plan)
                if plan.todo:
                    _extract(plan, source, config, writer, chord_checkpoint, jobs, device, tally)
            complete &= _finish(manifest, plan, folder, tally, strict, as_json)
    except KeyboardInterrupt:
        _interrupted(tally, 130)
    except _Terminated:
        _interrupted(tally, 143)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if not complete:
        raise SystemExit(1)


@dataclass
class Tally:
    """What a run has done so far."""

    new: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def _interrupted(tally: Tally, code: int) -> NoReturn:
    say(f"interrupted: {tally.new} new tracks are kept. Run the same command to go on.")
    raise SystemExit(code)


def _parse_layers(text: str) -> tuple[int, ...]:
    try:
        layers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        layers = ()
    if not layers or layers[0] < 0 or layers[-1] == 0:
        raise click.BadParameter(
            f"{text!r} is not a list such as 5,6,7 (0 is the input of block 1)", param_hint="--layers"
        )
    return layers


def _note_other_settings(folder: Path, config: ExtractionConfig) -> None:
    from m2e.cache import ExtractionConfig
    from m2e.cache.writer import CONFIG_FILE, features_folder

    for path in sorted(folder.glob(f"features-*/{CONFIG_FILE}")):
        if path.parent != features_folder(folder, config):
            other = ExtractionConfig.from_json(path.read_text(encoding="utf-8"))
            differs = "; ".join(config.differences(other))
            say(f"{path.parent} has features of other settings ({differs}); these go beside them", "note")


def _announce(manifest: Manifest, plan: Plan) -> None:
    n = len(manifest.tracks)
    say(
        f"{manifest.name}: {n} tracks, {len(plan.done)} in the cache, {len(plan.todo)} to do"
        + (f", {len(plan.missing)} without audio" if plan.missing else "")
        + (f", {len(plan.failed)} failed before (--retry-failed tries them again)" if plan.failed else "")
    )
    if plan.missing and not plan.todo and not plan.done:
        first = next(track.audio_path for track in manifest.tracks if track.track_id == plan.missing[0])
        say(f"  the first missing file is {first}")
    if plan.changed:
        say(
            f"the audio of {len(plan.changed)} tracks changed since it was extracted (first: {plan.changed[0]}); "
            "the cache keeps the old features. To redo them, extract into another --cache",
            "note",
        )


def _extract(
    plan: Plan,
    source: EncoderSource,
    config: ExtractionConfig,
    writer: FeatureWriter,
    chord_checkpoint: Path | None,
    jobs: int | None,
    device: str,
    tally: Tally,
) -> None:
    from joblib import cpu_count

    from m2e.cache.failures import Failure
    from m2e.extract.chords import fetch_recogniser
    from m2e.extract.encoders import fetch_encoder
    from m2e.extract.pipeline import run
    from m2e.extract.track import Models

    if source.folder is None:
        say(f"looking for {source.name} (revision {source.revision[:8]}) in the local cache, then on the hub")
    fetched = fetch_encoder(source)
    weights = fetch_recogniser(config.chords, chord_checkpoint)  # here, once, not in every worker
    models = Models(config, fetched, weights, _choose_device(device))
    processes = 1 if models.device == "cuda" else min(jobs or cpu_count(), len(plan.todo))
    with progress_bar("tracks") as progress:
        task = progress.add_task("extracting", total=len(plan.todo), rate=0.0)
        started = time.monotonic()

        def report(result: TrackFeatures | Failure) -> None:
            if isinstance(result, Failure):
                tally.failed += 1
                say(f"{result.track_id}: {result.reason}", "failed", "red")
            else:
                tally.new += 1
            done = tally.new + tally.failed
            progress.update(task, advance=1, rate=done / (time.monotonic() - started))

        run(plan, models, writer, processes, report)


def _choose_device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.BadParameter("this machine has no CUDA device; use --device cpu", param_hint="--device")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _finish(manifest: Manifest, plan: Plan, folder: Path, tally: Tally, strict: bool, as_json: bool) -> bool:
    """Say what is in the cache, and return whether that is enough for exit code 0."""
    kept = len(plan.done) + tally.new
    failed = len(plan.failed) + tally.failed
    if as_json:
        summary = {
            "dataset": manifest.name,
            "cache": str(folder),
            "tracks": len(manifest.tracks),
            "kept": kept,
            "new": tally.new,
            "failed": failed,
            "missing": len(plan.missing),
            "seconds": round(tally.seconds, 3),
        }
        click.echo(json.dumps(summary))
    say(
        f"{manifest.name}: {kept} of {len(manifest.tracks)} tracks are in {folder} "
        f"({tally.new} new, {failed} failed, {len(plan.missing)} without audio). "
        + (f"Next: m2e-train --datasets {manifest.letter or manifest.name} --cache {folder.parent}" if kept else "")
    )
    return kept > 0 and not (strict and (failed or plan.missing))
