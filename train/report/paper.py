"""The paper's results on its test sets (arXiv 2502.03979, tables II to IV), to stand beside ours."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from m2e.train.config import INPUTS, Input, Task

# The paper's letters, and the names under which m2e-extract knows the sets.
DATASETS = {"J": "mtg-jamendo", "D": "deam", "E": "emomusic", "P": "pmemo"}

Pair = tuple[float, float]


@dataclass(frozen=True)
class PaperRow:
    """Models that were trained alike.

    Attributes:
        name: as the paper has it.
        inputs: what the models see.
        trained_on: letters; empty: one model for each data set, trained on it alone.
        results: by letter of the test set: PR-AUC and ROC-AUC on J, R2 of valence and of arousal on the others.
    """

    name: str
    inputs: tuple[Input, ...]
    trained_on: tuple[str, ...]
    results: dict[str, Pair]

    def sets(self, tested_on: str) -> tuple[str, ...]:
        """Letters of the data sets behind the result on `tested_on`."""
        return self.trained_on or (tested_on,)


@dataclass(frozen=True)
class System:
    """A published system on MTG-Jamendo's test split; `in_paper` where table IV has it."""

    name: str
    result: Pair
    in_paper: bool = True


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: rows that we train, and systems of others that stand beside them.

    Attributes:
        heading: of its first column.
    """

    numeral: str
    title: str
    heading: str
    rows: tuple[PaperRow, ...]
    systems: tuple[System, ...] = ()


def _by_letter(*pairs: Pair | None) -> dict[str, Pair]:
    return {letter: pair for letter, pair in zip(DATASETS, pairs, strict=True) if pair is not None}


# fmt: off
_SINGLE = PaperRow("Single data set", INPUTS, (),
                   _by_letter((0.1521, 0.7806), (0.5131, 0.6025), (0.5957, 0.7489), (0.5360, 0.7772)))
_ALL_FOUR = PaperRow("J + D + E + P", INPUTS, ("J", "D", "E", "P"),
                     _by_letter((0.1543, 0.7810), (0.5184, 0.6228), (0.6512, 0.7616), (0.5473, 0.7940)))
TABLES = {
    2: PaperTable("II", "input features", "input", (
        PaperRow("MERT", ("mert",), (),
                 _by_letter((0.1297, 0.7590), (0.4972, 0.5951), (0.5657, 0.7404), (0.5231, 0.7670))),
        PaperRow("Chord/Key", ("chords", "key"), (),
                 _by_letter((0.0531, 0.6158), (0.0706, 0.0770), (0.0781, 0.0585), (0.0149, 0.0337))),
        replace(_SINGLE, name="MERT + Chord/Key"),
    )),
    3: PaperTable("III", "training data sets", "trained on", (
        _SINGLE,
        PaperRow("J + D", INPUTS, ("J", "D"), _by_letter((0.1526, 0.7806), (0.5144, 0.6046), None, None)),
        PaperRow("J + E", INPUTS, ("J", "E"), _by_letter((0.1540, 0.7809), None, (0.6091, 0.7525), None)),
        PaperRow("J + P", INPUTS, ("J", "P"), _by_letter((0.1522, 0.7806), None, None, (0.5401, 0.7780))),
        _ALL_FOUR,
    )),
    4: PaperTable("IV", "published systems on MTG-Jamendo", "model", (
        replace(_SINGLE, name="J", trained_on=("J",), results={"J": _SINGLE.results["J"]}),
        replace(_ALL_FOUR, results={"J": _ALL_FOUR.results["J"]}),
    ), (
        System("lileonardo", (0.1508, 0.7747)),
        System("SELAB-HCMUS", (0.1435, 0.7599)),
        System("Mirable", (0.1356, 0.7687)),
        System("UIBK-DBIS", (0.1087, 0.7046)),
        System("Hasumi et al.", (0.0730, 0.7750)),
        System("Greer et al.", (0.1082, 0.7354)),
        System("MERT-95M", (0.1340, 0.7640)),
        System("MERT-330M", (0.1400, 0.7650)),
        System("SAIL-USC 2020, ensemble, more data", (0.1610, 0.7812), in_paper=False),
        System("CP-JKU 2019, ensemble", (0.1546, 0.7729), in_paper=False),
    )),
}
# fmt: on


def paper_result(
    trained_on: Collection[str], tested_on: str, task: Task, inputs: Collection[str] = INPUTS
) -> Pair | None:
    """(PR-AUC, ROC-AUC) or (R2 of valence, R2 of arousal); None where the paper has no such row.

    Args:
        trained_on: letters of the data sets, one for a single model.
        tested_on: letter.
        inputs: what the model sees.
    """
    if tested_on not in DATASETS or (task == "tags") != (tested_on == "J"):
        return None
    for row in (*TABLES[2].rows, *TABLES[3].rows):
        if set(row.sets(tested_on)) == set(trained_on) and set(row.inputs) == set(inputs):
            return row.results.get(tested_on)
    return None
