"""m2e-cache: look into caches, check and repair them, put them together, take data out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from m2e.common.console import PluginGroup, counting, say, tell
from m2e.common.errors import DataError

if TYPE_CHECKING:
    from m2e.cache.care.verify import Damage

EPILOG = """\b
Examples:
  m2e-cache info features/deam
  m2e-cache verify features/deam --deep
  m2e-cache pack features/deam
  m2e-cache merge node1/deam node2/deam --into features/deam
  m2e-cache export features/deam --out deam-features

\b
Exit codes: 0 all is well; 1 something is damaged or cannot be done, and the last line says what; 2 wrong usage.
"""
# Of long lists on the terminal; --json has all.
_SHOWN = 20

folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
features_option = click.option("--features", metavar="PREFIX", help="Which settings, where a folder holds several.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
break_lock_option = click.option(
    "--break-lock", is_flag=True, help="On a file system without locks: take the one that a dead process left."
)


@click.group(cls=PluginGroup, entry_points="m2e.cache.commands", epilog=EPILOG)
def main() -> None:
    """Look into feature caches (made by m2e-extract), check and repair them, put them together, take data out.

    FOLDER is the cache of one data set, such as features/deam.
    """


@main.command(epilog="Example: m2e-cache info features/deam --json")
@folder_argument
@features_option
@json_option
def info(folder: Path, features: str | None, as_json: bool) -> None:
    """Show what a cache holds: tracks, hours, splits, labels, failures, settings and where settings differ."""
    from m2e.cache.info import cache_facts

    facts = cache_facts(folder, features)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name in ("dataset", "letter", "tracks_in_manifest", "tags", "labels", "table_in"):
        _print_fact(name, facts[name])
    for group in facts["features"]:
        click.echo("")
        for name, value in group.items():
            if name == "failed":
                for failure in value[:_SHOWN]:
                    _print_fact(name, f"{failure['track_id']}: {failure['reason']}")
            elif name in ("environments", "several"):
                for line in value:
                    _print_fact({"environments": "versions"}.get(name, name), line)
            elif name == "noted":
                for track in value[:_SHOWN]:
                    _print_fact(name, f"{track['track_id']}: {'; '.join(note['text'] for note in track['notes'])}")
            else:
                _print_fact(name, value)
    for path in facts["left_alone"]:
        say(f"{path} looks like a temporary file and is left alone: remove it when no process writes here", "note")
    if facts["differ"]:
        click.echo("")
        for name, values in facts["differ"].items():
            _print_fact("differ in", f"{name}: {' | '.join(map(str, values))}")
        say("Several settings: m2e-train and m2e-cache export choose by --features and the beginning of a fingerprint.")


def _print_fact(name: str, value: Any) -> None:
    shown = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
    tell(f"{name:18}  {shown if shown not in ('', None) else '-'}")


@main.command(epilog="Example: m2e-cache verify features/deam --deep")
@folder_argument
@click.option("--deep", is_flag=True, help="Check every record and chord, not only the digest of each file.")
@json_option
def verify(folder: Path, deep: bool, as_json: bool) -> None:
    """Find damaged files, and the damaged tracks in them, and files that cannot be read; exit 1 where there are any.

    Each file is compared with the digest in its name.
    """
    from m2e.cache.care.verify import Damage, verify
    from m2e.cache.folders import (
        CONFIG_FILE,
        LABELS_FILE,
        LOST_LABELS,
        LOST_SETTINGS,
        feature_files,
        features_folders,
        read_config,
        with_settings,
        without_settings,
    )
    from m2e.cache.labels import has_labels, read_labels
    from m2e.cache.reader import scan

    lost = without_settings(folder)
    groups = with_settings(folder) if lost else features_folders(folder)
    n = sum(len(feature_files(group)) for group in groups)
    found, notes = [], []
    there: set[str] = set()
    with counting("checking", n, "files") as advance:
        for group in groups:
            found += verify(group, deep=deep, advance=advance)
            with contextlib.suppress(DataError):  # of its settings, which is found already
                catalogue = scan(group, read_config(group), {})
                notes += catalogue.several
                there.update(track_id.decode() for track_id in catalogue.index["id"].tolist())
    found += [Damage(group / CONFIG_FILE, f"{group.name} {LOST_SETTINGS}", (), "lost") for group in lost]
    if has_labels(folder):
        try:
            read_labels(folder)
        except DataError as error:
            found.append(Damage.of(folder / LABELS_FILE, error))
    else:
        found.append(Damage(folder / LABELS_FILE, f"{folder} {LOST_LABELS}. {_named(there)}", (), "lost"))
    if as_json:
        click.echo(json.dumps({"files": n, "damaged": [_as_json(its) for its in found], "notes": notes}, indent=2))
    else:
        _print_damage(found)
    for note in notes:
        say(note, "note")
    damaged, missing = (sum(its.kind == kind for its in found) for kind in ("damaged", "lost"))
    if found:
        others = len(found) - damaged - missing
        raise DataError(
            f"{damaged} of {n + 1} files are damaged"
            + (f", and {others} cannot be used as they are" if others else "")
            + (f", and {missing} are not there" if missing else "")
            + (
                f": `m2e-cache repair {folder}` sets damaged ones aside, saves what is good and says what to do again"
                if damaged
                else ": no features are known to be lost; make readable what cannot be read, update m2e where that is "
                "asked for, or do what else the lines above say"
            )
        )
    say(f"{folder}: {n} files are as they were written, and so are the labels.")


def _named(track_ids: Collection[str]) -> str:
    """How many tracks have features, and which."""
    shown = sorted(track_ids)[:_SHOWN]
    more = f", and {len(track_ids) - len(shown)} more" if len(track_ids) > len(shown) else ""
    return f"{len(track_ids)} tracks have features: {', '.join(shown)}{more}" if shown else "No track has features"


def _as_json(damage: Damage) -> dict[str, Any]:
    return {**asdict(damage), "path": str(damage.path)}


def _print_damage(damage: list[Damage] | tuple[Damage, ...]) -> None:
    for its in damage:
        tell(its.path, its.kind, its.reason)
        for track_id in its.tracks:
            tell(f"  {track_id}")


@main.command(epilog="Example: m2e-cache repair features/deam")
@folder_argument
@break_lock_option
@json_option
def repair(folder: Path, break_lock: bool, as_json: bool) -> None:
    """Set damaged files aside, save the good records in them, and say what to extract again.

    A file is damaged where its digest is not the one in its name. It moves to the folder set-aside beside it; nothing
    is deleted. What cannot be read, or was written by a newer m2e, stays where it is.
    """
    from m2e.cache.care.repair import repair
    from m2e.cache.folders import LOST_LABELS, LOST_SETTINGS, feature_files, with_settings

    n = sum(len(feature_files(group)) for group in with_settings(folder))
    with counting("checking", n, "files") as advance:
        done = repair(folder, break_lock=break_lock, advance=advance)
    if as_json:
        lists = {name: [_as_json(its) for its in getattr(done, name)] for name in ("damage", "left")}
        click.echo(json.dumps({**asdict(done), **lists}, indent=2))
    else:
        _print_damage((*done.damage, *done.left))
        for track_id in done.redo[:_SHOWN]:
            tell(f"redo  {track_id}")
        if len(done.redo) > _SHOWN:
            tell(f"redo  and {len(done.redo) - _SHOWN} more")
        for track_id, now in done.older.items():
            tell(f"older  {track_id}  {now}")
    for group in done.lost:
        say(f"{group} {LOST_SETTINGS}", "note")
    if done.unlabelled:
        say(f"{folder} {LOST_LABELS}. {_named(done.unlabelled)}", "note")
    if done.older:
        say(f"the newest records of {len(done.older)} tracks were damaged, and older ones are read now", "note")
    if done.untold:
        say(
            f"{done.untold} damaged files do not tell which tracks they held: older records of these may be read now",
            "note",
        )
    say(
        f"{folder}: {len(done.damage)} files set aside, {len(done.saved)} tracks saved from them, "
        + (f"{len(done.left)} left that cannot be used as they are, " if done.left else "")
        + f"{len(done.redo)} to extract. "
        + (
            f"Next: {'; '.join(done.commands)}"
            if done.commands
            else ""
            if done.lost or done.left or done.unlabelled
            else "Nothing more to do."
        )
    )
    if done.left:
        raise DataError(
            f"{len(done.left)} files cannot be used and stay where they are; what cannot be read may be good. The "
            f"first: {done.left[0].reason}"
        )


@main.command(epilog="Example: m2e-cache pack features/deam")
@folder_argument
@features_option
@break_lock_option
def pack(folder: Path, features: str | None, break_lock: bool) -> None:
    """Put shards together into packs of 1,024 tracks, which load fastest.

    The same tracks give the same bytes. Others may extract and train meanwhile; a kill loses nothing.
    """
    from m2e.cache.care.pack import pack
    from m2e.cache.folders import features_folders

    for group in features_folders(folder, features):
        with counting("packing", None, "tracks") as advance:
            done = pack(group, break_lock=break_lock, advance=advance)
        say(
            f"{group}: {done.tracks} tracks in {done.packs} packs ({done.written} new, {done.removed} files replaced"
            + (f", {done.replaced} tracks had an older record" if done.replaced else "")
            + f"). Next: m2e-train --cache {folder.parent}"
        )
        for note in done.notes:
            say(note, "note")


@main.command(epilog="Example: m2e-cache merge node1/deam node2/deam --into features/deam")
@click.argument(
    "sources", nargs=-1, required=True, metavar="SRC...", type=click.Path(path_type=Path, file_okay=False, exists=True)
)
@click.option("--into", required=True, type=click.Path(path_type=Path, file_okay=False), help="The cache to fill.")
@features_option
@break_lock_option
def merge(sources: tuple[Path, ...], into: Path, features: str | None, break_lock: bool) -> None:
    """Copy caches of one data set, from several machines, into one; the sources stay.

    Settings and labels must be the same; everything is compared before anything is copied.
    """
    from m2e.cache.care.merge import merge
    from m2e.cache.folders import feature_files, one_features_folder

    n = sum(len(feature_files(one_features_folder(source, features))) for source in sources)
    with counting("copying", n, "files") as advance:
        done = merge(sources, into, features, break_lock=break_lock, advance=advance)
    say(f"{into}: {done.tracks} tracks, {done.new} new, in {done.files} files copied. Next: m2e-cache pack {into}")


@main.command(epilog="Example: m2e-cache failures features/deam")
@folder_argument
@features_option
@json_option
def failures(folder: Path, features: str | None, as_json: bool) -> None:
    """List the tracks that could not be extracted: id, stage, attempts, audio file and reason, between tabs.

    With them those that could not be extracted again and keep their older features.
    """
    from m2e.cache.failures import read_failures
    from m2e.cache.folders import folder_of_failures, one_features_folder, read_config
    from m2e.cache.reader import scan

    if group := folder_of_failures(folder):  # nothing at all could be extracted
        found = read_failures(group, {})
    else:
        group = one_features_folder(folder, features)
        found = read_failures(group, scan(group, read_config(group)).audio_sha256)
    if as_json:
        click.echo(json.dumps([asdict(failure) for failure in found.values()], indent=2))
    else:
        for its in found.values():
            tell(its.track_id, its.stage, its.attempts, its.path, its.reason)
    older = sum(bool(its.keeps) for its in found.values())
    say(
        f"{folder}: {len(found)} tracks failed"
        + (f"; {older} of them keep their older features." if older else ".")
        + (" m2e-extract --retry-failed tries them again." if found else "")
    )


@main.command(epilog="Example: m2e-cache export features/deam --out deam-features")
@folder_argument
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@features_option
def export(folder: Path, out: Path, features: str | None) -> None:
    """Write a cache as embeddings.npz (arrays embeddings, first, track_ids), tracks.csv and chords.csv."""
    from m2e.cache.care.export import export
    from m2e.cache.reader import FeatureCache

    n = export(FeatureCache.open(folder, features), out)
    say(f"{n} tracks are in {out}: embeddings.npz, tracks.csv, chords.csv.")
