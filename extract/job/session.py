"""One data set through m2e-extract: what happens in which order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2e.cache import DataError, ExtractionConfig
from m2e.cache.care.pack import pack
from m2e.cache.catalogue import scan
from m2e.cache.failures import Failure, read_failures, settle_failure
from m2e.cache.folders import (
    CONFIG_FILE,
    LABELS_FILE,
    feature_names,
    features_folder,
    read_config,
    with_settings,
    write_config,
)
from m2e.common.console import console, progress_bar, say
from m2e.common.devices import usable_device
from m2e.common.errors import LockedError, NewerError, UnreadableError
from m2e.common.files import remove_stale_temporaries
from m2e.extract.audio.unheard import Unheard
from m2e.extract.job import overwriting
from m2e.extract.job.plan import Plan, Selection, make_plan
from m2e.extract.job.report import Extracted, Tally, Tell, announce, ignore, summarise
from m2e.extract.models import Models, Sources
from m2e.extract.workers.schedule import Engine, Lost
from m2e.manifests.store import Standing, save_labels, standing
from m2e.manifests.types import Manifest

# How often a run whose output nobody watches says how far it is.
_SAY_SECONDS = 60.0
# How long to wait for another process to let the cache's lock go.
_LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Session:
    """One run of m2e-extract on one data set.

    Attributes:
        manifest: the data set.
        cache: folder of all caches.
        sources: the models, and the settings of the features.
        selection: which tracks.
        device: "cpu", "cuda" or "auto".
        decoders: see `Models`.
        elsewhere: the workers are on other machines, so that the devices of this one say nothing.
        tell: takes in what happens: "plan", "track" and "end", the data set's name, and values of plain JSON
            (docs/commands.md lists them).
        replace: this manifest takes the place of another one of the same name.
    """

    manifest: Manifest
    cache: Path
    sources: Sources
    selection: Selection
    device: str
    decoders: int = 0
    elsewhere: bool = False
    tell: Tell = ignore
    replace: bool = False

    @property
    def config(self) -> ExtractionConfig:
        """The settings of the features."""
        return self.sources.config

    @property
    def folder(self) -> Path:
        """The data set's cache folder."""
        return self.cache / self.manifest.name

    @property
    def features(self) -> Path:
        """Where in it the features go."""
        return features_folder(self.folder, self.config)

    def run(self, engine: Callable[[Models], Engine]) -> Extracted:
        """Plan, extract what there is to do, pack, and say what came of it.

        Args:
            engine: gives workers for the models; called only when there is something to do.

        Raises:
            DataError: the cache cannot be written, a model cannot be loaded, or workers cannot live.
        """
        tally = Tally()
        for note in self.manifest.notes:
            say(note, "note")
        known = self.standing()
        self._note_other_settings()
        self._restore_settings()
        remove_stale_temporaries(self.features)
        plan = self.plan(known)
        self._ask(plan, known)
        part = self.selection.part
        announce(self.manifest, part, plan)
        self._save_labels(plan)
        counts = {"done": len(plan.done), "missing": len(plan.missing), "failed": len(plan.failed)}
        self.tell("plan", self.manifest.name, {"todo": len(plan.tasks), **counts})
        for failure in plan.settled:
            settle_failure(self.features, failure)
        if self.selection.overwrite and plan.again:
            overwriting.begin(self.features, part, plan.generation)
        if plan.tasks:
            self._extract(plan, engine, tally)
            left = {*tally.failed, *(its.track_id for its in tally.unheard)}
            done = {task.track_id for task in plan.tasks} - left
            plan = plan.after(tally.unheard, self.manifest.tracks)
            plan = plan.sealed(done, self.manifest.tracks, scan(self.features, self.config, {}).index)
            self._save_labels(plan)
        if self.selection.overwrite:
            overwriting.end(self.features, part)
        problem = self._pack() if part.count == 1 else None
        found = Extracted.of(self.manifest, part, self.folder, plan, tally, problem is None)
        self.tell("end", self.manifest.name, found.as_json())
        summarise(found, self.manifest, part, self.features, plan, tally)
        if problem:
            say(f"not packed: {problem}", "error", "red")
        return found

    def standing(self) -> Standing:
        """How far what the cache keeps is the manifest's. Raises DataError where it is another's of the same name."""
        return standing(self.manifest, self.folder, self.replace)

    def _ask(self, plan: Plan, known: Standing) -> None:
        """Raise DataError where the user has to say whether this is right."""
        name = self.manifest.name
        if self.selection.accept_changes or self.replace:
            return
        if plan.is_suspicious(known.moved):
            other = "; another data set needs another --name" if self.manifest.root else ""
            raise DataError(
                f"{name}: the audio of {len(plan.changed)} of {plan.compared} tracks is another than "
                f"when it was extracted (first: {plan.changed[0]}). Is this the right audio (--root)? If it is, "
                f"--accept-changes extracts them again{other}. Nothing was changed"
            )
        if plan.doubtful > len(plan.done) / 2 and (known.moved or not known.labelled):
            raise DataError(
                f"{self.folder} "
                + ("was made from another folder" if known.moved else f"has lost its {LABELS_FILE}")
                + f", and the audio of {plan.doubtful} of its {len(plan.done)} tracks is not there to be compared. Are "
                f"these the features of {name}? If they are, --accept-changes takes them as such. Nothing was changed"
            )

    def _save_labels(self, plan: Plan) -> None:
        save_labels(self.manifest, self.folder, plan.learn, replace=self.replace, wait=_LOCK_SECONDS)

    def _note_other_settings(self) -> None:
        for features in self._other_settings():
            try:
                differs = "; ".join(self.config.differences(read_config(features)))
            except DataError as error:
                say(str(error), "note")
            else:
                say(f"{features} has features of other settings ({differs}); these go beside them", "note")

    def _other_settings(self) -> list[Path]:
        return [features for features in with_settings(self.folder) if features != self.features]

    def _restore_settings(self) -> None:
        """A folder's name is the digest of its settings: where there are features, they are known."""
        if not feature_names(self.features):
            return
        try:
            read_config(self.features)
        except (UnreadableError, NewerError):
            raise
        except DataError:
            write_config(self.features, self.config)
            say(f"{self.features / CONFIG_FILE} was lost or edited, and is written again", "note")

    def plan(self, known: Standing) -> Plan:
        """What there is to do, as far as what is kept is `known`.

        Raises:
            DataError: the cache cannot be read, or is damaged.
        """
        catalogue = scan(self.features, self.config)
        for note in catalogue.several:
            say(note, "note")
        begun = overwriting.begun(self.features, self.selection.part) if self.selection.overwrite else None
        with progress_bar("files") as bar:
            task = bar.add_task("comparing audio", total=None, rate=0.0, visible=False)
            return make_plan(
                self.manifest,
                catalogue.index,
                catalogue.generations,
                read_failures(self.features),
                self.selection,
                known,
                self._elsewhere(),
                begun,
                lambda n, total: bar.update(
                    task, completed=n, total=total, rate=bar.tasks[task].speed or 0.0, visible=True
                ),
            )

    def _elsewhere(self) -> NDArray[np.bool_]:
        """Tracks of a table under whose ids the cache holds features of other settings."""
        there: set[bytes] = set()
        for features in self._other_settings() if self.manifest.root else ():
            with contextlib.suppress(DataError):  # said already
                there.update(scan(features, read_config(features), {}).index["id"].tolist())
        return np.array([track.track_id.encode() in there for track in self.manifest.tracks], np.bool_)

    def _extract(self, plan: Plan, engine: Callable[[Models], Engine], tally: Tally) -> None:
        from m2e.extract.workers.gpu import Busy
        from m2e.extract.workers.task import run

        source = self.sources.encoder
        if source.folder is None:
            say(f"looking for {source.name} (revision {source.revision[:8]}) in the local cache, then on the hub")
        device = self.device if self.elsewhere else usable_device(self.device)
        # Fetched here, once, not in every worker.
        models = self.sources.fetch(device, self.decoders, self.selection.accept_cut)
        workers = engine(models)
        total = len(plan.tasks)
        with progress_bar("tracks") as bar:
            task = bar.add_task("extracting", total=total, rate=0.0)
            started = said = time.monotonic()
            for outcome in run(plan.tasks, models, self.folder.absolute(), workers, plan.generation):
                if isinstance(outcome, Lost):
                    say(
                        f"{outcome.item.track_id}: a worker process died at it ({outcome.death}); it is tried once "
                        "more at the end, alone",
                        "note",
                    )
                    continue
                if isinstance(outcome, Busy):
                    tally.spans[outcome.gpu] += outcome.spans
                    continue
                if isinstance(outcome, Failure):
                    tally.failed[outcome.track_id] = outcome
                    say(f"{outcome.track_id}: {outcome.reason}", "failed", "red")
                    self._tell(outcome.track_id, outcome.reason)
                elif isinstance(outcome, Unheard):
                    tally.unheard.append(outcome)
                    say(f"{outcome.track_id}: {outcome.reason}", "no file" if outcome.missing else "unreadable", "red")
                    self._tell(outcome.track_id, outcome.reason)
                else:
                    tally.new += 1
                    if earlier := plan.retried.get(outcome):
                        settle_failure(self.features, earlier)
                    tally.again += outcome in plan.again
                    self._tell(outcome)
                now = time.monotonic()
                rate = tally.done / max(now - started, 1e-9)
                bar.update(task, completed=tally.done, rate=rate)
                if not console.is_terminal and now - said > _SAY_SECONDS:
                    said = now
                    left = timedelta(seconds=round((total - tally.done) / rate))
                    say(f"{tally.done} of {total} tracks, {rate:.3g} tracks/s, about {left} left")

    def _tell(self, track_id: str, reason: str | None = None) -> None:
        self.tell("track", self.manifest.name, {"track_id": track_id, "ok": reason is None, "reason": reason})

    def _pack(self) -> DataError | None:
        """What stands in the way of packing, unless it is somebody else who packs."""
        if not any(name.startswith("shard-") for name in feature_names(self.features)):
            return None
        try:
            packed = pack(self.features)
        except LockedError as error:  # no track is lost by that, and the next run packs
            say(f"not packed: {error}", "note")
        except DataError as error:
            return error
        else:
            say(f"packed: {packed.tracks} tracks in {packed.packs} files, which replace {packed.removed}")
        return None

    def interrupted(self, command: str) -> None:
        """Say what is kept, and that `command` goes on."""
        kept = len(scan(self.features, self.config, {}).index)
        say(
            f"interrupted: {kept} of {len(self.manifest.tracks)} tracks are in {self.folder}, safe. To go on: {command}"
        )
