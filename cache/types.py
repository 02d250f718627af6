"""What a cache holds: a track's features, and the labels of a data set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import ChordSequence, Key
from m2e.cache.notes import Note, are_notes
from m2e.common.checks import is_line, is_number, is_whole, unlike

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
MAX_ID_BYTES = 64


@dataclass(frozen=True, eq=False)
class TrackFeatures:
    """All features of one track.

    Attributes:
        track_id: unique in its data set; at most 64 bytes in UTF-8.
        embeddings: time means of the stored hidden states, segments in time order [shape=(segments, layers, dim)].
        chords: absolute, not normalised by key.
        key: None when no pitched chord was heard.
        duration: of the decoded audio, seconds.
        audio_sha256: digest of the audio file, 32 bytes.
        audio_bytes: size of the audio file.
        notes: what there is to say of the audio.
    """

    track_id: str
    embeddings: NDArray[np.float32]
    chords: ChordSequence
    key: Key | None
    duration: float
    audio_sha256: bytes
    audio_bytes: int
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        check_id(self.track_id)
        embeddings = self.embeddings
        if not isinstance(embeddings, np.ndarray) or embeddings.dtype.kind != "f":
            found = getattr(embeddings, "dtype", type(embeddings).__name__)
            raise ValueError(f"track {self.track_id!r}: embeddings are {found}, not an array of float32")
        if embeddings.ndim != 3 or 0 in embeddings.shape:
            raise ValueError(
                f"track {self.track_id!r}: embeddings have shape {embeddings.shape}, "
                "not (segments, layers, dim) with at least one of each"
            )
        if not np.isfinite(self.embeddings).all() or np.abs(self.embeddings).max() > 6e4:
            raise ValueError(f"track {self.track_id!r}: embeddings hold values that float16 cannot (NaN, inf or > 6e4)")
        if not isinstance(self.chords, ChordSequence) or not isinstance(self.key, Key | None):
            raise ValueError(f"track {self.track_id!r}: chords must be a ChordSequence, and key a Key or None")
        for name, right, accepted in (
            ("duration", is_number(self.duration, 0, np.inf), "a finite number of seconds, 0 or more"),
            ("audio_bytes", is_whole(self.audio_bytes, 0, 2**64 - 1), "a whole number, 0 or more"),
            ("audio_sha256", type(self.audio_sha256) is bytes and len(self.audio_sha256) == 32, "32 bytes"),
            ("notes", are_notes(self.notes), "a tuple of Note"),
        ):
            if not right:
                raise ValueError(f"track {self.track_id!r}: {unlike(name, getattr(self, name), accepted)}")


def check_id(track_id: str) -> None:
    """Raise ValueError unless `track_id` can be stored: 1-64 bytes of UTF-8, no control characters."""
    if (
        not isinstance(track_id, str)
        or not track_id
        or not track_id.isprintable()  # nor are lone surrogates, which are no UTF-8
        or len(track_id.encode()) > MAX_ID_BYTES
    ):
        raise ValueError(
            f"track id {repr(track_id)[:80]} must be 1-{MAX_ID_BYTES} bytes of UTF-8 without control characters"
        )


def _is_table(values: object, kinds: str, shape: tuple[int, ...]) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in kinds and values.shape == shape


# In place of a digest of where a track's features were heard: another table's record has its id; nobody knows.
FOREIGN, UNKNOWN = 0, 1


@dataclass(frozen=True, eq=False)
class Source:
    """Which manifest labels come from: two of one name may have nothing to do with each other.

    Of a registered data set, which its name tells from all others, `root` is "" and the arrays are empty.

    Attributes:
        root: the folder that the paths of a user's own table start from, absolute.
        paths: a digest of each track's audio path, from there [shape=(N,)].
        heard: a digest of the absolute path of the audio that its features were made of, or compared with; `FOREIGN`
            where features under its id are another table's, so that they are not read, and `UNKNOWN` where they have
            not been compared [shape=(N,)].
        audio: the SHA-256 of that audio, so that features of other audio are not read, whatever their settings; zeros
            where it is not known [shape=(N, 32)].
    """

    root: str
    paths: NDArray[np.uint64]
    heard: NDArray[np.uint64]
    audio: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not is_line(self.root):
            raise ValueError(f"a source has a line of text, not {self.root[:80]!r}")
        for name in ("paths", "heard"):
            if not _is_table(getattr(self, name), "u", (len(self.paths),)) or (not self.root and len(self.paths)):
                raise ValueError(f"a source's {name} must be a digest for each track")
        if not _is_table(self.audio, "u", (len(self.paths), 32)):
            raise ValueError("a source's audio must be 32 bytes for each track")

    def is_equal(self, other: Source) -> bool:
        """Whether all is the same."""
        return self.root == other.root and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("paths", "heard", "audio")
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """The manifest of a data set as arrays; row i of every array is track `track_ids[i]`.

    Attributes:
        dataset: name of the data set, such as "mtg-jamendo".
        letter: its letter in the paper's tables (J, D, E, P), or "".
        track_ids: every track of the manifest, with features or without.
        splits: "train", "validation", "test", or "" for a track in none of them.
        tag_names: the T tags in column order; empty when the set has none.
        tags: 0 or 1 [shape=(N, T)].
        valence_arousal: on 1-9, NaN where absent [shape=(N, 2)].
        clip_group: tracks with equal groups hold the same clip, across data sets too.
        artist: "" where unknown.
        provenance: a sentence on where labels and splits come from, for reports.
        source: which manifest they are; None where an older m2e did not say.
    """

    dataset: str
    letter: str
    track_ids: tuple[str, ...]
    splits: tuple[str, ...]
    tag_names: tuple[str, ...]
    tags: NDArray[np.uint8]
    valence_arousal: NDArray[np.float32]
    clip_group: tuple[str, ...]
    artist: tuple[str, ...]
    provenance: str
    source: Source | None = None

    def is_equal(self, other: Labels) -> bool:
        """Whether all is the same."""
        arrays = ("tags", "valence_arousal")
        texts = (field.name for field in fields(self) if field.name not in (*arrays, "source"))
        if not all(getattr(self, name) == getattr(other, name) for name in texts):
            return False
        if self.source is None or other.source is None:
            same = self.source is other.source
        else:
            same = self.source.is_equal(other.source)
        return same and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name == "valence_arousal")
            for name in arrays
        )

    def is_same(self, other: Labels) -> bool:
        """Whether they are of the same manifest, its rows edited or its folder moved.

        Of two tables in one folder, half of the smaller one's tracks have to be in both, with the same path; in
        another folder more than half of the larger one's. Where an older m2e did not write paths down, ids have to do.
        A registered data set is known by its name, and one track.
        """
        if not self.track_ids:
            return True
        mine, its = self.source, other.source
        registered = [source is not None and not source.root for source in (mine, its)]
        if mine and its and any(registered):
            return all(registered) and not set(self.track_ids).isdisjoint(other.track_ids)
        rows = {track_id: i for i, track_id in enumerate(self.track_ids)}
        both = [(rows[track_id], i) for i, track_id in enumerate(other.track_ids) if track_id in rows]
        sizes = len(self.track_ids), len(other.track_ids)
        if mine and its and both:
            here, there = np.array(both).T
            shared = int((mine.paths[here] == its.paths[there]).sum())
            if mine.root != its.root:
                return 2 * shared > max(sizes)
        else:
            shared = len(both)
        return shared > 0 and (any(registered) or 2 * shared >= min(sizes))

    def theirs(self, ids: NDArray[np.bytes_], audio: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether features under these ids, sorted, of audio with these digests [shape=(M, 32)], are these tracks', as
        far as anybody knows [shape=(M,)]."""
        theirs = np.ones(len(ids), np.bool_)
        if self.source is None or not self.source.root or not len(ids):
            return theirs
        mine = np.array([track_id.encode() for track_id in self.track_ids], "S")
        rows = np.minimum(np.searchsorted(ids, mine), len(ids) - 1)
        known = self.source.audio.any(axis=1)
        other = (self.source.heard == FOREIGN) | (known & (audio[rows] != self.source.audio).any(axis=1))
        theirs[rows[(ids[rows] == mine) & other]] = False
        return theirs

    def __post_init__(self) -> None:
        what, n = f"labels of {repr(self.dataset)[:80]}", len(self.track_ids)
        for name in ("dataset", "letter", "provenance"):
            if not is_line(getattr(self, name)):
                raise ValueError(f"{what}: {unlike(name, getattr(self, name), 'a line of text')}")
        for name in ("track_ids", "splits", "tag_names", "clip_group", "artist"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{what}: {unlike(name, texts, 'a tuple of texts')}")
        shapes = {
            "splits": (len(self.splits) == n),
            "tags": _is_table(self.tags, "bui", (n, len(self.tag_names))),
            "valence_arousal": _is_table(self.valence_arousal, "f", (n, 2)),
            "clip_group": len(self.clip_group) == n,
            "artist": len(self.artist) == n,
        }
        wrong = [name for name, right in shapes.items() if not right]
        if wrong:
            raise ValueError(f"{what}: {', '.join(wrong)} do not match {n} tracks")
        if self.source and self.source.root and len(self.source.paths) != n:
            raise ValueError(f"{what}: its source does not match {n} tracks")
        if len(set(self.track_ids)) != n:
            raise ValueError(f"{what}: track ids are not unique")
        for track_id in self.track_ids:
            check_id(track_id)
        if odd := set(self.splits) - {*SPLITS, ""}:
            raise ValueError(f"{what}: {unlike('a split', min(odd), f'among {SPLITS}, or empty')}")
        if len(set(self.tag_names)) < len(self.tag_names) or not all(self.tag_names):
            raise ValueError(f"{what}: a tag stands twice, or has no name")
        if ((self.tags != 0) & (self.tags != 1)).any():
            raise ValueError(f"{what}: tags must be 0 or 1, and reach {self.tags.min()} to {self.tags.max()}")
        values, absent = self.valence_arousal, np.isnan(self.valence_arousal)
        if (absent[:, 0] != absent[:, 1]).any() or ((values < 1) | (values > 9)).any():
            raise ValueError(
                f"{what}: valence and arousal must both be on 1-9, or both absent; they reach {np.nanmin(values):g} to "
                f"{np.nanmax(values):g}"
            )
