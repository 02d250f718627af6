"""Thresholds against a plain search over all of them."""

import numpy as np
import pytest

from m2e.train.scoring.thresholds import UNCHOSEN, f1_thresholds


def f1(truth: np.ndarray, given: np.ndarray) -> float:
    both = (truth * given).sum()
    return 2 * both / (truth.sum() + given.sum()) if given.any() else 0.0


def test_no_other_threshold_has_a_better_f1() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        truth = (rng.uniform(size=(20, 3)) < 0.3).astype(np.float32)
        truth[0] = 1
        scores = np.round(np.clip(0.4 * truth + rng.uniform(size=truth.shape) * 0.6, 0, 1), 1)  # with ties
        for tag, threshold in enumerate(f1_thresholds(truth, scores)):
            best = max(f1(truth[:, tag], scores[:, tag] >= other) for other in np.linspace(0, 1.01, 203))
            assert f1(truth[:, tag], scores[:, tag] >= threshold) == pytest.approx(best)
            assert 0 <= threshold <= 1


def test_it_lies_between_the_tracks_that_it_parts() -> None:
    truth = np.array([[1.0], [1], [0], [0]])
    assert f1_thresholds(truth, np.array([[0.9], [0.7], [0.3], [0.1]])) == (0.5,)


def test_a_tag_without_positives_keeps_the_default() -> None:
    assert f1_thresholds(np.zeros((4, 1)), np.full((4, 1), 0.2)) == (UNCHOSEN,)
