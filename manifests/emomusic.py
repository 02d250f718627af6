"""EmoMusic (MediaEval 2013, "1000 songs"): 744 clips of 45 s, static arousal and valence on 1-9.

The text fields of songs_info.csv hold tabs inside their quotes. Every clip is also in DEAM, under the same id.
"""

from __future__ import annotations

from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests.dataset import DataSet
from m2e.manifests.files import Row, check_unique, read_rows
from m2e.manifests.mediaeval import clip_group
from m2e.manifests.splits import hash_split
from m2e.manifests.track import Manifest, Split, Track, ValenceArousal

NAME = "emomusic"


def parse(root: Path) -> Manifest:
    """The manifest of the unpacked annotations and clips at `root`."""
    labels_file, info_file = (root / "annotations" / name for name in ("static_annotations.csv", "songs_info.csv"))
    labels = read_rows(labels_file, ("song_id", "mean_arousal", "mean_valence"))
    infos = read_rows(info_file, ("song_id", "Artist", "Mediaeval 2013 set"))
    for rows in (labels, infos):
        check_unique(rows, "song_id")
    info_of = {row["song_id"]: row for row in infos}
    if lone := info_of.keys() ^ {row["song_id"] for row in labels}:
        raise DataError(f"{info_file}: song_id {min(lone)!r} stands there or in {labels_file.name}, but not in both")
    return Manifest(
        name=NAME,
        letter="E",
        tracks=tuple(_track(root, row, info_of[row["song_id"]]) for row in labels),
        provenance=(
            "EmoMusic static annotations as distributed; splits: test is the official evaluation set, "
            "train and validation are 80/20 of the development set by a hash of the clip"
        ),
    )


def _track(root: Path, label: Row, info: Row) -> Track:
    song_id = label.decimal_id("song_id")
    group = clip_group(song_id)
    return Track(
        track_id=song_id,
        audio_path=root / "clips_45sec" / f"{song_id}.mp3",
        split=_split(info, group),
        valence_arousal=ValenceArousal(label.number("mean_valence", 1, 9), label.number("mean_arousal", 1, 9)),
        clip_group=group,
        artist=info["Artist"],
    )


def _split(info: Row, group: str) -> Split:
    official = info["Mediaeval 2013 set"]
    if official == "evaluation":
        return "test"
    if official != "development":
        raise DataError(f"{info.where}: Mediaeval 2013 set {official!r} is neither 'development' nor 'evaluation'")
    return hash_split(group, train=0.8, validation=0.2)


DATASET = DataSet(
    name=NAME,
    letter="E",
    description="EmoMusic: 744 clips of 45 s with valence and arousal, official test set",
    holds="the unpacked annotations (a folder annotations) and clips (a folder clips_45sec)",
    source="https://cvml.unige.ch/databases/emoMusic/",
    parse=parse,
)
