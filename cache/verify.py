"""Finding damage in a features folder: quickly, by the digests of files, or to the last record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np

from m2e.cache.errors import DamagedError, DataError, NewerError, UnreadableError
from m2e.cache.files import is_intact
from m2e.cache.folders import feature_files, read_config
from m2e.cache.layout import CHORD, Records, unsound
from m2e.cache.schema import ExtractionConfig
from m2e.cache.stored import open_features, read_file, read_tracks

# Of a file: its digest is not that in its name; it could not be read; a newer m2e wrote it; its digest is right, and
# what it holds is not what m2e puts there.
Kind = Literal["damaged", "unreadable", "newer", "foreign"]


@dataclass(frozen=True)
class Damage:
    """A file that is not as it should be.

    Attributes:
        path: the file.
        reason: one line.
        tracks: ids of the damaged records in it, as far as it can still be read.
        kind: see `Kind`; only what is damaged is ever moved.
    """

    path: Path
    reason: str
    tracks: tuple[str, ...] = ()
    kind: Kind = "damaged"

    @classmethod
    def of(cls, path: Path, error: DataError) -> Self:
        """What an error says of a file that has no digest in its name."""
        kind: Kind = "foreign"
        for its, name in ((UnreadableError, "unreadable"), (NewerError, "newer"), (DamagedError, "damaged")):
            if isinstance(error, its):
                kind = cast(Kind, name)
        return cls(path, str(error), (), kind)


def verify(features: Path, *, deep: bool = False, advance: Callable[[int], None] = lambda files: None) -> list[Damage]:
    """The files of a features folder that are not as they should be.

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
        # A packer may just have replaced it by a pack, which it checks itself.
        with contextlib.suppress(FileNotFoundError):
            if problem := _problem(path, config, deep):
                found.append(problem)
        advance(1)
    return found


def _problem(path: Path, config: ExtractionConfig, deep: bool) -> Damage | None:
    try:
        if not is_intact(path):
            return Damage(path, "its digest is not the one in its name", sound_records(path, config)[1])
        if deep:
            records, intact = read_file(path, config)
            if not intact.all() or unsound(records).any():
                bad = sound_records(path, config)[1]
                return Damage(path, "its name fits but its records do not: it was forged", bad, "foreign")
    except FileNotFoundError:
        raise
    except OSError as error:
        return Damage(path, f"it cannot be read: {error.strerror}", (), "unreadable")
    except DamagedError as error:  # its digest fits
        return Damage(path, str(error), (), "foreign")
    except DataError as error:
        return Damage.of(path, error)
    return None


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
