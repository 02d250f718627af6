"""A data set as one CSV file: a user's own, or what `m2e-manifest build` wrote. UTF-8, one row a track.

| column | |
|---|---|
| track_id | unique; 1-64 bytes, printable |
| path | the audio file, inside the root folder: relative to it, or absolute; without ".." |
| split | optional: train, validation, test, or empty for none; without the column, a hash of clip and artist decides |
| tags | mood tags separated by ";", such as "happy;summer", without commas; empty for a track that has none of them |
| valence, arousal | on 1-9, or on the scale that is declared; both empty for a track without |
| clip_group | optional: equal for tracks that hold the same clip; where it is empty, tracks of one audio file are one |
| artist | optional |

Needed are track_id, path, and tags or valence and arousal, or all three.

`m2e-manifest build` writes a line above the header: the cell #m2e-manifest, then cells such as name=deam, with what
belongs to the data set and not to a track. Such a file is read back as it was built.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Set
from dataclasses import replace
from pathlib import Path

from m2e.common.checks import NAME_RULE, can_name
from m2e.common.errors import DataError, printable
from m2e.manifests.read.root import Place
from m2e.manifests.read.text import CONTROL, Row, Table, check_unique, read_table
from m2e.manifests.splits import HASH_SPLITS, hash_splits
from m2e.manifests.types import SPLITS, Manifest, Split, Track, ValenceArousal

MARK = "#m2e-manifest"
_NEEDED = ("track_id", "path")
_OPTIONAL = ("split", "tags", "valence", "arousal", "clip_group", "artist")
_LONGEST_TAG = 64


def read(
    file: Path,
    root: Path | None = None,
    scale: tuple[float, float] = (1.0, 9.0),
    name: str = "",
    letter: str = "",
    labels: str = "",
    reserved: Container[str] = (),
) -> Manifest:
    """The manifest in a CSV file, whose paths are relative to `root`.

    Args:
        file: the table described above.
        root: default: the folder of `file`.
        scale: the ends of the scale of valence and arousal; they become 1 and 9.
        name: of the data set; default: what the file says, or its stem.
        letter: of the data set in the paper's tables; default: what the file says.
        labels: for the provenance: where the labels come from.
        reserved: names that the file's stem may not give: its clips and its cache would pass for another set's.

    Raises:
        DataError: the file breaks one of the rules above; the line names file and row.
    """
    root = file.parent if root is None else root
    table = read_table(file, _NEEDED, _OPTIONAL, MARK)
    built = _Built(file, table)
    given, name = name, name or built.one("name") or file.stem
    letter = letter or built.one("letter")
    if not can_name(name):
        remedy = "give another" if given else "change its first line" if built.one("name") else "rename the file"
        remedy += "" if given else ", which names it"
        raise DataError(f"{file}: {name[:80]!r} cannot name a data set: {remedy} ({NAME_RULE})")
    if name.casefold() in reserved and (given or not built.known):
        remedy = "give another name" if given else "rename the file"
        raise DataError(f"{file}: {remedy}; {name} is the name of a registered data set")
    if len(letter) > 1 or (letter and not can_name(letter)):
        raise DataError(f"{file}: {letter[:80]!r} is not a letter of a data set")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; the paths in {file.name} are relative to it")
    columns = set(table.columns)
    _check_label_columns(file, table)
    if built.known and scale != (1.0, 9.0):
        raise DataError(f"{file}: m2e-manifest wrote it, with valence and arousal on 1-9: it takes no --scale")
    check_unique(table.rows, "track_id")
    place = Place(root)
    tracks = _grouped([_track(row, columns, name, place, scale) for row in table.rows], name)
    tag_names = built.tag_names or tuple(sorted({tag for track in tracks for tag in track.tags or ()}))
    points = sum(track.valence_arousal is not None for track in tracks)
    if not tag_names and not points:
        raise DataError(f"{file}: no track has a tag, or valence and arousal")
    if "split" not in columns:
        tracks = hash_splits(tracks)
    if unknown := {tag for track in tracks for tag in track.tags or ()} - set(tag_names):
        raise DataError(f"{file}: tag {min(unknown)[:80]!r} is not among the tags of its first line")
    notes = list(built.all("note"))
    if unused := [column for column in table.columns if column and column not in (*_NEEDED, *_OPTIONAL)]:
        notes.append(f"columns not used: {', '.join(unused)[:200]}")
    if not built.known:
        if shared := len(tracks) - len({str(track.audio_path) for track in tracks}):
            notes.append(f"{shared} tracks have the audio file of another")
        if 0 < points < len(tracks):
            notes.append(f"{len(tracks) - points} of {len(tracks)} tracks have no valence and arousal")
    return Manifest(
        name=name,
        letter=letter,
        tracks=tracks,
        tag_names=tag_names,
        provenance=built.one("provenance") or _provenance(file, columns, labels, scale),
        notes=tuple(notes),
        unlabelled=built.all("unlabelled"),
        root=None if built.known and name in reserved else root,
    )


def write(manifest: Manifest, root: Path) -> bytes:
    """The CSV file of a manifest whose audio is below `root`; `read` with this root gives the manifest again.

    Raises:
        DataError: a tag holds ";".
    """
    if clash := [tag for tag in manifest.tag_names if ";" in tag]:
        raise DataError(f"{manifest.name}: the tag {clash[0]!r} holds a semicolon, which separates tags")
    tagged = any(track.tags is not None for track in manifest.tracks)
    rated = any(track.valence_arousal for track in manifest.tracks)
    label_columns = [*(["tags"] if tagged else []), *(["valence", "arousal"] if rated else [])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            MARK,
            f"name={manifest.name}",
            f"letter={manifest.letter}",
            *(f"tag={tag}" for tag in manifest.tag_names),
            f"provenance={manifest.provenance}",
            *(f"note={note}" for note in manifest.notes),
            *(f"unlabelled={track_id}" for track_id in manifest.unlabelled),
        ]
    )
    writer.writerow(["track_id", "path", "split", *label_columns, "clip_group", "artist"])
    for track in manifest.tracks:
        labels = [";".join(tag for tag in manifest.tag_names if tag in (track.tags or ()))] if tagged else []
        if rated:
            point = track.valence_arousal
            labels += [repr(point.valence), repr(point.arousal)] if point else ["", ""]
        path = track.audio_path.relative_to(root).as_posix()
        writer.writerow([track.track_id, path, track.split or "", *labels, track.clip_group, track.artist])
    return text.getvalue().encode()


def may_replace(file: Path) -> bool:
    """Whether `write` may put its result where `file` is: nothing is there, or what `write` made."""
    if not file.is_file():
        return not file.exists()
    with file.open("rb") as there:
        return there.read(len(MARK)) == MARK.encode()


class _Built:
    """What the line above the header says."""

    def __init__(self, file: Path, table: Table) -> None:
        self._pairs = [cell.partition("=")[::2] for cell in table.preamble]
        if any(CONTROL.search(cell) for cell in table.preamble):
            raise DataError(f"{file}: row 1: holds control characters")
        if len(set(self.tag_names)) < len(self.tag_names) or "" in self.tag_names:
            raise DataError(f"{file}: row 1: names a tag twice, or one without a name")

    @property
    def known(self) -> bool:
        return bool(self._pairs)

    @property
    def tag_names(self) -> tuple[str, ...]:
        return self.all("tag")

    def all(self, key: str) -> tuple[str, ...]:
        return tuple(value for name, value in self._pairs if name == key)

    def one(self, key: str) -> str:
        return next(iter(self.all(key)), "")


def _check_label_columns(file: Path, table: Table) -> None:
    half = {"valence", "arousal"} & set(table.columns)
    if len(half) == 1 or not (half or "tags" in table.columns):
        raise DataError(
            f"{file}: needs the columns track_id, path, and tags, or valence and arousal, or all three; "
            f"it has {', '.join(table.columns)[:200]}"
        )


def _provenance(file: Path, columns: Set[str], labels: str, scale: tuple[float, float]) -> str:
    labels = labels or f"labels from {printable(file.name)}"
    if scale != (1.0, 9.0):
        labels += f", mapped from [{scale[0]:g}, {scale[1]:g}] to 1-9"
    return f"{labels}; splits: {f'column split of {printable(file.name)}' if 'split' in columns else HASH_SPLITS}"


def _track(row: Row, columns: Set[str], name: str, place: Place, scale: tuple[float, float]) -> Track:
    from m2e.cache.types import check_id

    cells = {column: row[column] if column in columns else "" for column in (*_NEEDED, *_OPTIONAL)}
    try:
        check_id(cells["track_id"])
    except ValueError as error:
        raise DataError(f"{row.where}: {error}") from error
    tags = frozenset(tag for part in cells["tags"].split(";") if (tag := " ".join(part.split())))
    for tag in tags:
        if "," in tag or not tag.isprintable() or len(tag) > _LONGEST_TAG:
            raise DataError(
                f"{row.where}: tag {tag[:80]!r}: tags are separated by semicolons, printable, and of at most "
                f"{_LONGEST_TAG} characters"
            )
    return Track(
        track_id=cells["track_id"],
        audio_path=place.inside(cells["path"], row.where),
        split=_split(row) if "split" in columns else None,
        tags=tags if "tags" in columns else None,
        valence_arousal=_valence_arousal(row, scale) if cells["valence"] or cells["arousal"] else None,
        clip_group=cells["clip_group"],
        artist=cells["artist"],
    )


def _grouped(tracks: list[Track], name: str) -> tuple[Track, ...]:
    """`tracks` with a clip group each: where none is given, that of another track with the same audio file."""
    first: dict[str, str] = {}
    for track in sorted(tracks, key=lambda track: not track.clip_group):  # those that are given go first
        first.setdefault(str(track.audio_path), track.clip_group or f"{name}/{track.track_id}")
    return tuple(
        track if track.clip_group else replace(track, clip_group=first[str(track.audio_path)]) for track in tracks
    )


def _split(row: Row) -> Split | None:
    for split in SPLITS:
        if row["split"] == split:
            return split
    if row["split"]:
        raise DataError(
            f"{row.where}: split {row['split'][:80]!r} is not one of {', '.join(SPLITS)}, or empty for none"
        )
    return None


def _valence_arousal(row: Row, scale: tuple[float, float]) -> ValenceArousal:
    low, high = scale
    values = [row.number(column, low, high) for column in ("valence", "arousal")]
    return ValenceArousal(*(values if scale == (1.0, 9.0) else [1 + 8 * ((x - low) / (high - low)) for x in values]))
