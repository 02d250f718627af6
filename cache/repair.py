"""Setting damage aside and saving what can be saved, so that m2e-extract can make the rest again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from m2e.cache.catalogue import Problems, scan
from m2e.cache.errors import DataError
from m2e.cache.failures import read_failures
from m2e.cache.files import remove_stale_temporaries
from m2e.cache.folders import CONFIG_FILE, LABELS_FILE, SET_ASIDE, features_folders, read_config, without_settings
from m2e.cache.labels import read_labels
from m2e.cache.layout import Records, join
from m2e.cache.links import refuse_linked
from m2e.cache.lock import pack_lock
from m2e.cache.pack import forget_locked, replace
from m2e.cache.schema import ExtractionConfig
from m2e.cache.verify import Damage, sound_records, verify


@dataclass(frozen=True)
class Repaired:
    """What `repair` did in a data set's folder.

    Attributes:
        damage: the files that were set aside.
        saved: ids of tracks whose records were good in a damaged file.
        ambiguous: ids of tracks that had two different records, both taken out.
        lost: features folders that hold features but no settings now.
        redo: ids of tracks that have neither features nor a known failure now, where the labels tell.
        commands: what makes them again, one for each group of settings.
    """

    damage: tuple[Damage, ...]
    saved: tuple[str, ...]
    ambiguous: tuple[str, ...]
    lost: tuple[str, ...]
    redo: tuple[str, ...]
    commands: tuple[str, ...]


def repair(folder: Path, *, break_lock: bool = False, advance: Callable[[int], None] = lambda files: None) -> Repaired:
    """Set the damaged files of a data set's cache aside; nothing is deleted.

    Files move to the folder set-aside beside them. Records that are still good are written to a new file first.

    Args:
        folder: the data set's folder, such as ``features/deam``.
        break_lock: take pack.lock whoever holds it.
        advance: called with 1 after each feature file.

    Raises:
        DataError: it is no cache, somebody packs, or it cannot be written.
    """
    with pack_lock(folder, break_lock):
        remove_stale_temporaries(folder)
        damage: list[Damage] = []
        saved: set[str] = set()
        ambiguous: set[str] = set()
        present: dict[Path, set[str]] = {}
        for features in features_folders(folder):
            try:
                config = read_config(features)
            except DataError as error:
                damage.append(_set_aside(folder, Damage(features / CONFIG_FILE, str(error))))
                continue
            damaged = verify(features, deep=True, advance=advance)
            for its in damaged:
                refuse_linked(folder, its.path, f"{its.path} is damaged: {its.reason}")
                records = sound_records(its.path, config)[0]
                if records:
                    saved.update(_ids(records))
                    replace(features, config, join(records), "shard")
                damage.append(_set_aside(folder, its))
            problems = Problems()
            catalogue = scan(features, config, problems)
            if problems.ambiguous:
                forget_locked(features, config, catalogue, problems.ambiguous)
                catalogue = scan(features, config)
            ambiguous |= problems.ambiguous
            present[features] = {track_id.decode() for track_id in catalogue.index["id"].tolist()}
        own = False
        try:
            labels = read_labels(folder)
            wanted, own = labels.track_ids, not labels.letter
        except DataError as error:
            wanted = ()
            if (folder / LABELS_FILE).exists():
                damage.append(_set_aside(folder, Damage(folder / LABELS_FILE, str(error))))
        redo: dict[Path, list[str]] = {}
        for features, there in present.items():
            settled = there | read_failures(features).keys()
            redo[features] = [track_id for track_id in wanted if track_id not in settled]
        commands = [
            _command(folder, read_config(features), own) for features, tracks in redo.items() if tracks or not wanted
        ]
        ids = tuple(dict.fromkeys(track_id for tracks in redo.values() for track_id in tracks))
        lost = tuple(str(features) for features in without_settings(folder))
        return Repaired(tuple(damage), tuple(sorted(saved)), tuple(sorted(ambiguous)), lost, ids, tuple(commands))


def _ids(records: list[Records]) -> list[str]:
    return [part.index["id"][0].decode() for part in records]


def _set_aside(cache: Path, damage: Damage) -> Damage:
    """Move the file of `damage`; returns it with the place where it is now."""
    refuse_linked(cache, damage.path, damage.reason)
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
    return Damage(target, damage.reason, damage.tracks)


def _command(folder: Path, config: ExtractionConfig, own: bool) -> str:
    """The command that extracts with these settings; `own` is a data set that is a table of the user's."""
    options = {
        "--dataset": f"{folder.name}.csv" if own else folder.name,
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
