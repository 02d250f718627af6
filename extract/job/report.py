"""What m2e-extract says about a data set: before it works, and at the end."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from m2e.cache.failures import Failure
from m2e.cache.folders import MOST_MISSING, features_folders, fingerprint_of, training_command
from m2e.common.console import say
from m2e.extract.audio.unheard import Unheard
from m2e.extract.job.plan import Plan
from m2e.extract.job.shard import Part
from m2e.manifests.read.missing import name_missing
from m2e.manifests.types import Manifest

_MOST_LISTED = 20
_MOST_MISSING = 10
_BUSY_ENOUGH = 0.9


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        new: tracks that were extracted.
        again: of these, tracks that the cache held already.
        failed: tracks that were not.
        unheard: tracks whose audio could not be read.
        spans: beginnings and ends of each GPU's work, see `m2e.extract.workers.gpu.Busy`.
    """

    new: int = 0
    again: int = 0
    failed: dict[str, Failure] = field(default_factory=dict)
    unheard: list[Unheard] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def done(self) -> int:
        return self.new + len(self.failed) + len(self.unheard)

    @property
    def gpu_busy(self) -> float | None:
        """Share of the time, from each GPU's first work to its last, in which it computed, the mean over GPUs; 0 to 1.
        None where there is nothing to tell."""
        shares = [share for spans in self.spans.values() if (share := _busy(spans)) is not None]
        return sum(shares) / len(shares) if shares else None


def _busy(spans: Sequence[tuple[float, float]]) -> float | None:
    if not spans:
        return None
    first = reached = min(spans)[0]
    computing = 0.0
    for began, ended in sorted(spans):  # of several processes, so they may overlap
        computing += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return computing / (reached - first) if reached > first else None


def print_event(event: str, dataset: str, **values: object) -> None:
    """One line of JSON on standard output, for scripts that follow a run (docs/commands.md lists them)."""
    click.echo(json.dumps({"event": event, "dataset": dataset, **values}))


def announce(manifest: Manifest, part: Part, plan: Plan) -> None:
    """Say what there is to do."""
    say(
        f"{manifest.name}: {len(manifest.tracks)} tracks, "
        + (f"in part {part} of them " if part.count > 1 else "")
        + f"{len(plan.done)} in the cache, {len(plan.tasks)} to do"
        + (f", {len(plan.missing)} without audio" if plan.missing else "")
        + (f", {len(plan.unreadable)} whose audio cannot be looked at" if plan.unreadable else "")
        + (f", {len(plan.failed)} failed before (--retry-failed tries them again)" if plan.failed else "")
    )
    for line in name_missing(plan.missing, _MOST_MISSING if plan.tasks or plan.done else 1):
        say(line, "no file")
    if plan.unreadable:
        track, reason = plan.unreadable[0]
        say(f"{track.audio_path}: {reason}" + _and_more(len(plan.unreadable) - 1), "unreadable", "red")
    if plan.unheard:
        say(f"the audio of {plan.unheard} tracks in the cache is not there, or cannot be read: they stay", "note")
    if plan.changed:
        say(
            f"the audio of {len(plan.changed)} tracks changed since it was extracted (first: {plan.changed[0]}): "
            "they are extracted again, and what the cache holds of them stays until then",
            "note",
        )


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def summarise(manifest: Manifest, part: Part, features: Path, plan: Plan, tally: Tally, as_json: bool) -> None:
    """Say what is in the cache's folder `features`, and what comes next; with `as_json` on standard output too."""
    folder = features.parent
    failures = {**plan.failed, **tally.failed}
    quarantined = [failure for failure in failures.values() if failure.stage == "worker"]
    kept = len(plan.done) + len(plan.again) + tally.new - tally.again
    if as_json:
        print_event(
            "end",
            manifest.name,
            cache=str(folder),
            shard=str(part),
            tracks=sum(track.track_id in part for track in manifest.tracks),
            kept=kept,
            new=tally.new,
            failed=len(failures),
            quarantined=len(quarantined),
            missing=len(plan.missing),
            unreadable=len(plan.unreadable),
            unheard=plan.unheard,
            **({} if tally.gpu_busy is None else {"gpu_busy": round(tally.gpu_busy, 3)}),
            seconds=round(time.monotonic() - tally.started, 3),
        )
    for failure in quarantined[:_MOST_LISTED]:
        say(f"{failure.track_id} ({failure.path}): {failure.reason}", "quarantined", "red")
    if len(quarantined) > _MOST_LISTED:
        say(f"{len(quarantined) - _MOST_LISTED} more tracks: `m2e-cache failures {folder}`", "quarantined", "red")
    if tally.gpu_busy is not None:
        waiting = "; it waited for decoding: give it more processes (--jobs)" if tally.gpu_busy < _BUSY_ENOUGH else ""
        say(f"the GPU was computing {tally.gpu_busy:.0%} of the time{waiting}")
    if part.count > 1:
        following = f"Next, when all {part.count} parts are done: m2e-cache pack {folder}"
    elif kept:
        several = len(features_folders(folder)) > 1
        which = fingerprint_of(features)[:8] if several else ""
        partial = len(manifest.tracks) - kept > MOST_MISSING * len(manifest.tracks)
        following = f"Next: {training_command(manifest.letter or manifest.name, folder, which, partial)}"
    else:
        following = ""
    where = f"{folder}, of part {part}" if part.count > 1 else f"{folder}"
    older = sum(bool(failure.keeps) for failure in failures.values())
    failed = f"{len(failures)} failed" + (f", of which {older} keep their older features" if older else "")
    counts = f"{tally.new} new, {failed}, {len(plan.missing)} without audio"
    if plan.unreadable:
        counts += f", {len(plan.unreadable)} unreadable"
    say(f"{manifest.name}: {kept} of {len(manifest.tracks)} tracks are in {where} ({counts}). {following}".rstrip())
