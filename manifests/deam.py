"""DEAM, the MediaEval Database for Emotional Analysis in Music: 1,802 songs, static valence and arousal on 1-9.

Two files with different columns in different orders and spaces in their headers: read by stripped name.
"""

from __future__ import annotations

from pathlib import Path

from m2e.manifests.dataset import DataSet
from m2e.manifests.files import Row, check_unique, read_rows
from m2e.manifests.mediaeval import clip_group
from m2e.manifests.splits import HASH_SPLITS, hash_split
from m2e.manifests.track import Manifest, Track, ValenceArousal

NAME = "deam"
_FOLDER = Path("annotations", "annotations averaged per song", "song_level")
_FILES = ("static_annotations_averaged_songs_1_2000.csv", "static_annotations_averaged_songs_2000_2058.csv")
_LAST_MEDIAEVAL_CLIP = 2000
_LAST_EXCHANGED = 1000


def parse(root: Path) -> Manifest:
    """The manifest of the unpacked annotations and audio at `root`."""
    columns = ("song_id", "valence_mean", "arousal_mean")
    rows = [row for name in _FILES for row in read_rows(root / _FOLDER / name, columns)]
    check_unique(rows, "song_id")
    tracks = tuple(_track(root, row) for row in rows)
    exchanged = sum(int(track.track_id) <= _LAST_EXCHANGED for track in tracks)
    # Kept: every published result, the paper's included, was obtained on the file as it is.
    note = f"{exchanged} songs (ids 2-1000) carry valence and arousal exchanged, as in the published file"
    return Manifest(
        name=NAME,
        letter="D",
        tracks=tracks,
        provenance=f"DEAM static annotations averaged per song, as distributed; splits: {HASH_SPLITS}",
        notes=(note,) if exchanged else (),
    )


def _track(root: Path, row: Row) -> Track:
    song_id = row.decimal_id("song_id")
    group = clip_group(song_id) if int(song_id) <= _LAST_MEDIAEVAL_CLIP else f"{NAME}/{song_id}"
    return Track(
        track_id=song_id,
        audio_path=root / "MEMD_audio" / f"{song_id}.mp3",
        split=hash_split(group),
        valence_arousal=ValenceArousal(row.number("valence_mean", 1, 9), row.number("arousal_mean", 1, 9)),
        clip_group=group,
    )


DATASET = DataSet(
    name=NAME,
    letter="D",
    description="DEAM: 1,802 clips and songs with valence and arousal",
    holds="the unpacked DEAM_Annotations.zip (a folder annotations) and DEAM_audio.zip (a folder MEMD_audio)",
    source="https://cvml.unige.ch/databases/DEAM/",
    parse=parse,
)
