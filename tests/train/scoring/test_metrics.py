"""Metrics: the published numbers, the released code's, and sets too small for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from m2e.train.report.paper import paper_result
from m2e.train.scoring.metrics import tag_metrics, valence_arousal_metrics


def test_published_baseline_of_jamendo(reference: Path) -> None:
    folder = reference / "data" / "mtg-jamendo" / "results" / "mediaeval"
    truth, scores = np.load(folder / "groundtruth.npy"), np.load(folder / "baseline_vggish_predictions.npy")
    metrics = tag_metrics(truth.astype(float), scores)
    assert metrics.pr_auc == pytest.approx(0.107734, abs=5e-7)
    assert metrics.roc_auc == pytest.approx(0.725821, abs=5e-7)
    assert (metrics.without_positives, metrics.without_negatives) == (0, 0)


def test_released_code_has_the_same_metrics(reference: Path) -> None:
    given = np.load(reference / "golden" / "train" / "metrics_in.npz")
    golden = json.loads((reference / "golden" / "train" / "golden_losses.json").read_text())["metrics"]
    tags = tag_metrics(given["gt"], given["pr"])
    va = valence_arousal_metrics(given["g2"], given["p2"])
    # One tag has no positive: it counts as 0 in both of the reference's means. Its ROC-AUC is undefined, not 0.
    assert tags.without_positives == 1
    assert tags.pr_auc == pytest.approx(golden["ap"], rel=1e-5)
    assert tags.roc_auc == pytest.approx(golden["roc"] * 56 / 55, rel=1e-5)
    assert va.r2_valence == pytest.approx(golden["r2v"], rel=1e-5)
    # Its RMSE is over both axes together.
    assert (va.rmse_valence**2 / 2 + va.rmse_arousal**2 / 2) ** 0.5 == pytest.approx(golden["rmse"], rel=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tag_of_one_class_counts_as_scikit_learn_has_it() -> None:
    truth = np.array([[0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]], float)
    scores = np.array([[0, 0, 0.1, 0.2], [0, 0, 0.2, 0.2], [0, 0, 0.3, 0.1]])
    metrics = tag_metrics(truth, scores)
    each = [roc_auc_score(truth[:, i], scores[:, i]) for i in range(4)]
    assert np.isnan(each).tolist() == [True, True, False, False]
    assert metrics.pr_auc == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert metrics.roc_auc == pytest.approx(np.nanmean(each))
    assert (metrics.without_positives, metrics.without_negatives) == (1, 1)
    assert tag_metrics(truth[:, :2], truth[:, :2]).roc_auc is None
    assert tag_metrics(truth[:, :1], truth[:, :1]).pr_auc == 0


def test_r2_is_undefined_for_one_track_and_for_equal_labels() -> None:
    one = valence_arousal_metrics(np.array([[3.0, 4.0]]), np.array([[4.0, 4.0]]))
    assert (one.r2_valence, one.r2_arousal, one.rmse_valence, one.rmse_arousal) == (None, None, 1, 0)
    two = valence_arousal_metrics(np.array([[3.0, 4.0], [3.0, 5.0]]), np.array([[3.0, 4.0], [3.0, 5.0]]))
    assert (two.r2_valence, two.r2_arousal) == (None, 1.0)


def test_the_papers_rows() -> None:
    assert paper_result("J", "J", "tags") == (0.1521, 0.7806)
    assert paper_result("PEDJ", "E", "valence_arousal") == (0.6512, 0.7616)
    assert paper_result("JD", "D", "valence_arousal") == (0.5144, 0.6046)
    assert paper_result("E", "E", "valence_arousal", ("mert",)) == (0.5657, 0.7404)
    assert paper_result("P", "P", "valence_arousal", ("chords", "key")) == (0.0149, 0.0337)
    assert paper_result("JD", "D", "valence_arousal", ("mert",)) is None
    assert paper_result(("D", "E"), "D", "valence_arousal") is None
    assert paper_result("J", "D", "valence_arousal") is None
    assert paper_result("JD", "E", "valence_arousal") is None
    assert paper_result("J", "J", "valence_arousal") is None
    assert paper_result(("my-songs",), "", "tags") is None
