"""Setting damage aside and saving what can be saved, so that m2e-extract can make the rest again.

A file moves only where its digest is not the one in its name. What cannot be read, or is a newer m2e's, stays where it
is: nobody knows that it is not good. What is saved is as new as the file that it was in.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Set
from dataclasses import dataclass, field, fields
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import numpy as np

from m2e.cache.care.links import why_it_stays
from m2e.cache.care.pack import replace
from m2e.cache.care.verify import Damage, Salvage, salvage, verify
from m2e.cache.catalogue import Catalogue, scan
from m2e.cache.failures import read_failures
from m2e.cache.folders import (
    CONFIG_FILE,
    LABELS_FILE,
    SET_ASIDE,
    features_folders,
    read_config,
    with_settings,
    without_settings,
)
from m2e.cache.labels import has_labels, read_labels
from m2e.cache.layout import feature_image, feature_name, join
from m2e.cache.lock import pack_lock
from m2e.cache.settings import ExtractionConfig
from m2e.cache.types import Labels
from m2e.common.errors import DataError
from m2e.common.files import remove_stale_temporaries


@dataclass(frozen=True)
class Repaired:
    """What `repair` did in a data set's folder.

    Attributes:
        damage: the files that were set aside, where they are now.
        left: files that are not as they should be and stay where they are.
        saved: ids of tracks whose records were good in a damaged file.
        lost: features folders that hold features but no settings now.
        unlabelled: ids of the tracks that have features, where there is no labels.h5 now.
        redo: ids of tracks that are to be extracted: those that have neither features nor a known failure now, where
            the labels tell, and those whose features were damaged.
        older: ids of tracks whose newest record was damaged, and the older one that is read now.
        untold: how many damaged files do not tell which tracks they held: an older record of any may be read now.
        commands: what makes them again, one for each group of settings.
    """

    damage: tuple[Damage, ...]
    left: tuple[Damage, ...]
    saved: tuple[str, ...]
    lost: tuple[str, ...]
    unlabelled: tuple[str, ...]
    redo: tuple[str, ...]
    older: dict[str, str]
    untold: int
    commands: tuple[str, ...]


@dataclass
class _Group:
    """What becomes of the features of one group of settings.

    Attributes:
        features: the folder.
        config: the settings.
        wanted: ids of the manifest's tracks, where it is known.
        failed: ids of tracks that failed.
        saved, older, untold: see `Repaired`.
        there: ids of the tracks that have features now.
        gone: ids of those whose features were damaged, and that have none now.
    """

    features: Path
    config: ExtractionConfig
    wanted: tuple[str, ...] | None
    failed: Set[str]
    saved: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    older: dict[str, str] = field(default_factory=dict)
    untold: int = 0

    def redo(self, incomplete: bool) -> list[str]:
        """Which tracks are to be extracted; `incomplete`: files are left, and nobody knows which tracks they hold."""
        if self.wanted is None:
            return sorted(self.gone)
        if incomplete:
            return [track_id for track_id in self.wanted if track_id in self.gone]
        # What failed when it was done again had features, and those may be what was damaged.
        settled = self.there if self.untold else self.there | (self.failed - self.gone)
        return [track_id for track_id in self.wanted if track_id not in settled]

    def options(self, redo: list[str]) -> list[str]:
        """What m2e-extract has to be told to extract these, and what an older record may be read of."""
        compare = self.older or (self.untold and self.there)
        retry = not self.failed.isdisjoint(redo)
        return ["--check-audio"] * bool(compare) + ["--retry-failed"] * retry


def repair(folder: Path, *, break_lock: bool = False, advance: Callable[[int], None] = lambda files: None) -> Repaired:
    """Set the damaged files of a data set's cache aside; nothing is deleted.

    Files move to the folder set-aside beside them. Records that are still good are written to a new file first.

    Args:
        folder: the data set's folder, such as ``features/deam``.
        break_lock: see `pack_lock`.
        advance: called with 1 after each feature file.

    Raises:
        LockedError: somebody packs.
        DataError: it is no cache, or it cannot be written.
    """
    if not without_settings(folder):
        features_folders(folder)
    with pack_lock(folder, break_lock):
        remove_stale_temporaries(folder)
        found: list[Damage] = []
        groups: list[_Group] = []
        table: dict[str, str] = {"--dataset": folder.name}
        wanted: tuple[str, ...] | None = None
        if has_labels(folder):
            try:
                labels = read_labels(folder)
                wanted, table = labels.track_ids, _table(folder.name, labels)
            except DataError as error:
                found.append(_moved(folder, Damage.of(folder / LABELS_FILE, error)))
        for features in with_settings(folder):
            try:
                config = read_config(features)
            except DataError as error:
                found.append(_moved(folder, Damage.of(features / CONFIG_FILE, error)))
                continue
            groups.append(_Group(features, config, wanted, read_failures(features, {}).keys()))
            found += _repair_features(folder, groups[-1], advance)
    left = tuple(its for its in found if its.path.parent.name != SET_ASIDE)
    redo = [group.redo(any(its.path.parent == group.features for its in left)) for group in groups]
    commands = []
    for group, tracks in zip(groups, redo, strict=True):
        options = group.options(tracks)
        if tracks or options:
            commands.append(_command(folder, group.config, table, options))
    unlabelled = set() if has_labels(folder) else set().union(*(group.there for group in groups))
    return Repaired(
        damage=tuple(its for its in found if its not in left),
        left=left,
        saved=tuple(sorted(set().union(*(group.saved for group in groups)))),
        lost=tuple(str(features) for features in without_settings(folder)),
        unlabelled=tuple(sorted(unlabelled)),
        redo=tuple(dict.fromkeys(track_id for tracks in redo for track_id in tracks)),
        older={track_id: what for group in groups for track_id, what in group.older.items()},
        untold=sum(group.untold for group in groups),
        commands=tuple(commands),
    )


def _repair_features(folder: Path, group: _Group, advance: Callable[[int], None]) -> list[Damage]:
    """Set the damaged feature files of a group aside; what was found, where it is now."""
    found: list[Damage] = []
    broken: list[tuple[Damage, Salvage, int]] = []
    for its in verify(group.features, deep=True, advance=advance):
        if its.kind == "damaged" and not why_it_stays(folder, its.path):
            rest, modified = salvage(its.path, group.config), its.path.stat().st_mtime_ns
            broken.append((its, rest, modified))
            found.append(_rescued(group, its, rest, modified))
        else:
            found.append(_moved(folder, its))
    catalogue = scan(group.features, group.config, {})
    group.there.update(id_.decode() for id_ in catalogue.index["id"].tolist())
    for its, rest, modified in broken:
        _compare(group, catalogue, its, rest, modified)
    return found


def _rescued(group: _Group, its: Damage, rest: Salvage, modified: int) -> Damage:
    """Save what is good in a damaged file, and set the file aside; it with the place where it is now."""
    if not rest.records or rest.generation is None:
        return _set_aside(its)
    records = join(rest.records)
    group.saved.update(id_.decode() for id_ in records.index["id"].tolist())
    path = group.features / feature_name("shard", feature_image(records, group.config, rest.generation))
    # Where no record is damaged, what is saved has the very name of the file that it comes from.
    aside = _set_aside(its, copy=True) if path == its.path else None
    if path.exists():  # it was saved before, by a command that was killed then
        modified = max(modified, path.stat().st_mtime_ns)
    replace(group.features, group.config, records, "shard", rest.generation, modified)
    return aside or _set_aside(its)


def _compare(group: _Group, catalogue: Catalogue, its: Damage, rest: Salvage, modified: int) -> None:
    """Take down which tracks of a damaged file are gone, and of which an older record is read now."""
    named = set(rest.tracks)
    # An id can be what is damaged, and then is none, or that of another track.
    if rest.generation is None or len(named) < len(rest.bad) or not named <= group.there.union(group.wanted or ()):
        group.untold += 1
    if rest.generation is None:
        return
    group.gone |= named - group.there
    for row in rest.bad:
        track_id = row["id"].decode(errors="replace")
        if track_id in named & group.there:
            place = int(np.searchsorted(catalogue.index["id"], row["id"]))
            if what := _older(catalogue, place, row, (rest.generation, modified, its.path.name)):
                group.older[track_id] = what


def _older(catalogue: Catalogue, place: int, row: Any, newness: tuple[int, int, str]) -> str:
    """What is read of a track, where that is older than a record that was lost, in a file of this newness; else ""."""
    file, now = catalogue.files[catalogue.file[place]], catalogue.index[place]
    if (now["digest"] == row["digest"]).all():
        return ""
    generation, *written = newness
    superseded = file.generation == generation and (now["audio_sha256"] != row["audio_sha256"]).any()
    if file.generation < generation or (superseded and [file.path.stat().st_mtime_ns, file.name] < written):
        return f"{file.name}, of generation {file.generation}"
    return ""


def _moved(folder: Path, found: Damage) -> Damage:
    """What was found in a data set's folder, set aside where that is known to be right."""
    if found.kind != "damaged":
        return found
    if reason := why_it_stays(folder, found.path):
        return replaced(found, reason=f"{found.reason}. {reason}")
    return _set_aside(found)


