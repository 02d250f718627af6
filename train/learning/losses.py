"""Losses of the two tasks and of distillation (paper eq. 6-11).

A new loss is a function and a line in its registry; the training config takes the registry's names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from m2e.train.config import Task, TrainConfig


def weighted_bce(logits: Tensor, tags: Tensor, rate: Tensor) -> Tensor:
    """Binary cross-entropy over tags, mean over tags and tracks, weights 2 / (1 + p) of a positive and 2 p / (1 + p)
    of a negative; `rate` holds p, the share of positives in the train split [shape=(T,)] (eq. 6-7).

    It equals pos_weight 1 / p with weight 2 / (1 + 1 / p), and is defined for p = 0, too.
    """
    weight = 2 * (tags + rate * (1 - tags)) / (1 + rate)
    return F.binary_cross_entropy_with_logits(logits, tags, weight)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over tracks, valence and arousal, on the scale 1-9 as it is (eq. 8)."""
    return F.mse_loss(outputs, targets)


def softmax_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of softmax distributions over the outputs at temperature 1, mean over tracks (eq. 9).

    As in the released code, valence and arousal, too, go through a softmax: it sees only their difference.
    """
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


TAG_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"weighted_bce": weighted_bce}
VA_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse}
KD_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"softmax_kl": softmax_kl}


def task_loss(config: TrainConfig, task: Task, outputs: Tensor, targets: Tensor, tag_rate: Tensor) -> Tensor:
    """The loss against the labels; the only one in validation."""
    if task == "tags":
        return TAG_LOSSES[config.tag_loss](outputs, targets, tag_rate)
    return VA_LOSSES[config.va_loss](outputs, targets)


def distilled(config: TrainConfig, task_loss: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """kd_weight * distillation + (1 - kd_weight) * task loss (eq. 10-11)."""
    return config.kd_weight * KD_LOSSES[config.kd_loss](student, teacher) + (1 - config.kd_weight) * task_loss
