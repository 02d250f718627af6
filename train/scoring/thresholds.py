"""From which probability on a tag is given: for each tag, where F1 on the validation split is best.

The losses weight rare tags (paper eq. 6), which moves their probabilities up: one threshold for all, such as .5, would
give the rare tags far too often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from m2e.train.config import Task
from m2e.train.data.tensors import EmotionData
from m2e.train.model.network import EmotionModel
from m2e.train.scoring.evaluate import predict

# Where nothing can be chosen: no validation track has the tag.
UNCHOSEN = 0.5


def choose_thresholds(models: Mapping[Task, EmotionModel], sets: Sequence[EmotionData]) -> tuple[float, ...]:
    """A threshold a tag, 0-1, chosen on all validation tracks with tags; empty where there are none.

    Args:
        models: a model a task, as they were trained.
        sets: what they were trained on.
    """
    judged = [data for data in sets if "tags" in data.targets and len(data.splits["validation"])]
    if not judged:
        return ()
    scores = torch.cat([predict(models["tags"], data, "validation", "tags").cpu() for data in judged])
    truth = torch.cat([data.targets["tags"][data.splits["validation"].to(data.device)].cpu() for data in judged])
    return f1_thresholds(truth.numpy(), scores.double().sigmoid().numpy())


def f1_thresholds(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> tuple[float, ...]:
    """For each tag the threshold with the best F1 = 2 TP / (2 TP + FP + FN), `scores >= threshold` being positive.

    It lies halfway between two scores; of equally good ones the highest is taken. A tag that no track has gets
    `UNCHOSEN`.

    Args:
        truth: 0 or 1 [shape=(N, T)].
        scores: probabilities, 0-1 [shape=(N, T)].
    """
    return tuple(_f1_threshold(*column) for column in zip(truth.T, scores.T, strict=True))


def _f1_threshold(truth: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    positives = truth.sum()
    if not positives:
        return UNCHOSEN
    order = np.argsort(-scores, kind="stable")
    ranked = np.append(scores[order], 0.0)
    given = np.arange(1, len(scores) + 1)
    f1 = 2 * truth[order].cumsum() / (given + positives)
    f1[ranked[:-1] == ranked[1:]] = -1  # no threshold parts equal scores
    best = int(f1.argmax())
    return float(ranked[best] + ranked[best + 1]) / 2
