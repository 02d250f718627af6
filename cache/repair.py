"""Setting damage aside and saving what can be saved, so that m2e-extract can make the rest again.

A file moves only where its digest is not the one in its name. What cannot be read, or is a newer m2e's, stays where it
is: nobody knows that it is not good.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from dataclasses import replace as replaced
from pathlib import Path

from m2e.cache.catalogue import scan
from m2e.cache.errors import DataError
from m2e.cache.failures import read_failures
from m2e.cache.files import remove_stale_temporaries
from m2e.cache.folders import CONFIG_FILE, LABELS_FILE, SET_ASIDE, features_folders, read_config, without_settings
from m2e.cache.labels import read_labels
from m2e.cache.layout import Records, join
from m2e.cache.links import why_it_stays
from m2e.cache.lock import pack_lock
from m2e.cache.pack import replace
from m2e.cache.schema import ExtractionConfig, Labels
from m2e.cache.verify import Damage, sound_records, verify


@dataclass(frozen=True)
class Repaired:
    """What `repair` did in a data set's folder.

    Attributes:
        damage: the files that were set aside, where they are now.
        left: files that are not as they should be and stay where they are.
        saved: ids of tracks whose records were good in a damaged file.
        lost: features folders that hold features but no settings now.
        redo: ids of tracks that have neither features nor a known failure now, where the labels tell.
        commands: what makes them again, one for each group of settings.
    """

    damage: tuple[Damage, ...]
    left: tuple[Damage, ...]
    saved: tuple[str, ...]
    lost: tuple[str, ...]
    redo: tuple[str, ...]
    commands: tuple[str, ...]


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
    with pack_lock(folder, break_lock):
        remove_stale_temporaries(folder)
        found: list[Damage] = []
        saved: set[str] = set()
        present: dict[Path, set[str]] = {}
        for features in features_folders(folder):
            try:
                config = read_config(features)
            except DataError as error:
                found.append(_moved(folder, Damage.of(features / CONFIG_FILE, error)))
                continue
            for its in verify(features, deep=True, advance=advance):
                if its.kind == "damaged" and not why_it_stays(folder, its.path):
                    records = sound_records(its.path, config)[0]
                    if records:
                        saved.update(_ids(records))
                        replace(features, config, join(records), "shard")
                found.append(_moved(folder, its))
            present[features] = {id_.decode() for id_ in scan(features, config, {}).index["id"].tolist()}
        table: dict[str, str] = {"--dataset": folder.name}
        wanted: tuple[str, ...] = ()
        if (folder / LABELS_FILE).exists():
            try:
                labels = read_labels(folder)
                wanted, table = labels.track_ids, _table(folder.name, labels)
            except DataError as error:
                found.append(_moved(folder, Damage.of(folder / LABELS_FILE, error)))
        left = tuple(its for its in found if its.path.parent.name != SET_ASIDE)
        redo: dict[Path, list[str]] = {}
        for features, there in present.items():
            if any(its.path.parent == features for its in left):
                continue  # nobody knows which tracks those files hold
            settled = there | read_failures(features, {}).keys()
            redo[features] = [track_id for track_id in wanted if track_id not in settled]
        commands = [
            _command(folder, read_config(features), table) for features, tracks in redo.items() if tracks or not wanted
        ]
        ids = tuple(dict.fromkeys(track_id for tracks in redo.values() for track_id in tracks))
        lost = tuple(str(features) for features in without_settings(folder))
        moved = tuple(its for its in found if its not in left)
        return Repaired(moved, left, tuple(sorted(saved)), lost, ids, tuple(commands))


def _moved(folder: Path, found: Damage) -> Damage:
    """What was found in a data set's folder, set aside where that is known to be right."""
    if found.kind != "damaged":
        return found
    if reason := why_it_stays(folder, found.path):
        return replaced(found, reason=f"{found.reason}. {reason}")
    return _set_aside(found)


def _ids(records: list[Records]) -> list[str]:
    return [part.index["id"][0].decode() for part in records]


def _set_aside(damage: Damage) -> Damage:
    """Move the file of `damage`; returns it with the place where it is now."""
    folder = damage.path.parent / SET_ASIDE
    try:
        folder.mkdir(exist_ok=True)
        target = folder / damage.path.name
        number = 0
        while target.exists():
            number += 1
            target = folder / f"{damage.path.name}.{number}"
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


def _command(folder: Path, config: ExtractionConfig, table: dict[str, str]) -> str:
    """The command that extracts with these settings."""
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
    return shlex.join(["m2e-extract", *words])
