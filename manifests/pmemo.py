"""PMEmo 2019: 794 chorus clips, 767 of them with static arousal and valence on 0-1, here 1 + 8x as in the paper."""

from __future__ import annotations

from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests.dataset import DataSet
from m2e.manifests.files import Row, check_unique, read_rows
from m2e.manifests.splits import HASH_SPLITS, hash_split
from m2e.manifests.track import Manifest, Track, ValenceArousal

NAME = "pmemo"


def parse(root: Path) -> Manifest:
    """The manifest of the unpacked data set at `root`."""
    labels_file, metadata_file = root / "annotations" / "static_annotations.csv", root / "metadata.csv"
    labels = read_rows(labels_file, ("musicId", "Arousal(mean)", "Valence(mean)"))
    metadata = read_rows(metadata_file, ("musicId", "artist"))
    for rows in (labels, metadata):
        check_unique(rows, "musicId")
    artist_of = {row["musicId"]: row["artist"] for row in metadata}
    for row in labels:
        if row["musicId"] not in artist_of:
            raise DataError(f"{row.where}: musicId {row['musicId']!r} is not in {metadata_file.name}")
    unlabelled = len(metadata) - len(labels)
    return Manifest(
        name=NAME,
        letter="P",
        tracks=tuple(_track(root, row, artist_of[row["musicId"]]) for row in labels),
        provenance=f"PMEmo static annotations as distributed, mapped from 0-1 to 1-9; splits: {HASH_SPLITS}",
        notes=(f"{unlabelled} of {len(metadata)} songs have no label and are left out",) if unlabelled else (),
    )


def _track(root: Path, row: Row, artist: str) -> Track:
    music_id = row.decimal_id("musicId")
    group = f"{NAME}/{music_id}"
    return Track(
        track_id=music_id,
        audio_path=root / "chorus" / f"{music_id}.mp3",
        split=hash_split(group),
        valence_arousal=ValenceArousal(
            1 + 8 * row.number("Valence(mean)", 0, 1), 1 + 8 * row.number("Arousal(mean)", 0, 1)
        ),
        clip_group=group,
        artist=artist,
    )


DATASET = DataSet(
    name=NAME,
    letter="P",
    description="PMEmo: 767 chorus clips with valence and arousal",
    holds="the unpacked PMEmo2019: metadata.csv, annotations/static_annotations.csv and the folder chorus",
    source="https://github.com/HuiZhangDB/PMEmo",
    parse=parse,
)
