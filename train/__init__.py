"""Caches to models and reports. Never imports audio or encoder libraries.

>>> result = train(["J", "D"], cache="features", preset="paper", epochs=20)
>>> result.report.to_frame()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2e.common.lazy import lazily

if TYPE_CHECKING:
    from m2e.train.config import TrainConfig
    from m2e.train.experiments import Experiment, evaluate, reproduce, train

__all__ = ["Experiment", "TrainConfig", "evaluate", "reproduce", "train"]

_EXPERIMENTS = ("Experiment", "evaluate", "reproduce", "train")
__getattr__ = lazily(__name__, {"TrainConfig": "config", **dict.fromkeys(_EXPERIMENTS, "experiments")})
