"""95 % intervals of test metrics, by resampling test tracks with replacement (percentile bootstrap, Efron 1979).

A resample is a table of weights, how often each track was drawn, so that every metric is a few weighted sums over all
resamples at once. A resample in which a metric is undefined takes no part in its interval. The intervals tell how far
another test set of this size might move the number; they know nothing of other seeds.

The percentiles are moved so that the resamples' mean is the measured number. For R2 and ROC-AUC this is next to none;
average precision rises when a track is drawn twice (by .004 on MTG-Jamendo's test set, more than its standard
deviation), and a plain percentile interval would lie above the number that it belongs to.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from m2e.train.config import Task

RESAMPLES = 1000
Intervals = dict[str, tuple[float, float] | None]
# Of every metric: no interval leaves it.
_RANGES = {
    "pr_auc": (0, 1),
    "roc_auc": (0, 1),
    "r2_valence": (-np.inf, 1),
    "r2_arousal": (-np.inf, 1),
    "rmse_valence": (0, np.inf),
    "rmse_arousal": (0, np.inf),
}


def intervals(
    task: Task,
    truth: NDArray[np.floating],
    outputs: NDArray[np.floating],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Intervals:
    """95 % interval of every metric of a task, by its name in `metrics`; None where it is never defined.

    Args:
        truth: 0-1 tags, or valence and arousal [shape=(N, K)], N at least 1.
        outputs: of each of S models of one kind, that differ in their seeds; the metric is their mean
            [shape=(S, N, K)].
        seed: of the resamples; test sets of equal size get the same ones.
    """
    # The test set itself stands first: each track once.
    weights = np.hstack([np.ones((len(truth), 1), np.float32), draw(len(truth), resamples, seed)])
    measure = _tags if task == "tags" else _valence_arousal
    models = [measure(truth, predicted, weights) for predicted in outputs]
    return {name: _interval(np.mean([model[name] for model in models], axis=0), *_RANGES[name]) for name in models[0]}


def draw(n: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each of `n` tracks stands in each resample of `n` [shape=(n, resamples)]."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n, size=(resamples, n))
    return np.stack([np.bincount(rows, minlength=n) for rows in drawn], axis=1).astype(np.float32)


def average_precision_and_roc_auc(
    truth: NDArray[np.floating], scores: NDArray[np.floating], weights: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision and ROC-AUC of one tag in B resamples [shape=(B,) each], as scikit-learn has them.

    Args:
        truth, scores: of one tag [shape=(N,)].
        weights: see `draw` [shape=(N, B)].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # Equal scores share a threshold: where each one's group begins and ends.
    first = np.searchsorted(-ranked, -ranked, side="left")
    last = np.searchsorted(-ranked, -ranked, side="right") - 1
    positive = np.flatnonzero(truth[order] > 0)
    # Counts stay below 2^24: float32 adds them exactly.
    above = np.cumsum(weights[order], axis=0)
    hits = np.cumsum(weights[order[positive]], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if not len(positive):
            nothing = np.zeros(weights.shape[1])
            return nothing, nothing / 0
        n_positive = hits[-1].astype(float)
        n_negative = above[-1] - n_positive
        drawn = weights[order[positive]]
        # Positives down to the end of each one's group: the last positive that stands there.
        upto = np.searchsorted(positive, last[positive], side="right") - 1
        true_above, all_above = hits[upto], above[last[positive]]
        precision = np.where(all_above > 0, true_above / all_above, 0)
        average_precision = np.where(n_positive > 0, (drawn * precision).sum(axis=0, dtype=float) / n_positive, 0)

        before = np.searchsorted(positive, first[positive], side="left")
        true_before = np.concatenate([np.zeros_like(hits[:1]), hits])[before]
        all_before = np.where(first[positive, None] > 0, above[first[positive] - 1], 0)
        # Half of the negatives in the own group, and all that come before it, are ranked above a positive.
        misranked = ((all_above - true_above) + (all_before - true_before)) / 2
        roc_auc = 1 - (drawn * misranked).sum(axis=0, dtype=float) / (n_positive * n_negative)
    return average_precision, roc_auc


def _tags(
    truth: NDArray[np.floating], scores: NDArray[np.floating], weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    tags = [average_precision_and_roc_auc(tag, score, weights) for tag, score in zip(truth.T, scores.T, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no tag has both classes: NaN is right
        roc_auc = np.nanmean([roc for _, roc in tags], axis=0)
    return {"pr_auc": np.mean([precision for precision, _ in tags], axis=0), "roc_auc": roc_auc}


def _valence_arousal(
    truth: NDArray[np.floating], predicted: NDArray[np.floating], weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    n = len(truth)
    # Around the mean of all tracks: the difference of large sums would lose digits.
    centred = (truth - truth.mean(axis=0)).astype(float)
    squared_error = (truth.astype(float) - predicted) ** 2
    share = weights.T.astype(float) / n
    variance = share @ centred**2 - (share @ centred) ** 2
    error = share @ squared_error
    with np.errstate(invalid="ignore", divide="ignore"):
        # Equal labels leave a variance of rounding errors.
        r2 = 1 - error / np.where(variance > 1e-12, variance, np.nan)
    rmse = np.sqrt(error)
    return {"r2_valence": r2[:, 0], "r2_arousal": r2[:, 1], "rmse_valence": rmse[:, 0], "rmse_arousal": rmse[:, 1]}


def _interval(values: NDArray[np.float64], lowest: float, highest: float) -> tuple[float, float] | None:
    measured, resampled = values[0], values[1:]
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled) or not np.isfinite(measured):
        return None
    low, high = np.clip(np.percentile(resampled, [2.5, 97.5]) - resampled.mean() + measured, lowest, highest)
    return float(low), float(high)