def _set_aside(damage: Damage, copy: bool = False) -> Damage:
    """Move the file of `damage`, or copy it; returns it with the place where it is now."""
    folder = damage.path.parent / SET_ASIDE
    try:
        folder.mkdir(exist_ok=True)
        target = folder / damage.path.name
        number = 0
        while target.exists():
            number += 1
            target = folder / f"{damage.path.name}.{number}"
        if copy:
            shutil.copy2(damage.path, target)
        else:
            damage.path.rename(target)
    except OSError as error:
        raise DataError(f"cannot move {damage.path} to {folder}: {error.strerror}") from error
    return replaced(damage, path=target)


def _table(name: str, labels: Labels) -> dict[str, str]:
    """The options that name a data set. A cache says where a table of the user's lies, not what it is called."""
    if labels.letter:
        return {"--dataset": name}
    usual = Path(labels.source.root if labels.source else "", f"{name}.csv")
    return {"--dataset": str(usual)} if usual.is_file() else {"--dataset": "YOUR.csv", "--name": name}


def _command(folder: Path, config: ExtractionConfig, table: dict[str, str], more: list[str]) -> str:
    """The command that extracts with these settings, and `more` options."""
    options = {
        **table,
        "--cache": str(folder.parent),
        "--encoder": config.encoder,
        "--chords": config.chords,
        "--layers": ",".join(str(layer) for layer in config.layers),
        "--tail": config.tail,
        "--resampler": config.resampler,
        "--precision": config.precision,
    }
    usual = {f"--{field.name}": field.default for field in fields(config)}
    usual["--encoder"], usual["--layers"] = "MERT-v1-95M", "5,6,7"
    words = [word for name, value in options.items() if value != usual.get(name) for word in (name, value)]
    return shlex.join(["m2e-extract", *words, *more])
