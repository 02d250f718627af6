"""Intervals: every resample as scikit-learn measures it, and the whole as scipy and as theory have it."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from m2e.train.scoring.intervals import average_precision_and_roc_auc, draw, intervals

RNG = np.random.default_rng(3)


def rated(n: int, noise: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    truth = RNG.uniform(1, 9, (n, 2))
    return truth.astype(np.float32), (truth + RNG.normal(0, noise, (n, 2))).astype(np.float32)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_each_resample_is_what_scikit_learn_says_of_the_tracks_drawn(n: int) -> None:
    for _ in range(8):
        truth = (RNG.uniform(size=n) < RNG.uniform()).astype(float)
        scores = RNG.integers(0, 6, n) / 5  # many ties
        weights = draw(n, 10, int(RNG.integers(1000)))
        assert (weights.sum(axis=0) == n).all()
        average_precision, roc_auc = average_precision_and_roc_auc(truth, scores, weights)
        for b in range(10):
            rows = np.repeat(np.arange(n), weights[:, b].astype(int))
            positives = truth[rows].sum()
            assert average_precision[b] == pytest.approx(average_precision_score(truth[rows], scores[rows]), abs=1e-6)
            if 0 < positives < n:
                assert roc_auc[b] == pytest.approx(roc_auc_score(truth[rows], scores[rows]), abs=1e-6)
            else:
                assert not np.isfinite(roc_auc[b])


def test_r2_agrees_with_scipy() -> None:
    truth, predicted = rated(120, 1.5)
    ours = intervals("valence_arousal", truth, predicted[None], resamples=4000)["r2_valence"]
    theirs = bootstrap(
        (truth[:, 0], predicted[:, 0]), r2_score, paired=True, vectorized=False, n_resamples=1500, method="percentile",
        rng=np.random.default_rng(1),
    )  # fmt: skip
    shift = r2_score(truth[:, 0], predicted[:, 0]) - theirs.bootstrap_distribution.mean()
    assert ours is not None
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours[0] == pytest.approx(theirs.confidence_interval.low + shift, abs=0.1 * width)
    assert ours[1] == pytest.approx(theirs.confidence_interval.high + shift, abs=0.1 * width)


def test_rmse_agrees_with_theory() -> None:
    # The mean of n squared errors of unit variance has standard deviation sqrt(2 / n); its root half of that.
    truth, predicted = rated(4000, 1.0)
    found = intervals("valence_arousal", truth, predicted[None], resamples=2000)["rmse_arousal"]
    assert found is not None
    measured = float(np.sqrt(np.mean((truth[:, 1] - predicted[:, 1]) ** 2)))
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * np.sqrt(2 / 4000) / 2, rel=0.1)
    assert (found[0] + found[1]) / 2 == pytest.approx(measured, abs=2e-3)


def test_the_number_lies_inside_though_resampled_average_precision_lies_above_it() -> None:
    truth = (RNG.uniform(size=(300, 8)) < 0.05).astype(np.float32)
    truth[0] = 1
    scores = truth + RNG.normal(0, 1.5, truth.shape)
    found = intervals("tags", truth, scores[None])
    measured = np.mean([average_precision_score(truth[:, i], scores[:, i]) for i in range(8)])
    plain = np.mean(
        [average_precision_and_roc_auc(truth[:, i], scores[:, i], draw(300, 1000, 0))[0] for i in range(8)], axis=0
    )
    assert plain.mean() - measured > plain.std() / 2
    assert found["pr_auc"] is not None
    low, high = found["pr_auc"]
    assert low < measured < high
    assert high - low == pytest.approx(np.diff(np.percentile(plain, [2.5, 97.5]))[0], rel=1e-6)


def test_a_seed_gives_the_same_interval_and_another_seed_another() -> None:
    truth, predicted = rated(50, 1.0)
    first, again, other = (intervals("valence_arousal", truth, predicted[None], seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_several_models_are_one_number() -> None:
    truth, predicted = rated(60, 2.0)
    worse = predicted + 1
    both = intervals("valence_arousal", truth, np.stack([predicted, worse]))["rmse_valence"]
    alone = [intervals("valence_arousal", truth, each[None])["rmse_valence"] for each in (predicted, worse)]
    assert both is not None
    assert alone[0] is not None
    assert alone[1] is not None
    assert alone[0][0] < both[0] < alone[1][0]
    assert alone[0][1] < both[1] < alone[1][1]


def test_what_is_undefined_has_no_interval_and_no_interval_leaves_its_range() -> None:
    equal = np.full((5, 2), 4, np.float32)
    found = intervals("valence_arousal", equal, equal[None] + 1)
    assert (found["r2_valence"], found["r2_arousal"]) == (None, None)
    assert found["rmse_valence"] == (1, 1)
    tags = intervals("tags", np.zeros((4, 2), np.float32), np.ones((1, 4, 2), np.float32))
    assert tags == {"pr_auc": (0, 0), "roc_auc": None}
    truth = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    for low, high in filter(None, intervals("tags", truth, truth[None] * 0.5).values()):
        assert 0 <= low <= high <= 1
