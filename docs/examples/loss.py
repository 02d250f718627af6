"""A loss of one's own: the focal loss for tags (Lin et al. 2017, arXiv 1708.02002), which counts easy tags less.

In train/learning/losses.py it is a function and a line in `TAG_LOSSES`; the training config then takes its name. Run
from a folder with features/mtg-jamendo, it trains a model with it.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from m2e.train.config import TrainConfig
from m2e.train.data.tensors import load_data, open_caches
from m2e.train.learning.losses import TAG_LOSSES
from m2e.train.run import train_all

GAMMA = 2.0


def focal(logits: Tensor, tags: Tensor, rate: Tensor) -> Tensor:
    """Cross-entropy times (1 - probability of the truth)^gamma, mean over tags and tracks.

    Args:
        logits, tags: of a batch [shape=(B, T) both].
        rate: of each tag in the train split, which this loss does not need [shape=(T,)].
    """
    entropy = F.binary_cross_entropy_with_logits(logits, tags, reduction="none")
    return ((1 - torch.exp(-entropy)) ** GAMMA * entropy).mean()


TAG_LOSSES["focal"] = focal

if __name__ == "__main__":
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    config = TrainConfig.preset("paper", tag_loss="focal", epochs=epochs)
    sets = load_data(open_caches(Path("features"), ["J"]), config, torch.device("cpu"))
    run = train_all(sets, config, Path("runs/focal"))
    (model,) = run.models
    print(f"runs/focal/{model}: best epoch {run.models[model].best_epoch['tags']}")
