"""DEAM, the MediaEval Database for Emotional Analysis in Music: 1,802 songs, static valence and arousal on 1-9.

Two files with different columns in different orders and, in the published form, spaces in their headers: read by
stripped name. In the published file valence and arousal of songs 2-1000 are exchanged.
"""

from __future__ import annotations

from pathlib import Path

from m2e.manifests.check.swap import SwapCheck, dynamic_means, swap_check
from m2e.manifests.dataset import Choices, DataSet
from m2e.manifests.datasets.mediaeval import SAME_AUDIO_ISSUE, clip_group
from m2e.manifests.read.root import Place
from m2e.manifests.read.text import Row, check_unique, read_rows
from m2e.manifests.splits import HASH_SPLITS, hash_splits
from m2e.manifests.types import Manifest, Track, ValenceArousal

NAME = "deam"
_AVERAGED = Path("annotations", "annotations averaged per song")
_STATIC = tuple(
    _AVERAGED / "song_level" / f"static_annotations_averaged_songs_{ids}.csv" for ids in ("1_2000", "2000_2058")
)
_DYNAMIC = tuple(_AVERAGED / "dynamic (per second annotations)" / f"{name}.csv" for name in ("valence", "arousal"))
_LAST_MEDIAEVAL_CLIP = 2000
_LAST_EXCHANGED = 1000
_EXCHANGED, _AS_LABELLED = "ids 2-1000", "ids 1001-2058"


def parse(root: Path, choices: Choices) -> Manifest:
    """The manifest of the unpacked annotations and audio at `root`."""
    place = Place(root)
    columns = ("song_id", "valence_mean", "arousal_mean")
    rows = [row for file in _STATIC for row in read_rows(place.file(file), columns)]
    check_unique(rows, "song_id")
    labels = {row.decimal_id("song_id"): _label(row) for row in rows}
    low = {song_id: label for song_id, label in labels.items() if int(song_id) <= _LAST_EXCHANGED}
    rest = {song_id: label for song_id, label in labels.items() if int(song_id) > _LAST_EXCHANGED}
    checks = _checks(place, {_EXCHANGED: low, _AS_LABELLED: rest})
    check = checks.get(_EXCHANGED)
    exchanged = {} if check and check.exchanged is False else low
    treatment = "as distributed"
    if choices.deam_labels == "repaired":
        labels |= {song_id: ValenceArousal(label.arousal, label.valence) for song_id, label in exchanged.items()}
        treatment = f"repaired: valence and arousal exchanged for {len(exchanged)} songs of ids 2-1000"
    return Manifest(
        name=NAME,
        letter="D",
        tracks=hash_splits([_track(place, song_id, label) for song_id, label in labels.items()]),
        provenance=f"DEAM static annotations averaged per song, {treatment}; splits: {HASH_SPLITS}",
        notes=(*([_note(len(low), check, choices)] if low else []), *_doubts(checks.get(_AS_LABELLED))),
        evidence=tuple((songs, check.figures) for songs, check in checks.items()),
    )


def _label(row: Row) -> ValenceArousal:
    return ValenceArousal(row.number("valence_mean", 1, 9), row.number("arousal_mean", 1, 9))


def _checks(place: Place, songs: dict[str, dict[str, ValenceArousal]]) -> dict[str, SwapCheck]:
    """The check of each group of songs; of none where dynamic annotations are not there, or too few to tell."""
    files = [place.file(file) for file in _DYNAMIC]
    if not all(file.is_file() for file in files):
        return {}
    dynamic = [dynamic_means(file) for file in files]
    checks = {group: swap_check(labels, *dynamic) for group, labels in songs.items()}
    return {group: check for group, check in checks.items() if check}


def _note(songs: int, check: SwapCheck | None, choices: Choices) -> str:
    if check is None:
        known = "going by their ids, without dynamic annotations enough to check"
    elif check.exchanged is None:
        known = "going by their ids: the dynamic annotations do not tell, which those published do"
    elif check.exchanged:
        known = "as the dynamic annotations show"
    else:
        return f"the swap check finds valence and arousal of ids 2-1000 right in this file: all {songs} songs are kept"
    if choices.deam_labels == "repaired":
        return f"{songs} songs (ids 2-1000) had valence and arousal exchanged, {known}: repaired"
    # Kept: every published result, the paper's included, was obtained on the file as it is.
    return (
        f"{songs} songs (ids 2-1000) carry valence and arousal exchanged, {known}: kept as distributed, "
        "as in published results; --deam-labels repaired puts them right"
    )


def _doubts(check: SwapCheck | None) -> list[str]:
    """A note where the songs that are right in the published file are not in this one."""
    if check is None or not check.exchanged:
        return []
    return [f"the swap check finds valence and arousal of {_AS_LABELLED} exchanged: this is not the published file"]


def _track(place: Place, song_id: str, label: ValenceArousal) -> Track:
    shared = int(song_id) <= _LAST_MEDIAEVAL_CLIP
    return Track(
        track_id=song_id,
        audio_path=place.audio(f"MEMD_audio/{song_id}.mp3"),
        valence_arousal=label,
        clip_group=clip_group(song_id) if shared else f"{NAME}/{song_id}",
    )


DATASET = DataSet(
    name=NAME,
    letter="D",
    description="DEAM: 1,802 clips and songs with valence and arousal",
    holds="the unpacked DEAM_Annotations.zip (a folder annotations) and DEAM_audio.zip (a folder MEMD_audio)",
    source="https://cvml.unige.ch/databases/DEAM/",
    licence="research use only; see the data set's page for its terms and whom to cite",
    parse=parse,
    steps=(
        "download DEAM_Annotations.zip and DEAM_audio.zip from https://cvml.unige.ch/databases/DEAM/",
        "unpack both in {root}: there are then {root}/annotations and {root}/MEMD_audio/2.mp3",
    ),
    issues=(
        "valence and arousal of ids 2-1000 (744 songs) are exchanged in the published static file; published results, "
        "the paper's included, rest on it as it is",
        "there is no official split; the paper's lists are applied with --splits",
        "all 744 clips of EmoMusic are among these songs, under the same ids: by default they take EmoMusic's splits "
        "where its annotations are beside this folder or in their default one (no audio is needed); else, and with the "
        "paper's lists, training on both sets leaks test clips",
        "ids 2001-2058 are full songs, the others clips of 45 s",
        SAME_AUDIO_ISSUE,
    ),
    paper_counts=(1261, 271, 270),
    shares_clips_with="emomusic",
)
