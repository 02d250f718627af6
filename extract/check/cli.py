"""m2e-manifest verify-audio: whether a data set's audio is what it should be. It is here because it decodes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from m2e.common.console import PROCESSES, Command, counting, say, tell
from m2e.common.errors import DataError
from m2e.manifests import is_table
from m2e.manifests.dataset import Choices
from m2e.manifests.options import check_choices, choices_options, json_option, root_option

if TYPE_CHECKING:
    from m2e.extract.check.audio import Tally
    from m2e.manifests.types import Manifest

EPILOG = """\b
Examples:
  m2e-manifest verify-audio deam --root data/deam
  m2e-manifest verify-audio my-songs.csv --jobs 8 --json
  m2e-manifest verify-audio mtg-jamendo --root data/mtg-jamendo --digests
"""
_MOST_MISSING = 10


@click.command("verify-audio", cls=Command, epilog=EPILOG)
@click.argument("name", metavar="NAME|FILE.csv")
@root_option
@choices_options
@click.option(
    "--digests", "digests_only", is_flag=True, help="Only compare files with published digests; decode nothing."
)
@click.option("--jobs", type=PROCESSES, metavar="N", help="Processes that decode.  [default: one a core]")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where good files are noted.  [default: in the folder]",
)
@click.option("--allow-missing", is_flag=True, help="Missing files are no failure: only some were to be downloaded.")
@json_option
def verify_audio(
    name: str,
    root: Path | None,
    choices: Choices,
    digests_only: bool,
    jobs: int | None,
    state: Path | None,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Decode all audio of a data set and list what is cut, damaged, no audio, silent, clipped, or otherwise odd; and
    compare it with the SHA-256 that the data set publishes, where it does.

    A line is a finding: its kind, the file, and what there is to say. Interrupted? Run the same command again: files
    of which there is nothing to say are not read again. Where a track is there in full and in low quality, the full
    one counts. Exit code 1: files are missing, or cannot be extracted as they are.
    """
    from m2e.manifests import default_root, find, load
    from m2e.manifests.check.digests import STATE_FILE

    check_choices(choices, [name])
    folder = root or (Path(name).parent if is_table(name) else default_root(name))
    state = state or folder / STATE_FILE
    if digests_only:
        digests = _published(name, folder)
        _compare(load(name, root, choices=choices), digests, state, allow_missing, as_json)
        return
    manifest = load(name, root, choices=choices)
    digests = {}
    if not is_table(name) and find(name).audio_digests:
        try:
            digests = _published(name, folder)
        except DataError as error:
            say(f"{error}. Audio is decoded, but compared with no digests", "note")
    _hear(manifest, digests, state, jobs, allow_missing, as_json)


def _published(name: str, folder: Path) -> dict[str, str]:
    from m2e.manifests import find
    from m2e.manifests.check.digests import published_digests

    return published_digests(find(name), folder)


def _hear(
    manifest: Manifest, digests: dict[str, str], state: Path, jobs: int | None, allow_missing: bool, as_json: bool
) -> None:
    from m2e.common.cores import cpu_count
    from m2e.extract.check.audio import Tally, hear_all

    tally = Tally()
    try:
        with counting("decoding", len(manifest.tracks), "files") as advance:
            for found in hear_all(manifest, digests, state, jobs or cpu_count(), advance, tally):
                if not as_json:
                    tell(found.kind, found.path, found.text)
    except KeyboardInterrupt:
        say(f"interrupted: {tally.good} good files are noted. Run the same command to go on.")
        raise SystemExit(130) from None
    counts = {"good": tally.good, **tally.counts, "missing": len(tally.missing)}
    if as_json:
        facts = {
            "dataset": manifest.name,
            "hours": round(tally.seconds / 3600, 3),
            "counts": counts,
            "findings": [asdict(found) for found in tally.findings],
            "missing": {track.track_id: str(track.audio_path) for track in tally.missing},
        }
        click.echo(json.dumps(facts))
    _conclude(manifest, tally, ", ".join(f"{count} {kind}" for kind, count in counts.items()), allow_missing)


def _conclude(manifest: Manifest, tally: Tally, counts: str, allow_missing: bool) -> None:
    from m2e.manifests.read.missing import name_missing

    if tally.missing and not allow_missing:
        for line in name_missing(tally.missing, _MOST_MISSING):
            say(line, "no file")
    if tally.failed:
        raise DataError(
            f"{tally.failed} audio files of {manifest.name} cannot be extracted as they are ({counts}): get "
            "these again. m2e-extract passes over them; with --accept-cut it takes what there is of cut or damaged ones"
        )
    if tally.missing and not allow_missing:
        raise DataError(
            f"{len(tally.missing)} audio files of {manifest.name} are missing ({counts}); --allow-missing accepts that"
        )
    if not tally.good and not tally.findings:
        raise DataError(f"nothing of {manifest.name} could be decoded ({counts})")
    before = f"; {tally.known} of the good ones were known" if tally.known else ""
    say(f"{manifest.name}: {counts}, of {tally.seconds / 3600:.1f} hours that were decoded{before}.")


def _compare(manifest: Manifest, digests: dict[str, str], state: Path, allow_missing: bool, as_json: bool) -> None:
    from m2e.manifests.check.digests import verify_audio as verify_files

    name = manifest.name
    tally: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {"bad": [], "unreadable": []}
    try:
        with counting("verifying", len(manifest.tracks), "files") as advance:
            for verdict in verify_files(manifest, digests, state):
                tally[verdict.state] += 1
                if verdict.state in wrong:
                    wrong[verdict.state].append(str(verdict.path))
                    if not as_json:
                        tell(verdict.state, verdict.path)
                advance(1)
    except KeyboardInterrupt:
        say(f"interrupted: {tally['good']} good files are noted. Run the same command to go on.")
        raise SystemExit(130) from None
    states = ("good", "bad", "unreadable", "missing", "unlisted")
    if as_json:
        click.echo(json.dumps({"dataset": name, **{state: tally[state] for state in states}, "paths": wrong}))
    counts = ", ".join(f"{tally[state]} {state}" for state in states)
    if differing := tally["bad"] + tally["unreadable"]:
        raise DataError(f"{differing} audio files of {name} are not as published ({counts}): get these again")
    if tally["missing"] and not allow_missing:
        raise DataError(
            f"{tally['missing']} audio files of {name} are missing ({counts}); --allow-missing accepts that"
        )
    if not tally["good"]:
        raise DataError(f"nothing of {name} could be verified ({counts}): is the list of this quality there?")
    say(f"{name}: {counts}.")
