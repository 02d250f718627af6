"""A data set as a table of tracks: where the audio is, which split, which labels.

Valence and arousal are always on 1-9 here; readers map other scales.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m2e.cache.types import SPLITS, Split, check_id
from m2e.common.checks import NAME_RULE, can_name, is_line, is_number, unlike

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SPLITS", "Manifest", "Split", "Track", "ValenceArousal"]


@dataclass(frozen=True)
class ValenceArousal:
    """A point of the circumplex model, both axes on 1-9 (paper section IV-A)."""

    valence: float
    arousal: float

    def __post_init__(self) -> None:
        for name, value in (("valence", self.valence), ("arousal", self.arousal)):
            if not is_number(value, 1, 9):
                raise ValueError(f"{name} {value!r} is not on the scale 1-9")


@dataclass(frozen=True, slots=True)
class Track:
    """One track of a data set.

    Attributes:
        track_id: unique in its data set.
        audio_path: where the audio should be; it may be missing.
        split: None for a track in no split.
        tags: mood tags, a subset of the manifest's `tag_names`; None where the set has none.
        valence_arousal: None where unlabelled.
        clip_group: equal for tracks that hold the same clip, across data sets too; never a bare id.
        artist: "" where unknown.
    """

    track_id: str
    audio_path: Path
    split: Split | None = None
    tags: frozenset[str] | None = None
    valence_arousal: ValenceArousal | None = None
    clip_group: str = ""
    artist: str = ""

    def __post_init__(self) -> None:
        check_id(self.track_id)
        if (
            (self.split is not None and self.split not in SPLITS)
            or (self.tags is not None and type(self.tags) is not frozenset)
            or (self.valence_arousal is not None and type(self.valence_arousal) is not ValenceArousal)
            or type(self.clip_group) is not str
            or type(self.artist) is not str
            or not isinstance(self.audio_path, Path)
        ):
            raise ValueError(f"track {self.track_id!r}: {self._wrong()}")

    def _wrong(self) -> str:
        """What __post_init__, which a million tracks go through, has found."""
        label = self.valence_arousal
        for name, right, accepted in (
            ("split", self.split in (None, *SPLITS), f"one of {', '.join(SPLITS)}, or None"),
            ("tags", self.tags is None or isinstance(self.tags, frozenset), "a frozenset of texts, or None"),
            ("valence_arousal", label is None or isinstance(label, ValenceArousal), "a ValenceArousal, or None"),
            ("clip_group", isinstance(self.clip_group, str), "a text"),
            ("artist", isinstance(self.artist, str), "a text"),
        ):
            if not right:
                return unlike(name, getattr(self, name), accepted)
        return unlike("audio_path", self.audio_path, "a Path")

    @property
    def has_audio(self) -> bool:
        """Whether the audio file is there, as far as this user may see."""
        try:
            return self.audio_path.is_file()
        except OSError:
            return False


@dataclass(frozen=True)
class Manifest:
    """A data set: its tracks and what is known of their labels.

    Attributes:
        name: such as "mtg-jamendo".
        letter: the paper's letter (J, D, E, P), or "" for a user's own.
        tracks: in the order of the official file.
        tag_names: the tags' column order; empty for a set without tags.
        provenance: a sentence on the source of labels and splits, printed in reports: "<labels>; splits: <splits>".
        notes: a line each on what a user should know (songs without labels, ...).
        unlabelled: ids that the data set names but that have no label, and so are no tracks here.
        evidence: figures on which a judgement of the labels rests: of which tracks, and by what they measure.
        root: of a user's own table, the folder that its paths start from; None for a registered data set.
    """

    name: str
    letter: str
    tracks: tuple[Track, ...]
    tag_names: tuple[str, ...] = ()
    provenance: str = ""
    notes: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    evidence: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    root: Path | None = None

    def __post_init__(self) -> None:
        what = f"data set {repr(self.name)[:80]}"
        if not isinstance(self.name, str) or not can_name(self.name):
            raise ValueError(f"{what}: a name has {NAME_RULE}")
        if not is_line(self.letter) or len(self.letter) > 1 or (self.letter and not can_name(self.letter)):
            raise ValueError(f"{what}: {unlike('letter', self.letter, 'one character, or empty')}")
        if not isinstance(self.tracks, tuple) or not all(isinstance(track, Track) for track in self.tracks):
            raise ValueError(f"{what}: tracks must be a tuple of Track")
        for name in ("tag_names", "notes", "unlabelled"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{what}: {unlike(name, texts, 'a tuple of texts')}")
        if len(set(self.tag_names)) < len(self.tag_names) or not all(self.tag_names):
            raise ValueError(f"{what}: a tag stands twice, or has no name")
        if not isinstance(self.provenance, str):
            raise ValueError(f"{what}: {unlike('provenance', self.provenance, 'a text')}")
        ids = [track.track_id for track in self.tracks]
        if len(set(ids)) != len(ids):
            twice, _ = Counter(ids).most_common(1)[0]
            raise ValueError(f"{what}: track id {twice!r} stands twice")
        unknown = {tag for track in self.tracks for tag in track.tags or ()} - set(self.tag_names)
        if unknown:
            raise ValueError(f"{what}: tags {sorted(map(str, unknown))[:3]} are not among its tag names")

    def to_frame(self) -> DataFrame:
        """The tracks as a pandas table, one row a track in the manifest's order, for looking and counting.

        Its index is track_id; its columns are path, split (missing for a track in no split), clip_group, artist,
        valence and arousal (1-9, NaN where unlabelled) and a column of bool for each of `tag_names`.
        """
        import pandas as pd

        labels = [track.valence_arousal for track in self.tracks]
        columns = {
            "path": [str(track.audio_path) for track in self.tracks],
            "split": [track.split for track in self.tracks],
            "clip_group": [track.clip_group for track in self.tracks],
            "artist": [track.artist for track in self.tracks],
            "valence": [label.valence if label else float("nan") for label in labels],
            "arousal": [label.arousal if label else float("nan") for label in labels],
        }
        tags = {name: [name in (track.tags or ()) for track in self.tracks] for name in self.tag_names}
        index = pd.Index([track.track_id for track in self.tracks], name="track_id")
        return pd.concat([pd.DataFrame(columns, index), pd.DataFrame(tags, index, dtype=bool)], axis="columns")
