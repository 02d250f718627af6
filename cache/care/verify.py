"""Finding damage in a features folder: quickly, by the digests of files, or to the last record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from m2e.cache.feature_file import open_features, read_file, read_tracks
from m2e.cache.folders import CONFIG_FILE, feature_files, read_config
from m2e.cache.layout import CHORD, INDEX, Records, unsound
from m2e.cache.settings import ExtractionConfig
from m2e.common.errors import DamagedError, DataError, NewerError, UnreadableError
from m2e.common.files import is_intact

# Of a file: its digest is not that in its name; it could not be read; a newer m2e wrote it; its digest is right, and
# what it holds is not what m2e puts there; it is not there.
Kind = Literal["damaged", "unreadable", "newer", "foreign", "lost"]
_MADE_SO = "its digest fits, so somebody made it like that: move it away"


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


@dataclass(frozen=True, eq=False)
class Salvage:
    """What is left of a damaged feature file.

    Attributes:
        records: the tracks that are as they were written.
        bad: rows of the others [shape=(B,), dtype=INDEX]; what they say may be what is damaged.
        generation: of the file; None where its form is damaged, so that nobody knows which tracks it held.
    """

    records: list[Records]
    bad: NDArray[Any]
    generation: int | None

    @property
    def tracks(self) -> tuple[str, ...]:
        """Ids of those that are not as they were written, sorted."""
        good = {part.index["id"][0] for part in self.records}
        return tuple(sorted(id_.decode(errors="replace") for id_ in set(self.bad["id"].tolist()) - good))


def verify(features: Path, *, deep: bool = False, advance: Callable[[int], None] = lambda files: None) -> list[Damage]:
    """The files of a features folder that are not as they should be.

    Args:
        features: the folder of one group of settings.
        deep: check the form of each file, every record and every chord, not only the digests of the files. Without
            settings that can be read only those.
        advance: called with 1 after each file.
    """
    found = []
    config = None
    try:
        config = read_config(features)
    except DataError as error:
        found.append(Damage.of(features / CONFIG_FILE, error))
    for path in feature_files(features):
        # A packer may just have replaced it by a pack, which it checks itself.
        with contextlib.suppress(FileNotFoundError):
            if problem := _problem(path, config, deep):
                found.append(problem)
        advance(1)
    return found


def _problem(path: Path, config: ExtractionConfig | None, deep: bool) -> Damage | None:
    try:
        if not is_intact(path):
            tracks = salvage(path, config).tracks if config else ()
            return Damage(path, "its digest is not the one in its name", tracks)
        if deep and config:
            records, intact = read_file(path, config)
            if not intact.all() or unsound(records).any():
                return Damage(path, f"its records are damaged; {_MADE_SO}", salvage(path, config).tracks, "foreign")
    except FileNotFoundError:
        raise
    except OSError as error:
        return Damage(path, f"it cannot be read: {error.strerror}", (), "unreadable")
    except DamagedError as error:
        return Damage(path, f"{error}; {_MADE_SO}", (), "foreign")
    except DataError as error:
        return Damage.of(path, error)
    return None


def salvage(path: Path, config: ExtractionConfig) -> Salvage:
    """What is left of a damaged file. A file whose form is damaged gives nothing."""
    try:
        file, index = open_features(path.parent, path.name, config, damaged=True)
    except (DataError, OSError):
        return Salvage([], np.empty(0, INDEX), None)
    good: dict[bytes, Records] = {}
    bad = np.ones(len(index), np.bool_)
    start = np.zeros(1, np.int64)
    for i, row in enumerate(index[i : i + 1] for i in range(len(index))):
        segments, chords = int(row["segments"][0]), int(row["chords"][0])
        if (
            int(row["first_segment"][0]) + segments <= file.n_segments
            and int(row["first_chord"][0]) + chords <= file.n_chords
        ):
            track = Records(row, np.empty((segments, *file.shape), "<f2"), np.empty(chords, CHORD))
            try:
                if read_tracks(file, row, track, start, start).all() and not unsound(track).any():
                    good[row["id"][0]] = track
                    bad[i] = False
            except OSError:
                pass  # a bad sector, say: the others may be readable
    return Salvage(list(good.values()), index[bad], file.generation)
