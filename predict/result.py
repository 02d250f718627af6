"""What is predicted of a song: a typed result, and its form as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from m2e.cache.harmony import MODES, PITCH_CLASSES, ChordSequence, Key
from m2e.cache.notes import Note, are_notes
from m2e.common.checks import is_number, is_whole, unlike


@dataclass(frozen=True)
class TagScore:
    """A mood tag.

    Attributes:
        name: as the data set spells it.
        probability: sigmoid of the model's logit, 0-1; of a loss that weights tags, so no share of songs.
        threshold: from which probability on the tag is given, chosen on the validation split in training.
    """

    name: str
    probability: float
    threshold: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"tag: {unlike('name', self.name, 'a text')}")
        for name in ("probability", "threshold"):
            if not is_number(getattr(self, name), 0, 1):
                raise ValueError(f"tag {self.name!r}: {unlike(name, getattr(self, name), 'a number, 0 to 1')}")

    @property
    def given(self) -> bool:
        """Whether the probability reaches the threshold."""
        return self.probability >= self.threshold


@dataclass(frozen=True)
class Emotion:
    """What a model says of a song or a part of it.

    Attributes:
        tags: in the model's order; empty for a model without tags.
        valence, arousal: on the scale 1-9, as the model puts them out: a little below 1 or above 9 is possible. None
            for a model without them.
    """

    tags: tuple[TagScore, ...]
    valence: float | None
    arousal: float | None

    def __post_init__(self) -> None:
        if not isinstance(self.tags, tuple) or not all(isinstance(tag, TagScore) for tag in self.tags):
            raise ValueError(unlike("tags", self.tags, "a tuple of TagScore"))
        for name in ("valence", "arousal"):
            value = getattr(self, name)
            if value is not None and not is_number(value, -math.inf, math.inf):
                raise ValueError(unlike(name, value, "a finite number, or None"))

    @property
    def likeliest(self) -> tuple[TagScore, ...]:
        """The tags that are given, then the others, each group from the highest probability down."""
        return tuple(sorted(self.tags, key=lambda tag: (not tag.given, -tag.probability)))


@dataclass(frozen=True)
class Moment:
    """The emotion of one segment of a song, `start` to `end` seconds."""

    start: float
    end: float
    emotion: Emotion

    def __post_init__(self) -> None:
        if not (is_number(self.start, 0, math.inf) and is_number(self.end, self.start, math.inf)):
            raise ValueError(
                f"moment {self.start!r} to {self.end!r} s: times are finite, from 0 on, and end after they start"
            )


@dataclass(frozen=True, eq=False)
class SongPrediction:
    """All that is predicted of one song.

    Attributes:
        song: the path, as it was given.
        audio_bytes: size of the file.
        seconds: length of the decoded audio.
        key: None where no pitched chord was heard.
        chords: absolute.
        emotion: of the whole song: from the mean over all segments, as evaluation takes it.
        timeline: each segment alone, in time order, beside the chords of the whole song, as training takes it.
        model: digest of the weights that said so, 16 hex digits.
        notes: what there is to say of the song's audio: it is silent, or cut, ...
    """

    song: str
    audio_bytes: int
    seconds: float
    key: Key | None
    chords: ChordSequence
    emotion: Emotion
    timeline: tuple[Moment, ...]
    model: str
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        for name, right, accepted in (
            ("song", isinstance(self.song, str), "a text"),
            ("model", isinstance(self.model, str), "a text"),
            ("audio_bytes", is_whole(self.audio_bytes, 0), "a whole number, 0 or more"),
            ("notes", are_notes(self.notes), "a tuple of Note"),
            ("seconds", is_number(self.seconds, 0, math.inf), "a finite number, 0 or more"),
        ):
            if not right:
                raise ValueError(f"prediction: {unlike(name, getattr(self, name), accepted)}")

    def as_json(self) -> dict[str, Any]:
        """Plain values, scores to six digits; docs/predict.md lists the fields."""
        return {
            "song": self.song,
            "audio_bytes": self.audio_bytes,
            "seconds": round(self.seconds, 3),
            "key": str(self.key) if self.key else None,
            **_emotion_as_json(self.emotion),
            "chords": [
                {"start": round(start, 3), "end": round(end, 3), "chord": label}
                for (start, end), label in zip(self.chords.intervals.tolist(), self.chords.labels, strict=True)
            ],
            "timeline": [
                {"start": moment.start, "end": round(moment.end, 3), **_emotion_as_json(moment.emotion)}
                for moment in self.timeline
            ],
            "thresholds": {tag.name: tag.threshold for tag in self.emotion.tags},
            "model": self.model,
            "notes": [note.as_json() for note in self.notes],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `as_json`, for files that m2e-predict wrote.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        thresholds = values["thresholds"]
        tonic, _, mode = (values["key"] or "").partition(" ")
        chords = values["chords"]
        return cls(
            song=values["song"],
            audio_bytes=values["audio_bytes"],
            seconds=values["seconds"],
            key=Key(PITCH_CLASSES.index(tonic), MODES[MODES.index(mode)]) if tonic else None,
            chords=ChordSequence.from_labels(
                [(each["start"], each["end"]) for each in chords], [each["chord"] for each in chords]
            ),
            emotion=_emotion_from_json(values, thresholds),
            timeline=tuple(
                Moment(each["start"], each["end"], _emotion_from_json(each, thresholds)) for each in values["timeline"]
            ),
            model=values["model"],
            notes=tuple(map(Note.from_json, values.get("notes", ()))),  # older files have none
        )


def _emotion_as_json(emotion: Emotion) -> dict[str, Any]:
    return {
        "valence": _rounded(emotion.valence),
        "arousal": _rounded(emotion.arousal),
        "tags": {tag.name: _rounded(tag.probability) for tag in emotion.tags},
        "given": [tag.name for tag in emotion.likeliest if tag.given],
    }


def _emotion_from_json(values: dict[str, Any], thresholds: dict[str, float]) -> Emotion:
    tags = tuple(TagScore(name, score, thresholds[name]) for name, score in values["tags"].items())
    return Emotion(tags, values["valence"], values["arousal"])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
