"""Labels of clips that two data sets share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.caches import CONFIG, make_labels, random_track

from m2e.cache import FeatureWriter, write_labels
from m2e.manifests import Choices, load
from m2e.manifests.dataset import DeamLabels
from m2e.manifests.store import manifest_labels
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.scoring.agreement import exchanged_labels


def pair(folder: Path, columns: list[int], clips: int = 40, shared: int = 30, noise: float = 0.01) -> list[EmotionData]:
    """Two sets of `clips`, some of them shared; the second's labels are the first's, with `columns` in this order."""
    one, two = (make_labels(name, "", clips) for name in ("one", "two"))
    rng = np.random.default_rng(0)
    points = rng.uniform(2, 8, (clips, 2)).astype(np.float32)
    others = points[:, columns] + rng.normal(0, noise, points.shape).astype(np.float32)
    groups = [f"m/{i}" if i < shared else f"two/{i}" for i in range(clips)]
    for labels in (
        replace(one, valence_arousal=points, clip_group=tuple(f"m/{i}" for i in range(clips))),
        replace(two, valence_arousal=np.clip(others, 1, 9), clip_group=tuple(groups)),
    ):
        write_labels(folder / labels.dataset, labels)
        with FeatureWriter(folder / labels.dataset, CONFIG) as writer:
            for i, track_id in enumerate(labels.track_ids):
                writer.add(random_track(track_id, i, segments=1))
    return load_data(open_caches(folder, ["one", "two"]), TrainConfig(), torch.device("cpu"), allow_missing=True)


def test_exchanged_columns_are_told(tmp_path: Path) -> None:
    (line,) = exchanged_labels(pair(tmp_path, [1, 0]))
    assert line.startswith(
        "the labels of 30 clips that one and two share agree only with valence and arousal exchanged"
    )
    assert "(r 1.00, else " in line


@pytest.mark.parametrize(
    ("columns", "shared", "noise"), [([0, 1], 30, 0.01), ([1, 0], 19, 0.01), ([1, 0], 0, 0.01), ([1, 0], 30, 5.0)]
)
def test_nothing_is_told_where_labels_agree_or_little_is_known(
    columns: list[int], shared: int, noise: float, tmp_path: Path
) -> None:
    assert exchanged_labels(pair(tmp_path, columns, shared=shared, noise=noise)) == []


def test_labels_that_do_not_vary_and_sets_of_tags_decide_nothing(tmp_path: Path) -> None:
    one, two = pair(tmp_path, [1, 0])
    constant = replace(two, targets={"valence_arousal": torch.full((40, 2), 5.0)})
    assert exchanged_labels([one, constant]) == []
    assert exchanged_labels([one, replace(two, targets={})]) == []


@pytest.mark.parametrize(("labels", "lines"), [("as-distributed", 1), ("repaired", 0)])
def test_real_labels_of_deam_and_emomusic(labels: DeamLabels, lines: int, reference: Path, tmp_path: Path) -> None:
    for name in ("deam", "emomusic"):
        manifest = load(name, reference / "data" / name, choices=Choices(deam_labels=labels))
        write_labels(tmp_path / name, manifest_labels(manifest))
        with FeatureWriter(tmp_path / name, CONFIG) as writer:
            for i, track in enumerate(manifest.tracks[:60]):
                writer.add(random_track(track.track_id, i, segments=1))
    sets = load_data(
        open_caches(tmp_path, ["deam", "emomusic"]), TrainConfig(), torch.device("cpu"), allow_missing=True
    )
    assert len(exchanged_labels(sets)) == lines
