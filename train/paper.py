"""The paper's results on its test sets (arXiv 2502.03979, tables II and III), to stand beside ours."""

from __future__ import annotations

from collections.abc import Collection

from m2e.train.config import Task

# The paper's letters, and the names under which m2e-extract knows the sets.
DATASETS = {"J": "mtg-jamendo", "D": "deam", "E": "emomusic", "P": "pmemo"}

# Aligned with RESULTS: J has PR-AUC and ROC-AUC, the others R2 of valence and of arousal.
_TESTED_ON = ("J", "D", "E", "P")
_RESULTS: dict[str, tuple[tuple[float, float] | None, ...]] = {
    "single": ((0.1521, 0.7806), (0.5131, 0.6025), (0.5957, 0.7489), (0.5360, 0.7772)),
    "DJ":     ((0.1526, 0.7806), (0.5144, 0.6046), None,             None),
    "EJ":     ((0.1540, 0.7809), None,             (0.6091, 0.7525), None),
    "JP":     ((0.1522, 0.7806), None,             None,             (0.5401, 0.7780)),
    "DEJP":   ((0.1543, 0.7810), (0.5184, 0.6228), (0.6512, 0.7616), (0.5473, 0.7940)),
}  # fmt: skip


def paper_result(trained_on: Collection[str], tested_on: str, task: Task) -> tuple[float, float] | None:
    """(PR-AUC, ROC-AUC) or (R2 of valence, R2 of arousal) with all inputs; None where the paper has no such row.

    Args:
        trained_on: letters of the data sets, one for a single model.
        tested_on: letter.
    """
    if tested_on not in trained_on or tested_on not in _TESTED_ON or (task == "tags") != (tested_on == "J"):
        return None
    row = "single" if len(trained_on) == 1 else "".join(sorted(trained_on))
    return _RESULTS[row][_TESTED_ON.index(tested_on)] if row in _RESULTS else None
