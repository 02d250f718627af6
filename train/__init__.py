"""Caches to models and reports. Never imports audio or encoder libraries.

>>> result = train(["J", "D"], cache="features", preset="paper", epochs=20)
>>> result.report.to_frame()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2e.train.config import TrainConfig
    from m2e.train.experiments import Experiment, evaluate, reproduce, train

__all__ = ["Experiment", "TrainConfig", "evaluate", "reproduce", "train"]


def __getattr__(name: str) -> Any:
    """What this package offers, loaded when it is asked for: torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from m2e.train import config, experiments

    return getattr(config if name == "TrainConfig" else experiments, name)
