"""m2e-cache: look into caches, check them, take data out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

from m2e.cache.console import Group, say
from m2e.cache.errors import DataError
from m2e.cache.failures import read_failures
from m2e.cache.harmony import PITCH_CLASSES
from m2e.cache.reader import FeatureCache
from m2e.cache.shards import is_intact
from m2e.cache.writer import features_folder

EPILOG = """\b
Examples:
  m2e-cache info features/deam
  m2e-cache verify features/deam
  m2e-cache export features/deam --out deam-features
"""

folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
features_option = click.option("--features", metavar="PREFIX", help="Which settings, where a folder holds several.")


@click.group(cls=Group, epilog=EPILOG)
def main() -> None:
    """Look into feature caches (made by m2e-extract), check them, and take data out.

    FOLDER is the cache of one data set, such as features/deam.
    """


@main.command(epilog="Example: m2e-cache info features/deam --json")
@folder_argument
@features_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def info(folder: Path, features: str | None, as_json: bool) -> None:
    """Show what a cache holds: tracks, hours, splits, labels, settings, failures."""
    cache = FeatureCache.open(folder, features)
    content = features_folder(folder, cache.config)
    labels = cache.labels
    failures = read_failures(content, done=cache.track_ids)
    facts: dict[str, Any] = {
        "dataset": labels.dataset,
        "letter": labels.letter,
        "tracks": len(cache.track_ids),
        "tracks_in_manifest": len(labels.track_ids),
        "segments": cache.n_segments,
        "hours": round(cache.hours, 3),
        "splits": dict(Counter(split or "none" for split in cache.splits)),
        "tags": len(labels.tag_names),
        "provenance": labels.provenance,
        "bytes": sum(path.stat().st_size for path in content.iterdir()),
        "failures": dict(Counter(failure.stage for failure in failures.values())),
        "fingerprint": cache.config.fingerprint,
        "config": json.loads(cache.config.to_json()),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name:18}  {shown if shown not in ('', None) else '-'}")
    for failure in list(failures.values())[:10]:
        click.echo(f"{'failed':18}  {failure.track_id}: {failure.reason}")


@main.command(epilog="Example: m2e-cache verify features/deam")
@folder_argument
def verify(folder: Path) -> None:
    """Compare every feature file with the digest in its name; exit 1 and list those that differ."""
    shards = sorted(folder.glob("features-*/shard-*.h5"))
    if not shards:
        raise DataError(f"{folder} holds no feature files: give the cache of one data set, such as features/deam")
    damaged = [path for path in shards if not is_intact(path)]
    for path in damaged:
        click.echo(f"{path}")
    if damaged:
        raise DataError(
            f"{len(damaged)} of {len(shards)} files are damaged: move them away and run m2e-extract again, "
            "which redoes their tracks"
        )
    say(f"{folder}: all {len(shards)} files are as they were written.")


@main.command(epilog="Example: m2e-cache export features/deam --out deam-features")
@folder_argument
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@features_option
def export(folder: Path, out: Path, features: str | None) -> None:
    """Write a cache as embeddings.npz (arrays embeddings, first, track_ids), tracks.csv and chords.csv."""
    cache = FeatureCache.open(folder, features)
    table = cache.load()
    labels = cache.labels
    row = {track_id: i for i, track_id in enumerate(labels.track_ids)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.savez(
            out / "embeddings.npz",
            embeddings=table.embeddings,
            first=table.first,
            layers=np.array(cache.layers),
            track_ids=np.array(table.track_ids, np.str_),
        )
        with (out / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["track_id", "split", "key_tonic", "key_mode", "valence", "arousal", *labels.tag_names])
            for track_id, key in zip(table.track_ids, table.keys, strict=True):
                i = row.get(track_id)
                harmony = [PITCH_CLASSES[key.tonic], key.mode] if key else ["", ""]
                if i is None:  # the manifest changed after this track was extracted
                    writer.writerow([track_id, "", *harmony, "", "", *[""] * len(labels.tag_names)])
                    continue
                values = ["" if np.isnan(value) else f"{value:g}" for value in labels.valence_arousal[i]]
                writer.writerow([track_id, labels.splits[i], *harmony, *values, *labels.tags[i].tolist()])
        with (out / "chords.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["track_id", "start", "end", "chord"])
            for track_id, chords in zip(table.track_ids, table.chords, strict=True):
                for (start, end), label in zip(chords.intervals.tolist(), chords.labels, strict=True):
                    writer.writerow([track_id, f"{start:.3f}", f"{end:.3f}", label])
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}") from error
    say(f"{len(table.track_ids)} tracks are in {out}: embeddings.npz, tracks.csv, chords.csv.")
