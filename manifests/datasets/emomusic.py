"""EmoMusic (MediaEval 2013, "1000 songs"): 744 clips of 45 s, static arousal and valence on 1-9.

The text fields of songs_info.csv hold tabs inside their quotes. Every clip is also in DEAM, under the same id.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from m2e.common.errors import DataError
from m2e.manifests.dataset import Choices, DataSet
from m2e.manifests.datasets.mediaeval import SAME_AUDIO_ISSUE, clip_group
from m2e.manifests.read.root import Place
from m2e.manifests.read.text import Row, check_unique, read_rows
from m2e.manifests.splits import hash_splits
from m2e.manifests.types import Manifest, Track, ValenceArousal

NAME = "emomusic"


def parse(root: Path, choices: Choices) -> Manifest:
    """The manifest of the unpacked annotations and clips at `root`."""
    place = Place(root)
    labels_file, info_file = (
        place.file(Path("annotations", name)) for name in ("static_annotations.csv", "songs_info.csv")
    )
    labels = read_rows(labels_file, ("song_id", "mean_arousal", "mean_valence"))
    infos = read_rows(info_file, ("song_id", "Artist", "Mediaeval 2013 set"))
    for rows in (labels, infos):
        check_unique(rows, "song_id")
    info_of = {row["song_id"]: row for row in infos}
    if lone := info_of.keys() ^ {row["song_id"] for row in labels}:
        raise DataError(f"{info_file}: song_id {min(lone)!r} stands there or in {labels_file.name}, but not in both")
    tracks = [_track(place, row, info_of[row["song_id"]]) for row in labels]
    tested = {track.clip_group for track in tracks if track.split == "test"}
    repeated = [track for track in tracks if track.split is None and track.clip_group in tested]
    development = [track for track in tracks if track.clip_group not in tested]
    split_of = {track.track_id: track.split for track in hash_splits(development, train=0.8, validation=0.2)}
    return Manifest(
        name=NAME,
        letter="E",
        tracks=tuple(replace(track, split=split_of.get(track.track_id, track.split)) for track in tracks),
        provenance=(
            "EmoMusic static annotations as distributed; splits: test is the official evaluation set, "
            "train and validation are 80/20 of the development set by a hash of clip and artist"
            + "".join(f", without {track.track_id}, which repeats a test clip" for track in repeated)
        ),
    )


def _track(place: Place, label: Row, info: Row) -> Track:
    """The track, with a split only where it is of the evaluation set."""
    song_id = label.decimal_id("song_id")
    official = info["Mediaeval 2013 set"]
    if official not in ("evaluation", "development"):
        raise DataError(f"{info.where}: Mediaeval 2013 set {official!r} is neither 'development' nor 'evaluation'")
    return Track(
        track_id=song_id,
        audio_path=place.audio(f"clips_45sec/{song_id}.mp3", f"clips_45seconds/{song_id}.mp3"),
        split="test" if official == "evaluation" else None,
        valence_arousal=ValenceArousal(label.number("mean_valence", 1, 9), label.number("mean_arousal", 1, 9)),
        clip_group=clip_group(song_id),
        artist=info["Artist"],
    )


DATASET = DataSet(
    name=NAME,
    letter="E",
    description="EmoMusic: 744 clips of 45 s with valence and arousal, official test set",
    holds="the unpacked annotations (a folder annotations) and clips (a folder clips_45sec or clips_45seconds)",
    source="https://cvml.unige.ch/databases/emoMusic/",
    licence="annotations for research use; the clips come from the Free Music Archive under Creative Commons licences",
    parse=parse,
    steps=(
        "download annotations and the 45 s clips from https://cvml.unige.ch/databases/emoMusic/",
        "unpack both in {root}: there are then {root}/annotations/songs_info.csv and {root}/clips_45sec/2.mp3",
    ),
    issues=(
        "all 744 clips are also in DEAM, under the same ids: joint training on the paper's splits leaks test clips "
        "(`m2e-manifest leaks` counts them); DEAM's default splits follow these",
        "songs of one artist stand in the official development and evaluation sets alike",
        "arousal stands before valence in the label file; it is read by name",
        SAME_AUDIO_ISSUE,
        "631 is of the development set and 893, the same audio, of the evaluation set: 631 is left out of all splits",
    ),
    paper_counts=(495, 124, 125),
)
