"""The network of paper Fig. 1: features, chords and key to tags, valence and arousal.

Module names are those of the released checkpoints: with preset "release" their state loads strictly, less the prefix
"model.". A model of one task has one branch, `output_proj` (the released teachers); a model of both has
`classification_branch` and `regression_branch` (the released student).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2e.train.config import Task, TrainConfig
from m2e.train.encoding import N_ID, N_QUALITY_IDS, N_ROOT_IDS, PADDING

N_MODES = 2
_BRANCHES: dict[Task, str] = {"tags": "classification_branch", "valence_arousal": "regression_branch"}


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the model sees of B tracks.

    Attributes:
        features: means of segment features [shape=(B, width)].
        root, quality: chord ids, see `m2e.train.encoding` [shape=(B, L)].
        mode: 0 major, 1 minor [shape=(B,)].
    """

    features: Tensor
    root: Tensor
    quality: Tensor
    mode: Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model says of B tracks; None for a task that it was not made for.

    Attributes:
        tag_logits: [shape=(B, T)].
        valence_arousal: on the scale 1-9, unclipped [shape=(B, 2)].
    """

    tag_logits: Tensor | None
    valence_arousal: Tensor | None

    def of(self, task: Task) -> Tensor:
        """The output for one task."""
        output = self.tag_logits if task == "tags" else self.valence_arousal
        if output is None:
            raise ValueError(f"this model does not predict {task}")
        return output

    def rows(self, start: int, stop: int) -> Predictions:
        """Those of tracks `start` to `stop`."""
        return Predictions(
            None if self.tag_logits is None else self.tag_logits[start:stop],
            None if self.valence_arousal is None else self.valence_arousal[start:stop],
        )


def padding_id(config: TrainConfig) -> int:
    """Root id after a track's last chord."""
    return PADDING if config.mask_padding else N_ID


def concatenate(parts: Sequence[Inputs], padding: int) -> Inputs:
    """Batches one after the other, chords padded with root id `padding` to the longest."""
    longest = max(part.root.shape[1] for part in parts)
    return Inputs(
        torch.cat([part.features for part in parts]),
        torch.cat([F.pad(part.root, (0, longest - part.root.shape[1]), value=padding) for part in parts]),
        torch.cat([F.pad(part.quality, (0, longest - part.quality.shape[1])) for part in parts]),
        torch.cat([part.mode for part in parts]),
    )


class EmotionModel(nn.Module):
    """Chord transformer, trunk, and a branch a task.

    Args:
        config: sizes and variants.
        width: of the segment features, all layers together (1,536 for two layers of MERT-95M).
        outputs: number of outputs a task, for one task or both.
    """

    positions: Tensor

    def __init__(self, config: TrainConfig, width: int, outputs: dict[Task, int]) -> None:
        super().__init__()
        dim = config.root_dim + config.quality_dim
        padding = PADDING if config.mask_padding else None
        self.mask_padding = config.mask_padding
        self.chord_root_embedding = nn.Embedding(N_ROOT_IDS + config.mask_padding, config.root_dim, padding_idx=padding)
        self.chord_attr_embedding = nn.Embedding(N_QUALITY_IDS, config.quality_dim)
        nn.init.xavier_uniform_(self.chord_root_embedding.weight)
        nn.init.xavier_uniform_(self.chord_attr_embedding.weight)
        self.register_buffer("positions", sinusoids(config.max_chords, dim), persistent=False)
        layer = nn.TransformerEncoderLayer(dim, config.heads, config.ffn, config.dropout, batch_first=True)
        # Nested tensors warn that they are a prototype, and only serve sequences without a CLS.
        self.chord_transformer = nn.TransformerEncoder(layer, config.transformer_layers, enable_nested_tensor=False)
        self.cls = nn.Parameter(torch.randn(dim) * 0.02) if config.cls == "learned" else None
        self.key_embedding = nn.Embedding(N_MODES, config.key_dim) if config.key == "embedding" else None
        key_dim = config.key_dim if self.key_embedding is not None else 1
        self.input_proj = nn.Sequential(nn.Linear(width + dim + key_dim, config.hidden), nn.ReLU())
        self.branches = _BRANCHES if len(outputs) > 1 else dict.fromkeys(outputs, "output_proj")
        for task, size in outputs.items():
            hidden = config.branch_hidden
            branch = nn.Sequential(nn.Linear(config.hidden, hidden), nn.ReLU(), nn.Linear(hidden, size))
            self.add_module(self.branches[task], branch)

    def forward(self, inputs: Inputs) -> Predictions:
        """Predictions for B tracks."""
        harmony = self.encode_chords(inputs.root, inputs.quality)  # (B, dim)
        if self.key_embedding is not None:
            key = self.key_embedding(inputs.mode)  # (B, key_dim)
        else:
            key = inputs.mode[:, None].to(harmony.dtype)  # (B, 1)
        hidden = self.input_proj(torch.cat([inputs.features, harmony, key], dim=1))  # (B, hidden)
        heads = {task: self.get_submodule(name)(hidden) for task, name in self.branches.items()}
        return Predictions(heads.get("tags"), heads.get("valence_arousal"))

    def encode_chords(self, root: Tensor, quality: Tensor) -> Tensor:
        """Chords [shape=(B, L)] to one vector a track [shape=(B, dim)]: what the transformer makes of CLS (eq. 1-4)."""
        batch, length = root.shape
        chords = torch.cat([self.chord_root_embedding(root), self.chord_attr_embedding(quality)], dim=2)
        chords = chords + self.positions[:length]  # (B, L, dim)
        cls = chords.new_zeros(chords.shape[2]) if self.cls is None else self.cls
        sequence = torch.cat([cls.expand(batch, 1, -1), chords], dim=1)  # (B, 1 + L, dim)
        padded = F.pad(root == PADDING, (1, 0)) if self.mask_padding else None
        *layers, last = self.chord_transformer.layers
        for layer in layers:
            sequence = layer(sequence, src_key_padding_mask=padded)
        return cls_output(last, sequence, padded)


def cls_output(layer: nn.Module, sequence: Tensor, padded: Tensor | None) -> Tensor:
    """First output of a `TransformerEncoderLayer` [shape=(B, dim)], without computing the others: half the time."""
    assert isinstance(layer, nn.TransformerEncoderLayer)
    cls = sequence[:, :1]
    attended, _ = layer.self_attn(cls, sequence, sequence, key_padding_mask=padded, need_weights=False)
    cls = layer.norm1(cls + layer.dropout1(attended))
    hidden = layer.linear2(layer.dropout(layer.linear1(cls).relu()))
    return layer.norm2(cls + layer.dropout2(hidden))[:, 0]


def sinusoids(n: int, dim: int) -> Tensor:
    """Positions 0 to n - 1, sines and cosines in turn, wavelengths 2 pi to 2 pi 1e4 [shape=(n, dim)]."""
    angles = torch.arange(n)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(1e4) / dim))
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(n, dim)
