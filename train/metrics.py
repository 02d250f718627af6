"""Test metrics (paper IV-C): macro PR-AUC and ROC-AUC of tags, R2 and RMSE of valence and of arousal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TagMetrics:
    """Means over the tags that have a positive and a negative track; None where none has.

    Attributes:
        pr_auc: mean average precision, never the trapezoid under the curve.
        roc_auc: mean area under the ROC curve.
        tags: how many tags the means are over.
        skipped: how many tags have no positive or no negative here.
    """

    pr_auc: float | None
    roc_auc: float | None
    tags: int
    skipped: int


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
    # Here, not above: scikit-learn loads pandas wherever it finds it, and takes a second.
    from sklearn.metrics import average_precision_score, roc_auc_score

    positives = truth.sum(axis=0)
    usable = (positives > 0) & (positives < len(truth))
    n = int(usable.sum())
    if n == 0:
        return TagMetrics(None, None, 0, truth.shape[1])
    truth, scores = truth[:, usable], scores[:, usable]
    return TagMetrics(
        float(np.mean([average_precision_score(truth[:, i], scores[:, i]) for i in range(n)])),
        float(np.mean([roc_auc_score(truth[:, i], scores[:, i]) for i in range(n)])),
        n,
        len(usable) - n,
    )


def valence_arousal_metrics(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> ValenceArousalMetrics:
    """Metrics of `predicted` against `truth` [shape=(N, 2) both], N at least 1."""
    from sklearn.metrics import r2_score, root_mean_squared_error

    r2 = [float(r2_score(truth[:, i], predicted[:, i])) if len(np.unique(truth[:, i])) > 1 else None for i in range(2)]
    rmse = [float(root_mean_squared_error(truth[:, i], predicted[:, i])) for i in range(2)]
    return ValenceArousalMetrics(r2[0], r2[1], rmse[0], rmse[1])
