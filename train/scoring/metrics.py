"""Test metrics (paper IV-C): macro PR-AUC and ROC-AUC of tags, R2 and RMSE of valence and of arousal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TagMetrics:
    """Means over tags; a tag of which one class is absent counts as scikit-learn has it.

    Attributes:
        pr_auc: mean average precision, never the trapezoid under the curve. That of a tag without positives is 0.
        roc_auc: mean area under the ROC curve over the tags that have both classes; None where none has.
        without_positives, without_negatives: how many tags have none.
    """

    pr_auc: float
    roc_auc: float | None
    without_positives: int
    without_negatives: int


@dataclass(frozen=True)
class ValenceArousalMetrics:
    """R2 (None where it is undefined: under two tracks, or all labels equal) and RMSE on the scale 1-9."""

    r2_valence: float | None
    r2_arousal: float | None
    rmse_valence: float
    rmse_arousal: float


Metrics = TagMetrics | ValenceArousalMetrics


def tag_metrics(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> TagMetrics:
    """Metrics of `scores` against 0-1 `truth` [shape=(N, T) both]; any monotonic scores do."""
    positives = truth.sum(axis=0)
    each = tag_by_tag(truth, scores)
    defined = [roc_auc for _, roc_auc in each if roc_auc is not None]
    return TagMetrics(
        float(np.mean([average_precision for average_precision, _ in each])),
        float(np.mean(defined)) if defined else None,
        int((positives == 0).sum()),
        int((positives == len(truth)).sum()),
    )


def tag_by_tag(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> list[tuple[float, float | None]]:
    """Average precision and ROC-AUC of every tag, see `TagMetrics` [shape=(N, T) both]."""
    # Here, not above: scikit-learn loads pandas wherever it finds it, and takes a second.
    from sklearn.metrics import average_precision_score, roc_auc_score

    each: list[tuple[float, float | None]] = []
    for tag, score in zip(truth.T, scores.T, strict=True):
        # scikit-learn's own values for one class alone, without its warnings.
        average_precision = float(average_precision_score(tag, score)) if tag.any() else 0.0
        each.append((average_precision, float(roc_auc_score(tag, score)) if 0 < tag.sum() < len(tag) else None))
    return each


def valence_arousal_metrics(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> ValenceArousalMetrics:
    """Metrics of `predicted` against `truth` [shape=(N, 2) both], N at least 1."""
    from sklearn.metrics import r2_score, root_mean_squared_error

    r2 = [float(r2_score(truth[:, i], predicted[:, i])) if len(np.unique(truth[:, i])) > 1 else None for i in range(2)]
    rmse = [float(root_mean_squared_error(truth[:, i], predicted[:, i])) for i in range(2)]
    return ValenceArousalMetrics(r2[0], r2[1], rmse[0], rmse[1])
