"""PMEmo 2019: 794 chorus clips, 767 of them with static arousal and valence on 0-1, here 1 + 8x as in the paper."""

from __future__ import annotations

from pathlib import Path

from m2e.common.errors import DataError
from m2e.manifests.dataset import Choices, DataSet
from m2e.manifests.read.root import Place
from m2e.manifests.read.text import Row, check_unique, read_rows
from m2e.manifests.splits import HASH_SPLITS, hash_splits
from m2e.manifests.types import Manifest, Track, ValenceArousal

NAME = "pmemo"


def parse(root: Path, choices: Choices) -> Manifest:
    """The manifest of the unpacked data set at `root`."""
    place = Place(root)
    labels_file, metadata_file = (
        place.file(Path(name)) for name in ("annotations/static_annotations.csv", "metadata.csv")
    )
    labels = read_rows(labels_file, ("musicId", "Arousal(mean)", "Valence(mean)"))
    metadata = read_rows(metadata_file, ("musicId", "artist"))
    for rows in (labels, metadata):
        check_unique(rows, "musicId")
    artist_of = {row["musicId"]: row["artist"] for row in metadata}
    for row in labels:
        if row["musicId"] not in artist_of:
            raise DataError(f"{row.where}: musicId {row['musicId']!r} is not in {metadata_file.name}")
    labelled = {row["musicId"] for row in labels}
    unlabelled = tuple(music_id for music_id in artist_of if music_id not in labelled)
    return Manifest(
        name=NAME,
        letter="P",
        tracks=hash_splits([_track(place, row, artist_of[row["musicId"]]) for row in labels]),
        provenance=f"PMEmo static annotations as distributed, mapped from 0-1 to 1-9; splits: {HASH_SPLITS}",
        notes=(f"{len(unlabelled)} of {len(metadata)} songs have no label and are left out",) if unlabelled else (),
        unlabelled=unlabelled,
    )


def _track(place: Place, row: Row, artist: str) -> Track:
    music_id = row.decimal_id("musicId")
    return Track(
        track_id=music_id,
        audio_path=place.audio(f"chorus/{music_id}.mp3"),
        valence_arousal=ValenceArousal(
            1 + 8 * row.number("Valence(mean)", 0, 1), 1 + 8 * row.number("Arousal(mean)", 0, 1)
        ),
        clip_group=f"{NAME}/{music_id}",
        artist=artist,
    )


DATASET = DataSet(
    name=NAME,
    letter="P",
    description="PMEmo: 767 chorus clips with valence and arousal",
    holds="the unpacked PMEmo2019: metadata.csv, annotations/static_annotations.csv and the folder chorus",
    source="https://github.com/HuiZhangDB/PMEmo",
    licence="research use; see the data set's page for its terms and whom to cite",
    parse=parse,
    steps=(
        "download PMEmo2019 (about 1.3 GB) from where https://github.com/HuiZhangDB/PMEmo points to",
        "unpack it in {root}: there are then {root}/metadata.csv, {root}/annotations and {root}/chorus/1.mp3",
    ),
    issues=(
        "27 of the 794 songs have audio and no static label: they are left out",
        "labels are on 0-1, arousal before valence: read by name and mapped to 1 + 8x, as in the paper",
        "20 clips are shorter than 15 s and 230 shorter than 30 s",
        "572 of its ids are also ids of DEAM, of other songs: ids never join data sets here, clip groups do",
        "with the paper's split, 62 of 115 test songs are by a name of the training set, one of them Various Artists",
    ),
    paper_counts=(536, 116, 115),
)
