"""What m2e-extract says about a data set: before it works, and at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from m2e.cache.failures import Failure
from m2e.cache.folders import MOST_MISSING, features_folders, fingerprint_of, training_command
from m2e.common.console import say
from m2e.extract.audio.unheard import Unheard
from m2e.extract.job.part import Part
from m2e.extract.job.plan import Plan
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


Tell = Callable[[str, str, Mapping[str, object]], object]


def ignore(event: str, dataset: str, values: Mapping[str, object]) -> None:
    """Nobody asked."""


@dataclass(frozen=True)
class Extracted:
    """What came of a data set's extraction, in numbers of tracks.

    Attributes:
        dataset: its name.
        cache: its cache folder.
        shard: the part of the tracks that was asked for, such as "0/1".
        tracks: in that part.
        kept: that the cache holds now.
        new: of these, those that were extracted now.
        failed: that could not be extracted, now or before.
        quarantined: of these, those at which workers died.
        missing, unreadable: without features, whose audio is not there, or cannot be read.
        unheard: with features, whose audio is not there or cannot be read.
        gpu_busy: share of the time in which GPUs computed; None without any.
        seconds: it took.
        is_packed: False where damage or a lock kept shards from being packed.
    """

    dataset: str
    cache: Path
    shard: str
    tracks: int
    kept: int
    new: int
    failed: int
    quarantined: int
    missing: int
    unreadable: int
    unheard: int
    gpu_busy: float | None
    seconds: float
    is_packed: bool

    @classmethod
    def of(cls, manifest: Manifest, part: Part, folder: Path, plan: Plan, tally: Tally, is_packed: bool) -> Self:
        """Count."""
        failures = {**plan.failed, **tally.failed}
        return cls(
            dataset=manifest.name,
            cache=folder,
            shard=str(part),
            tracks=sum(track.track_id in part for track in manifest.tracks),
            kept=len(plan.done) + len(plan.again) + tally.new - tally.again,
            new=tally.new,
            failed=len(failures),
            quarantined=sum(failure.stage == "worker" for failure in failures.values()),
            missing=len(plan.missing),
            unreadable=len(plan.unreadable),
            unheard=plan.unheard,
            gpu_busy=tally.gpu_busy,
            seconds=time.monotonic() - tally.started,
            is_packed=is_packed,
        )

    def is_good(self, strict: bool = False) -> bool:
        """Whether something is there, and packed; with `strict`, whether nothing failed or is missing, too."""
        left_out = bool(self.missing or self.unreadable or self.failed)
        return self.is_packed and not (left_out and (strict or not self.kept))

    def as_json(self) -> dict[str, object]:
        """As m2e-extract prints it (docs/commands.md)."""
        values = {**asdict(self), "cache": str(self.cache), "seconds": round(self.seconds, 3)}
        del values["dataset"], values["is_packed"], values["gpu_busy"]
        return values if self.gpu_busy is None else {**values, "gpu_busy": round(self.gpu_busy, 3)}


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


def summarise(found: Extracted, manifest: Manifest, part: Part, features: Path, plan: Plan, tally: Tally) -> None:
    """Say what is in the cache's folder `features`, and what comes next."""
    folder, kept = features.parent, found.kept
    failures = {**plan.failed, **tally.failed}
    quarantined = [failure for failure in failures.values() if failure.stage == "worker"]
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
