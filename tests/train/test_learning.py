"""What linear models find in features, the trainer finds, too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.preprocessing import StandardScaler
from support.caches import make_cache, make_labels

from m2e.cache import Labels
from m2e.manifests import load
from m2e.manifests.store import manifest_labels
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning.loop import train_teacher
from m2e.train.scoring.evaluate import measure
from m2e.train.scoring.metrics import Metrics, TagMetrics, ValenceArousalMetrics, tag_metrics, valence_arousal_metrics

torch.set_num_threads(1)


def linear(data: EmotionData) -> Metrics:
    """Ridge or logistic regression on the mean features, regularised as suits the validation split best."""
    features = {name: data.whole(rows).features.numpy() for name, rows in data.splits.items() if len(rows)}
    scale = StandardScaler().fit(features["train"])
    x = {name: scale.transform(values) for name, values in features.items()}
    (target,) = data.targets.values()
    y = {name: target[data.splits[name]].numpy() for name in x}
    if "valence_arousal" in data.targets:
        model = RidgeCV(np.logspace(-1, 5, 13), alpha_per_target=True).fit(x["train"], y["train"])
        return valence_arousal_metrics(y["test"], model.predict(x["test"]))

    def scores(c: float, split: str) -> NDArray[np.floating[Any]]:
        fits = [LogisticRegression(C=c).fit(x["train"], column) for column in y["train"].T]
        return np.stack([fit.decision_function(x[split]) for fit in fits], axis=1)

    best = max((1e-3, 1e-2, 1e-1), key=lambda c: tag_metrics(y["validation"], scores(c, "validation")).roc_auc or 0)
    return tag_metrics(y["test"], scores(best, "test"))


def shortfalls(folder: Path, labels: Labels, config: TrainConfig, signal: float, segments: int) -> NDArray[np.float64]:
    """How far each score is below the linear model's, on features with the labels in them [shape=(scores,)]."""
    make_cache(folder / labels.dataset, labels, dim=32, signal=signal, segments=segments)
    (data,) = load_data(open_caches(folder, [labels.dataset]), config, torch.device("cpu"))
    (task,) = data.targets
    ours, theirs = measure(train_teacher(data, config).models[task], data, task), linear(data)
    print(labels.dataset, config.seed, ours, theirs)
    if isinstance(ours, TagMetrics) and isinstance(theirs, TagMetrics):
        pairs = [(ours.roc_auc, theirs.roc_auc)]
    else:
        assert isinstance(ours, ValenceArousalMetrics)
        assert isinstance(theirs, ValenceArousalMetrics)
        pairs = [(ours.r2_valence, theirs.r2_valence), (ours.r2_arousal, theirs.r2_arousal)]
    found = np.array(pairs, float)
    assert ((found[:, 1] > 0.5) & (found[:, 1] < 0.98)).all()
    return found[:, 1] - found[:, 0]


CONFIG = TrainConfig.preset("paper", epochs=40, learning_rate=3e-4, batch_size=32)


@pytest.mark.parametrize(
    ("tag_names", "signal"), [((), 0.3), pytest.param(("a", "b", "c"), 0.3, marks=pytest.mark.long)]
)
def test_synthetic_labels_are_found(tmp_path: Path, tag_names: tuple[str, ...], signal: float) -> None:
    assert (shortfalls(tmp_path, make_labels("made", "", 2000, tag_names), CONFIG, signal, 1) < 0.01).all()


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "signal", "segments", "config"),
    [
        # Songs of several segments; chords that carry nothing are left out, as they are for the linear model.
        ("mtg-jamendo", 0.15, 7, replace(CONFIG, inputs=("mert",))),
        # Clips of 45 s are one segment.
        ("deam", 1.2, 1, TrainConfig.preset("paper")),
        ("emomusic", 1.2, 1, TrainConfig.preset("paper")),
    ],
)
def test_real_labels_are_found(
    tmp_path: Path, reference: Path, name: str, signal: float, segments: int, config: TrainConfig
) -> None:
    """Mean over three seeds."""
    splits = reference / "data" / "splits" / name
    labels = manifest_labels(load(name, reference / "data" / name, splits if splits.is_dir() else None))
    found = [
        shortfalls(tmp_path / str(seed), labels, replace(config, seed=seed), signal, segments) for seed in range(3)
    ]
    assert (np.mean(found, axis=0) < 0.01).all()
