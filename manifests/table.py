"""A user's own data set: one CSV file, UTF-8, one row a track.

| column | |
|---|---|
| track_id | unique; 1-64 bytes, printable |
| path | the audio file, relative to the root folder and inside it |
| split | optional: train, validation, test, or empty for none; without the column, a hash of the clip decides |
| tags | mood tags separated by ";", such as "happy;summer"; empty for a track that has none of them |
| valence, arousal | on 1-9; both empty for a track without |
| clip_group | optional: equal for tracks that hold the same clip; empty or without the column, each track is its own |
| artist | optional |

Needed are track_id, path, and tags or valence and arousal, or all three.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests.files import Row, check_unique, read_rows
from m2e.manifests.splits import HASH_SPLITS, hash_split
from m2e.manifests.track import SPLITS, Manifest, Split, Track, ValenceArousal

_COLUMNS = ("track_id", "path", "split", "tags", "valence", "arousal", "clip_group", "artist")


def read(csv: Path, root: Path | None = None, name: str = "", letter: str = "", labels: str = "") -> Manifest:
    """The manifest in the file `csv`, whose paths are relative to `root`.

    Args:
        csv: the table described above.
        root: default: the folder of `csv`.
        name: of the data set; default: the file's stem.
        letter: of the data set in the paper's tables.
        labels: for the provenance: where the labels come from.

    Raises:
        DataError: the file breaks one of the rules above; the line names file and row.
    """
    root = csv.parent if root is None else root
    name = name or csv.stem
    if name.startswith(".") or not name.isprintable():
        raise DataError(f"{csv}: rename the file; its name without .csv, {name!r}, is the name of the data set")
    rows = read_rows(csv, ("track_id", "path"))
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; the paths in {csv.name} are relative to it")
    columns = rows[0].cells.keys()
    _check_label_columns(csv, columns)
    check_unique(rows, "track_id")
    resolved = root.resolve()
    tracks = tuple(_track(row, columns, name, root, resolved) for row in rows)
    tag_names = tuple(sorted({tag for track in tracks for tag in track.tags or ()}))
    points = sum(track.valence_arousal is not None for track in tracks)
    if not tag_names and not points:
        raise DataError(f"{csv}: no track has a tag, or valence and arousal")
    notes = []
    if unused := [column for column in columns if column not in _COLUMNS]:
        notes.append(f"columns not used: {', '.join(unused)}")
    if 0 < points < len(tracks):
        notes.append(f"{len(tracks) - points} of {len(tracks)} tracks have no valence and arousal")
    splits = f"column split of {csv.name}" if "split" in columns else HASH_SPLITS
    provenance = f"{labels or f'labels from {csv.name}'}; splits: {splits}"
    return Manifest(name, letter, tracks, tag_names, provenance, tuple(notes))


def _check_label_columns(csv: Path, columns: Set[str]) -> None:
    half = {"valence", "arousal"} & columns
    if len(half) == 1 or not (half or "tags" in columns):
        raise DataError(
            f"{csv}: needs the columns track_id, path, and tags, or valence and arousal, or all three; "
            f"it has {', '.join(columns)}"
        )


def _track(row: Row, columns: Set[str], name: str, root: Path, resolved: Path) -> Track:
    from m2e.cache.schema import check_id

    cells = {column: row[column] if column in columns else "" for column in _COLUMNS}
    try:
        check_id(row["track_id"])
    except ValueError as error:
        raise DataError(f"{row.where}: {error}") from error
    group = cells["clip_group"] or f"{name}/{row['track_id']}"
    tags = frozenset(tag for part in cells["tags"].split(";") if (tag := part.strip()))
    return Track(
        track_id=row["track_id"],
        audio_path=_inside(root, resolved, row),
        split=_split(row) if "split" in columns else hash_split(group),
        tags=tags if "tags" in columns else None,
        valence_arousal=_valence_arousal(row) if cells["valence"] or cells["arousal"] else None,
        clip_group=group,
        artist=cells["artist"],
    )


def _inside(root: Path, resolved: Path, row: Row) -> Path:
    """The row's audio file; DataError when it is not strictly inside `root`, symbolic links followed."""
    path = root / row["path"]
    try:
        leaves = Path(row["path"]).is_absolute() or resolved not in path.resolve().parents
    except (OSError, RuntimeError) as error:
        raise DataError(f"{row.where}: path {row['path']!r} cannot be followed") from error
    if leaves:
        raise DataError(f"{row.where}: path {row['path']!r} is not a path inside {root}")
    return path


def _split(row: Row) -> Split | None:
    for split in SPLITS:
        if row["split"] == split:
            return split
    if row["split"]:
        raise DataError(f"{row.where}: split {row['split']!r} is not one of {', '.join(SPLITS)}, or empty for none")
    return None


def _valence_arousal(row: Row) -> ValenceArousal:
    return ValenceArousal(row.number("valence", 1, 9), row.number("arousal", 1, 9))
