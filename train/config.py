"""Every choice of the training protocol, as plain fields; two presets name the paper's and the released code's."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from m2e.common.checks import is_number, is_one_of, is_whole, require
from m2e.common.errors import DataError
from m2e.common.json_files import parse_object
from m2e.train.learning.losses import KD_LOSSES, TAG_LOSSES, VA_LOSSES

Task = Literal["tags", "valence_arousal"]
TASKS: tuple[Task, ...] = get_args(Task)
Input = Literal["mert", "chords", "key"]
INPUTS: tuple[Input, ...] = get_args(Input)
# Nothing sensible comes near; a forged config must not make us allocate without bound.
_LARGEST = 65_536


@dataclass(frozen=True)
class TrainConfig:
    """Model, losses and schedule (arXiv 2502.03979, sections III and IV). The defaults are preset "paper".

    Attributes:
        based_on: the preset that the values started from; every other field may differ from it.
        inputs: what the model sees (Table II): "mert" alone is the FNN, "chords" and "key" the model without audio.
        layers: hidden states h[k] that make the segment feature, in this order.
        x_chord: an unknown chord X has an id of its own, or counts as no chord N.
        max_chords: what comes after so many chords is cut.
        mask_padding: chords are padded to the longest of the batch with an id of their own, which attention does not
            see. Without it they are padded with N to `max_chords`, unmasked, as the released code does.
        root_dim, quality_dim: embedding widths; the transformer is as wide as both together.
        transformer_layers, heads, ffn: of the chord transformer.
        cls: the sequence's first vector is learned, or zero.
        key: the mode as an embedding of `key_dim`, or as the number 0 or 1.
        dropout: in the chord transformer only.
        hidden, branch_hidden: widths of the trunk and of each branch.
        tag_loss, va_loss, kd_loss: names in the registries of `m2e.train.learning.losses`.
        kd_weight: weight of the distillation loss; the task loss has the rest.
        span: how training draws the segments that it averages, see `m2e.train.learning.spans`.
        exhausted: when a shorter data set's pass ends within an epoch, it stops until the next, or starts over.
        epochs: passes over the longest data set.
        patience: stop after so many epochs without a better validation loss of any task; 0: never.
        batch_size: tracks of each data set in a step.
        learning_rate: of Adam, constant.
        precision: of matrix products in training: "tf32" makes a difference on NVIDIA GPUs only, "bf16" is autocast.
        seed: of everything random.
    """

    based_on: Literal["paper", "release"] = "paper"
    inputs: tuple[Input, ...] = INPUTS
    layers: tuple[int, ...] = (5, 6)
    x_chord: Literal["own", "n"] = "own"
    max_chords: int = 512
    mask_padding: bool = True
    root_dim: int = 16
    quality_dim: int = 16
    transformer_layers: int = 2
    heads: int = 8
    ffn: int = 64
    cls: Literal["learned", "zero"] = "learned"
    key: Literal["embedding", "scalar"] = "embedding"
    key_dim: int = 8
    dropout: float = 0.1
    hidden: int = 512
    branch_hidden: int = 256
    tag_loss: str = "weighted_bce"
    va_loss: str = "mse"
    kd_loss: str = "softmax_kl"
    kd_weight: float = 0.8
    span: Literal["paper", "uniform"] = "paper"
    exhausted: Literal["stop", "cycle"] = "cycle"
    epochs: int = 200
    patience: int = 0
    batch_size: int = 8
    learning_rate: float = 1e-4
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, accepted in _CHOICES.items():
            value = getattr(self, name)
            _require(is_one_of(value, accepted), name, value, f"one of {', '.join(accepted)}")
        for name in _COUNTS:
            value = getattr(self, name)
            _require(is_whole(value, 1, _LARGEST), name, value, f"a whole number, 1 to {_LARGEST}")
        for name in ("patience", "seed"):
            value = getattr(self, name)
            _require(is_whole(value, 0, 2**63 - 1), name, value, f"a whole number, 0 to {2**63 - 1}")
        for name, most in (("kd_weight", 1.0), ("dropout", 0.9)):
            value = getattr(self, name)
            _require(is_number(value, 0, most), name, value, f"a number, 0 to {most}")
        rate = self.learning_rate
        _require(is_number(rate, 0, 1) and rate > 0, "learning_rate", rate, "a number above 0, at most 1")
        _require(isinstance(self.mask_padding, bool), "mask_padding", self.mask_padding, "true or false")
        inputs = self.inputs
        _require(
            isinstance(inputs, tuple) and bool(inputs) and inputs == tuple(name for name in INPUTS if name in inputs),
            "inputs",
            inputs,
            f"some of {', '.join(INPUTS)}, in this order",
        )
        layers = self.layers
        _require(
            isinstance(layers, tuple)
            and bool(layers)
            and all(is_whole(k, 0) for k in layers)
            and len(set(layers)) == len(layers),
            "layers",
            layers,
            "a tuple of distinct layer numbers, 0 or more",
        )
        width = self.root_dim + self.quality_dim
        if width % self.heads or width % 2:
            raise DataError(
                f"training config: root_dim + quality_dim = {width} must be even and divide by {self.heads}"
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The preset "paper" or "release", with some fields changed.

        Raises:
            DataError: no such preset or field, or a value out of range.
        """
        if name not in PRESETS:
            raise DataError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
        unknown = set(changes) - {field.name for field in fields(cls)}
        if unknown:
            raise DataError(f"training config: no field is called {', '.join(sorted(unknown))}")
        return cls(**{**PRESETS[name], **changes, "based_on": name})

    def to_json(self) -> str:
        """Readable and canonical: the same choices give the same text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            DataError: not JSON, fields are missing or unknown, or a value is out of range.
        """
        try:
            values = parse_object(text)
        except ValueError as error:
            raise DataError(f"training config is not readable by this version of m2e: {error}") from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Make it of the values of a JSON object; raises as `from_json`."""
        if set(values) != {field.name for field in fields(cls)}:
            named = ", ".join(sorted(values))[:400]
            raise DataError(f"training config is not readable by this version of m2e: its fields are {named}")
        lists = {name: values[name] for name in ("inputs", "layers")}
        return cls(**{**values, **{name: tuple(v) if isinstance(v, list) else v for name, v in lists.items()}})


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "release": {
        "layers": (6, 7),
        "max_chords": 100,
        "mask_padding": False,
        "root_dim": 4,
        "quality_dim": 4,
        "cls": "zero",
        "key": "scalar",
        "exhausted": "stop",
        "epochs": 500,
        "patience": 10,
    },
}
_CHOICES: dict[str, Collection[str]] = {
    "based_on": tuple(PRESETS),
    "x_chord": ("own", "n"),
    "cls": ("learned", "zero"),
    "key": ("embedding", "scalar"),
    "tag_loss": TAG_LOSSES,
    "va_loss": VA_LOSSES,
    "kd_loss": KD_LOSSES,
    "span": ("paper", "uniform"),
    "exhausted": ("stop", "cycle"),
    "precision": ("float32", "tf32", "bf16"),
}
_COUNTS = (
    "max_chords", "root_dim", "quality_dim", "transformer_layers", "heads", "ffn", "key_dim", "hidden", "branch_hidden",
    "epochs", "batch_size",
)  # fmt: skip


def _require(right: bool, name: str, value: object, accepted: str) -> None:
    require(right, f"training config: {name}", value, accepted)
