"""MTG-Jamendo, mood/theme subset, an official split: split-0 has 17,982 tracks and 56 tags.

The split files have a header line and then TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION and a ragged number of tags,
all separated by tabs. The column order of the tags is that of moodtheme_split.txt, as in all published results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from m2e.common.errors import DataError
from m2e.manifests.dataset import Choices, DataSet, RemoteFile
from m2e.manifests.read.root import Place
from m2e.manifests.read.text import read_lines
from m2e.manifests.types import SPLITS, Manifest, Track

NAME = "mtg-jamendo"
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_FORMS = {"TRACK_ID": r"track_\d{7}", "ARTIST_ID": r"artist_\d{6}", "PATH": r"\d{2}/\d+\.mp3"}
_PREFIX = "mood/theme---"
_TAG_FILE = "data/tags/moodtheme_split.txt"


def parse(root: Path, choices: Choices) -> Manifest:
    """The manifest of a clone of MTG/mtg-jamendo-dataset at `root`."""
    place = Place(root)
    tag_file = place.file(Path(_TAG_FILE))
    tag_names = _tag_names(tag_file)
    number = choices.jamendo_split
    tracks: dict[str, Track] = {}
    track_of: dict[str, str] = {}
    for split in SPLITS:
        path = place.file(Path(_split_file(number, split)))
        for where, cells in _rows(path):
            track_id, artist, _, audio_path, _, *tags = cells
            names = frozenset(tag.removeprefix(_PREFIX) for tag in tags)
            if unknown := names - set(tag_names):
                raise DataError(f"{where}: tag {min(unknown)[:80]!r} is not in {tag_file.name}")
            if track_id in tracks:
                raise DataError(f"{where}: TRACK_ID {track_id!r} stands twice in the split files")
            if track_of.setdefault(audio_path, track_id) != track_id:
                raise DataError(f"{where}: PATH {audio_path!r} is that of {track_of[audio_path]} already")
            tracks[track_id] = Track(
                track_id=track_id,
                audio_path=_audio(place, audio_path),
                split=split,
                tags=names,
                clip_group=f"{NAME}/{track_id}",
                artist=artist,
            )
    low = sum(track.audio_path.name.endswith(".low.mp3") for track in tracks.values())
    full = sum(track.has_audio for track in tracks.values()) - low if low else 0
    return Manifest(
        name=NAME,
        letter="J",
        tracks=tuple(tracks.values()),
        tag_names=tag_names,
        provenance=f"mood/theme tags as distributed in MTG/mtg-jamendo-dataset; splits: official split-{number}",
        notes=(f"{full} files are of full quality and {low} of low: use one of the two",) if full else (),
    )


def _split_file(number: int, split: str) -> str:
    return f"data/splits/split-{number}/autotagging_moodtheme-{split}.tsv"


def _tag_names(path: Path) -> tuple[str, ...]:
    tags = [tag for line in read_lines(path) if (tag := line.strip())]
    if any(not re.fullmatch(f"{_PREFIX}[a-z]{{1,40}}", tag) for tag in tags):
        raise DataError(f"{path}: should hold one tag a line, such as {_PREFIX}happy, and nothing else")
    if len(set(tags)) < len(tags):
        raise DataError(f"{path}: names a tag twice")
    return tuple(tag.removeprefix(_PREFIX) for tag in tags)


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a row stands, and its cells: checked, but for the tags."""
    lines = (line.rstrip("\r\n") for line in read_lines(path))
    header = next(lines)
    if header.split("\t") != _HEADER:
        raise DataError(f"{path}: its header is {header[:80]!r}, not {' '.join(_HEADER)} with tabs between")
    number = 1
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        where, cells = f"{path}: row {number}", line.split("\t")
        if len(cells) < len(_HEADER):
            raise DataError(f"{where}: has {len(cells)} cells; it needs {' '.join(_HEADER[:-1])} and a tag")
        for column, form in _FORMS.items():
            cell = cells[_HEADER.index(column)]
            if not re.fullmatch(form, cell, re.ASCII):
                raise DataError(f"{where}: {column} {cell[:80]!r} is not of the form {form}")
        yield where, cells
    if number == 1:
        raise DataError(f"{path}: has no row below its header")


def _audio(place: Place, path: str) -> Path:
    """Where `path`, such as "48/948.mp3", is: at the root or in audio, plain or as the audio-low download has it."""
    low = path.replace(".mp3", ".low.mp3")
    return place.audio(path, f"audio/{path}", low, f"audio/{low}")


# The split files are of this commit; their sizes and samples of their text there are those of the files whose SHA-256
# stands here. The tag file is of another, where its whole text was compared.
_SPLITS_COMMIT = "f0831d0ce7294757a68e063d32900d9bf323f7a4"
_TAGS_COMMIT = "01b16b2f9a4013bef53fde9b1dbba15b52541c1a"
_SHA256 = {
    "train": "e5e9e798364b34bd241b773e5011809b24429edf471f27cf21dd8181077ba2d4",
    "validation": "ecaa279367153476884d84d686479e566234cef1814bd6892a8755ba0a550dbf",
    "test": "4341b5586bb3e5a80a882ce9ef33cb8b1bdaa7df856246ecc5de188dfe1cf394",
}
_TAGS_SHA256 = "68797d2f5164d78aafb641a6575f6ba68723293a715a91a8166a7b8ec19af169"

DATASET = DataSet(
    name=NAME,
    letter="J",
    description="MTG-Jamendo mood/theme: 17,982 full tracks, 56 tags, official split-0",
    holds="a clone of the repository with the audio as 48/948.mp3 or 48/948.low.mp3, there or in its audio folder",
    source="https://github.com/MTG/mtg-jamendo-dataset",
    licence="metadata CC BY-NC-SA 4.0; each track under a Creative Commons licence of its own (audio_licenses.txt)",
    parse=parse,
    steps=(
        "git clone https://github.com/MTG/mtg-jamendo-dataset {root} (to look at the labels alone, 1.8 MB, in place of "
        "this: m2e-manifest fetch mtg-jamendo --root {root})",
        "the audio of the mood/theme subset (152 GB): cd {root} && mkdir audio && python scripts/download/download.py "
        "--dataset autotagging_moodtheme --type audio audio --unpack --remove (it needs gdown, requests and tqdm; "
        "--type audio-low brings smaller files)",
        "decode all audio, and compare it with the digests: m2e-manifest verify-audio mtg-jamendo --root {root}",
    ),
    issues=(
        "rows have a ragged number of tab-separated tags: it is no rectangular CSV",
        "the whole subset has 18,486 tracks and 59 tags; the official splits keep 56 tags and leave tracks out",
        "durations run from 30 to 3,931 s",
    ),
    paper_counts=(9949, 3802, 4231),
    base_url="https://raw.githubusercontent.com/MTG/mtg-jamendo-dataset",
    files=(
        RemoteFile(_TAG_FILE, f"{_TAGS_COMMIT}/{_TAG_FILE}", _TAGS_SHA256),
        *(
            RemoteFile(_split_file(0, split), f"{_SPLITS_COMMIT}/{_split_file(0, split)}", _SHA256[split])
            for split in SPLITS
        ),
    ),
    audio_digests=(
        "data/download/autotagging_moodtheme_audio_sha256_tracks.txt",
        "data/download/autotagging_moodtheme_audio-low_sha256_tracks.txt",
    ),
)
