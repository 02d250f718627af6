"""Finding damage in a features folder: quickly, by the digests of files, or to the last record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m2e.cache.errors import DataError
from m2e.cache.files import is_intact
from m2e.cache.folders import feature_files, read_config
from m2e.cache.layout import CHORD, Records, unsound
from m2e.cache.schema import ExtractionConfig
from m2e.cache.stored import open_features, read_file, read_tracks


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written.

    Attributes:
        path: the file.
        reason: one line.
        tracks: ids of the damaged records in it, as far as it can still be read.
    """

    path: Path
    reason: str
    tracks: tuple[str, ...] = ()


def verify(features: Path, *, deep: bool = False, advance: Callable[[int], None] = lambda files: None) -> list[Damage]:
    """The damaged files of a features folder.

    Args:
        features: the folder of one group of settings.
        deep: check the form of each file, every record and every chord, not only the digests of the files.
        advance: called with 1 after each file.

    Raises:
        DataError: the folder's settings cannot be read.
    """
    config = read_config(features)
    found = []
    for path in feature_files(features):
        try:
            reason = _problem(path, config, deep)
        except FileNotFoundError:  # a packer has just replaced it by a pack, which it checks itself
            reason = ""
        if reason:
            found.append(Damage(path, reason, sound_records(path, config)[1]))
        advance(1)
    return found


def _problem(path: Path, config: ExtractionConfig, deep: bool) -> str:
    try:
        if not is_intact(path):
            return "its digest is not the one in its name"
        if deep:
            records, intact = read_file(path, config)
            if not intact.all() or unsound(records).any():
                return "its name fits but its records do not: it was forged"
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except DataError as error:
        return str(error)
    return ""


def sound_records(path: Path, config: ExtractionConfig) -> tuple[list[Records], tuple[str, ...]]:
    """What is left of a damaged file: the tracks that are as they were written, and the ids of those that are not.

    A file whose form is damaged gives nothing.
    """
    try:
        file, index = open_features(path.parent, path.name, config, damaged=True)
    except (DataError, OSError):
        return [], ()
    good: dict[bytes, Records] = {}
    bad = set()
    start = np.zeros(1, np.int64)
    for row in (index[i : i + 1] for i in range(len(index))):
        segments, chords = int(row["segments"][0]), int(row["chords"][0])
        if (
            int(row["first_segment"][0]) + segments <= file.n_segments
            and int(row["first_chord"][0]) + chords <= file.n_chords
        ):
            track = Records(row, np.empty((segments, *file.shape), "<f2"), np.empty(chords, CHORD))
            try:
                if read_tracks(file, row, track, start, start).all() and not unsound(track).any():
                    good[row["id"][0]] = track
                    continue
            except OSError:
                pass  # a bad sector, say: the others may be readable
        bad.add(row["id"][0])
    return list(good.values()), tuple(sorted(track_id.decode(errors="replace") for track_id in bad - good.keys()))
