"""A registered data set: how to read its folder, what people must put there, and what is known to be wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from m2e.common.checks import is_line, is_number, is_one_of, is_whole, require, unlike
from m2e.common.errors import DataError
from m2e.manifests.types import Manifest

DeamLabels = Literal["as-distributed", "repaired"]
AUTO = "auto"
NONE = "none"


@dataclass(frozen=True)
class Choices:
    """What a user may choose where data sets leave a choice; each concerns some data sets and no others.

    Attributes:
        deam_labels: DEAM's labels as published, or with the two columns of songs 2-1000 exchanged back.
        jamendo_split: which of MTG-Jamendo's official splits, 0-4; the paper and MediaEval use 0.
        scale: the ends of the scale of valence and arousal in a user's own CSV, mapped to 1 and 9.
        align: another data set, NAME or NAME=DIR or FILE.csv; clips that both hold take its split. "auto": the data
            set's own `shares_clips_with`, where it is found; "none": no other.
    """

    deam_labels: DeamLabels = "as-distributed"
    jamendo_split: int = 0
    scale: tuple[float, float] = (1.0, 9.0)
    align: str = AUTO

    def __post_init__(self) -> None:
        """Raises DataError."""
        labels, scale = get_args(DeamLabels), self.scale
        require(is_one_of(self.deam_labels, labels), "deam_labels", self.deam_labels, f"one of {', '.join(labels)}")
        require(is_whole(self.jamendo_split, 0, 4), "jamendo_split", self.jamendo_split, "a whole number, 0 to 4")
        ends = (
            isinstance(scale, tuple) and len(scale) == 2 and all(is_number(end, -math.inf, math.inf) for end in scale)
        )
        require(ends and 0 < scale[1] - scale[0] < math.inf, "scale", scale, "two numbers, the lower one first")
        require(
            is_line(self.align) and self.align != "", "align", self.align, "a name, NAME=DIR, a CSV file, auto or none"
        )


DEFAULT_CHOICES = Choices()


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: its `path` below the data set's folder, the `address` below the base, its SHA-256 in hex."""

    path: str
    address: str
    sha256: str

    def __post_init__(self) -> None:
        if not is_line(self.sha256) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"remote file {self.path!r}: {unlike('sha256', self.sha256, '64 hex digits')}")


@dataclass(frozen=True)
class DataSet:
    """An entry of the registry.

    Attributes:
        name: such as "mtg-jamendo"; also the default name of its folder.
        letter: the paper's letter (J, D, E, P).
        description: one line for listings.
        holds: what its folder must hold, to end the sentence "it should hold ...".
        source: where to get that.
        licence: of labels and audio, in a sentence.
        parse: the folder and the choices -> its manifest; raises DataError.
        steps: what to do to get it, a line each; {root} stands for the folder.
        issues: what is known to be wrong or surprising, a line each.
        paper_counts: train, validation and test of the paper's Table I.
        shares_clips_with: a data set with an official split that holds some of the same clips; "" for none.
        base_url: of `files`.
        files: metadata that `m2e-manifest fetch` can get.
        audio_digests: lists of SHA-256 and path, a line an audio file, below the data set's folder.
    """

    name: str
    letter: str
    description: str
    holds: str
    source: str
    licence: str
    parse: Callable[[Path, Choices], Manifest]
    steps: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()
    paper_counts: tuple[int, int, int] | None = None
    shares_clips_with: str = ""
    base_url: str = ""
    files: tuple[RemoteFile, ...] = ()
    audio_digests: tuple[str, ...] = ()

    def read(self, root: Path, choices: Choices = DEFAULT_CHOICES) -> Manifest:
        """The manifest of the data set in folder `root`.

        Raises:
            DataError: no such folder, or its files are missing or damaged; the line also says what should be there.
        """
        try:
            if not root.is_dir():
                raise DataError(f"{root}: no such folder")
            if not any(root.iterdir()):
                raise DataError(f"{root}: the folder is empty")
            return self.parse(root, choices)
        except OSError as error:
            raise DataError(f"{error.filename or root}: cannot be read: {error.strerror}") from error
        except DataError as error:
            raise DataError(
                f"{error}; for {self.name}, {root} should hold {self.holds}, from {self.source} "
                f"(`m2e-manifest check {self.name}` explains)"
            ) from error
