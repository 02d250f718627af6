"""A data set of one's own, in the form of those in manifests/: official files -> a table of tracks, splits and labels.

As manifests/moods.py, and with its line in `DATASETS` of manifests/__init__.py, this file is all that
`m2e-extract --dataset moods` needs. Run from a folder with data/moods, it shows what is read there:
moods.csv (columns song, singer, pleasant and active, both on 0-100) and mp3/SONG.mp3.
"""

from pathlib import Path

from m2e import manifests
from m2e.manifests.dataset import Choices, DataSet
from m2e.manifests.read.root import Place
from m2e.manifests.read.text import check_unique, read_rows
from m2e.manifests.splits import HASH_SPLITS, hash_splits
from m2e.manifests.types import Manifest, Track, ValenceArousal


def parse(root: Path, choices: Choices) -> Manifest:
    """The manifest of the data set in `root`; whatever is wrong is a DataError that names file and line."""
    place = Place(root)  # nothing outside the root is read, whatever the file says
    rows = read_rows(place.file(Path("moods.csv")), ("song", "singer", "pleasant", "active"))
    check_unique(rows, "song")
    tracks = [
        Track(
            track_id=row["song"],
            audio_path=place.inside(f"mp3/{row['song']}.mp3", row.where),
            # The paper's scale is 1-9.
            valence_arousal=ValenceArousal(
                1 + row.number("pleasant", 0, 100) * 8 / 100, 1 + row.number("active", 0, 100) * 8 / 100
            ),
            clip_group=f"moods/{row['song']}",
            artist=row["singer"],
        )
        for row in rows
    ]
    # No official split: a stable one, in which no artist is on two sides.
    return Manifest(
        name="moods",
        letter="",
        tracks=hash_splits(tracks),
        provenance=f"moods.csv, mapped from 0-100 to 1-9; splits: {HASH_SPLITS}",
    )


DATASET = DataSet(
    name="moods",
    letter="",
    description="Moods: songs with pleasantness and activity",
    holds="moods.csv and the folder mp3",
    source="https://example.org/moods",
    licence="see the data set's page",
    parse=parse,
)

if __name__ == "__main__":
    manifests.DATASETS[DATASET.name] = DATASET
    for track in manifests.load("moods").tracks:
        print(track.track_id, track.split, track.valence_arousal, track.audio_path)
