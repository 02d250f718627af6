"""Under which settings features were made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, Self, get_args

from m2e.common.checks import is_line, is_number, is_one_of, is_whole, require
from m2e.common.errors import DataError, NewerError
from m2e.common.json_files import parse_object

Precision = Literal["float32", "tf32", "bf16", "int8"]
ResamplerName = Literal["sinc_hann", "soxr_hq"]
Tail = Literal["drop", "keep"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RESAMPLERS: tuple[ResamplerName, ...] = get_args(ResamplerName)
TAILS: tuple[Tail, ...] = get_args(Tail)
# Raised only when the features themselves change for the same settings.
FEATURE_VERSION = 1
# How the revision begins of what is known by its own digest, wherever it comes from and whatever it is called.
BY_DIGEST = "sha256:"
# Nothing sensible comes near.
HIGHEST_LAYER = 1023
_SAMPLE_RATES = (1_000, 768_000)
_LONGEST_SEGMENT = 3_600.0
_SHORTEST_SEGMENT = 0.1


@dataclass(frozen=True)
class ExtractionConfig:
    """Everything that changes a feature. Two caches with equal fingerprints can be mixed.

    Attributes:
        encoder: what people call it: its registry name, or the name of its folder.
        encoder_revision: which it is: the pinned commit of a registered one, or "sha256:..." of its weights and of what
            in its settings changes numbers.
        layers: indices k of the stored hidden states h[k], ascending (h[0] is the input of block 1).
        sample_rate: of the encoder, Hz.
        segment_seconds: length of a segment; segments follow each other without overlap.
        tail: what happens to the remainder after the last full segment.
        min_tail_seconds: the shortest remainder that ``tail = keep`` keeps.
        resampler: how audio reaches `sample_rate`.
        chords: name of the chord recogniser.
        chords_revision: its weights' digest; empty when it has none.
        precision: of the encoder's matrix products.
    """

    encoder: str
    encoder_revision: str
    layers: tuple[int, ...] = (5, 6, 7)
    sample_rate: int = 24_000
    segment_seconds: float = 30.0
    tail: Tail = "drop"
    min_tail_seconds: float = 5.0
    resampler: ResamplerName = "sinc_hann"
    chords: str = "btc"
    chords_revision: str = ""
    precision: Precision = "float32"
    feature_version: int = FEATURE_VERSION

    def __post_init__(self) -> None:
        """Raises DataError."""
        for name in ("encoder", "encoder_revision", "chords", "chords_revision"):
            text = getattr(self, name)
            _require(is_line(text), name, text, "a line of text")
            _require(bool(text) or name == "chords_revision", name, text, "a line of text that is not empty")
        layers = self.layers
        numbers = isinstance(layers, tuple) and bool(layers) and all(is_whole(k, 0, HIGHEST_LAYER) for k in layers)
        ascending = numbers and all(a < b for a, b in pairwise(layers))
        _require(ascending, "layers", layers, f"a tuple of layer numbers, 0 to {HIGHEST_LAYER}, ascending: (5, 6)")
        low, high = _SAMPLE_RATES
        _require(is_whole(self.sample_rate, low, high), "sample_rate", self.sample_rate, f"whole Hz, {low} to {high}")
        for name, least in (("segment_seconds", _SHORTEST_SEGMENT), ("min_tail_seconds", 0.0)):
            value = getattr(self, name)
            right = is_number(value, least, _LONGEST_SEGMENT)
            _require(right, name, value, f"a number of seconds, {least:g} to {_LONGEST_SEGMENT:g}")
            object.__setattr__(self, name, float(value))  # 30 and 30.0 are one setting, and have one fingerprint
        for name, accepted in (("tail", TAILS), ("resampler", RESAMPLERS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            _require(is_one_of(value, accepted), name, value, f"one of {', '.join(accepted)}")
        version = self.feature_version
        _require(is_whole(version, 1), "feature_version", version, "a whole number, 1 or more")

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a hash over all fields, but for the name of an encoder that is known by its digest."""
        values = asdict(self)
        if self.encoder_revision.startswith(BY_DIGEST):
            values["encoder"] = ""
        return _digest(values)

    def to_json(self) -> str:
        """Readable and canonical: the same settings give the same text."""
        return _text(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            NewerError: fields are unknown.
            DataError: not JSON, fields are missing, or a value cannot be.
        """
        try:
            values = parse_object(text)
        except ValueError as error:
            raise DataError(f"these extraction settings cannot be read: {error}") from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Make it of the values of a JSON object; raises as `from_json`."""
        known = {field.name for field in fields(cls)}
        cannot = "these extraction settings cannot be read: it"
        if unknown := sorted(values.keys() - known):
            raise NewerError(f"{cannot} has {', '.join(unknown)[:200]}, of a newer m2e: update m2e")
        if missing := sorted(known - values.keys()):
            raise DataError(f"{cannot} lacks {', '.join(missing)}, as made by an older m2e: extract again")
        layers = values["layers"]
        return cls(**{**values, "layers": tuple(layers) if isinstance(layers, list) else layers})

    def of_fingerprint(self, fingerprint: str) -> ExtractionConfig | None:
        """These settings, if that is their fingerprint now, or was before encoders were known by their digests."""
        if fingerprint == self.fingerprint:
            return self
        former = FormerConfig(**{field.name: getattr(self, field.name) for field in fields(self)})
        return former if fingerprint == former.fingerprint else None

    def differences(self, other: ExtractionConfig) -> list[str]:
        """One "field: ours, not theirs" a field that differs."""
        by_digest = self.encoder_revision.startswith(BY_DIGEST) and self.encoder_revision == other.encoder_revision
        names = [field.name for field in fields(self) if not (by_digest and field.name == "encoder")]
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return [f"{name}: {mine!r}, not {theirs!r}" for name, mine, theirs in pairs if mine != theirs]


class FormerConfig(ExtractionConfig):
    """Settings whose fingerprint counts in what the encoder was called, as it did in caches made before version 0.2."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a hash over all fields."""
        return _digest(asdict(self))


def fingerprints(values: dict[str, Any]) -> tuple[str, str]:
    """Of settings of whatever m2e, as a JSON object: what their folder may be named by, see `ExtractionConfig`."""
    return _digest({**values, "encoder": ""}), _digest(values)


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _digest(values: dict[str, Any]) -> str:
    return hashlib.blake2b(_text(values).encode(), digest_size=8).hexdigest()


def _require(right: bool, name: str, value: object, accepted: str) -> None:
    require(right, f"extraction settings: {name}", value, accepted)
