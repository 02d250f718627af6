"""MTG-Jamendo, mood/theme subset, official split-0: 17,982 tracks and 56 tags.

The split files have a header line and then TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION and a ragged number of tags,
all separated by tabs. The column order of the tags is that of moodtheme_split.txt, as in all published results.
"""

from __future__ import annotations

import re
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests.dataset import DataSet
from m2e.manifests.files import read_text
from m2e.manifests.track import SPLITS, Manifest, Track

NAME = "mtg-jamendo"
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_FORMS = {"TRACK_ID": r"track_\d{7}", "ARTIST_ID": r"artist_\d{6}", "PATH": r"\d{2}/\d+\.mp3"}
_PREFIX = "mood/theme---"


def parse(root: Path) -> Manifest:
    """The manifest of a clone of MTG/mtg-jamendo-dataset at `root`."""
    tag_file = root / "data" / "tags" / "moodtheme_split.txt"
    tags_in_order = read_text(tag_file).split()
    if any(not (tag.startswith(_PREFIX) and tag.isprintable()) for tag in tags_in_order):
        raise DataError(f"{tag_file}: should hold one tag a line, such as {_PREFIX}happy, and nothing else")
    tag_names = tuple(tag.removeprefix(_PREFIX) for tag in tags_in_order)
    if len(set(tag_names)) < len(tag_names):
        raise DataError(f"{tag_file}: names a tag twice")
    audio = _AudioFiles(root)
    tracks: dict[str, Track] = {}
    for split in SPLITS:
        path = root / "data" / "splits" / "split-0" / f"autotagging_moodtheme-{split}.tsv"
        header, *lines = read_text(path).splitlines()
        if header.split("\t") != _HEADER:
            raise DataError(f"{path}: its header is {header[:80]!r}, not {' '.join(_HEADER)} with tabs between")
        if not lines:
            raise DataError(f"{path}: has no row below its header")
        for number, line in enumerate(lines, start=2):
            where = f"{path}: row {number}"
            cells = line.split("\t")
            if len(cells) < len(_HEADER):
                raise DataError(f"{where}: has {len(cells)} cells; it needs {' '.join(_HEADER[:-1])} and a tag")
            for column, form in _FORMS.items():
                cell = cells[_HEADER.index(column)]
                if not re.fullmatch(form, cell, re.ASCII):
                    raise DataError(f"{where}: {column} {cell!r} is not of the form {form}")
            track_id, artist, _, audio_path, _, *tags = cells
            names = frozenset(tag.removeprefix(_PREFIX) for tag in tags)
            if unknown := names - set(tag_names):
                raise DataError(f"{where}: tag {min(unknown)!r} is not in {tag_file.name}")
            if track_id in tracks:
                raise DataError(f"{where}: TRACK_ID {track_id!r} stands twice in the split files")
            tracks[track_id] = Track(
                track_id=track_id,
                audio_path=audio.find(audio_path),
                split=split,
                tags=names,
                clip_group=f"{NAME}/{track_id}",
                artist=artist,
            )
    return Manifest(
        name=NAME,
        letter="J",
        tracks=tuple(tracks.values()),
        tag_names=tag_names,
        provenance="mood/theme tags as distributed in MTG/mtg-jamendo-dataset; splits: official split-0",
    )


class _AudioFiles:
    """Finds audio under `root` or `root/audio`, plain or as the audio-low download; lists each folder only once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[Path, set[str]] = {}

    def find(self, path: str) -> Path:
        """Where `path`, such as "48/948.mp3", is; below the root itself when it is nowhere."""
        folder, name = path.split("/")
        for base in (self._root, self._root / "audio"):
            for form in (name, name.replace(".mp3", ".low.mp3")):
                if form in self._names(base / folder):
                    return base / folder / form
        return self._root / path

    def _names(self, folder: Path) -> set[str]:
        if folder not in self._listed:
            self._listed[folder] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        return self._listed[folder]


DATASET = DataSet(
    name=NAME,
    letter="J",
    description="MTG-Jamendo mood/theme: 17,982 full tracks, 56 tags, official split-0",
    holds="a clone of the repository with the audio as 48/948.mp3 or 48/948.low.mp3, there or in its audio folder",
    source="https://github.com/MTG/mtg-jamendo-dataset",
    parse=parse,
)
