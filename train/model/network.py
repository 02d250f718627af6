"""The network of paper Fig. 1: features, chords and key to tags, valence and arousal.

Module names are those of the released checkpoints: with preset "release" their state loads strictly, less the prefix
"model.". A model of one task has one branch, `output_proj` (the released teachers); a model of both has
`classification_branch` and `regression_branch` (the released student).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2e.train.config import Task, TrainConfig
from m2e.train.data.encoding import N_ID, N_QUALITY_IDS, N_ROOT_IDS, PADDING
from m2e.train.model.attention import Attention, padded_attention, plain_attention, threshold

N_MODES = 2
# (queries, keys, values, heads, dropout) to what the queries attend to
_Attend = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
_BRANCHES: dict[Task, str] = {"tags": "classification_branch", "valence_arousal": "regression_branch"}


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the model sees of B tracks.

    Attributes:
        features: means of segment features [shape=(B, width)].
        root, quality: chord ids, see `m2e.train.data.encoding` [shape=(B, L)].
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


def concatenate(parts: Sequence[Inputs], padding: int, at_least: int = 0) -> Inputs:
    """Batches one after the other, chords padded with root id `padding` to the longest, or to `at_least`."""
    longest = max(at_least, *(part.root.shape[1] for part in parts))
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

    Attributes:
        attention: how the chord transformer attends on a CPU; the results are the same but for rounding.
        padded: go a GPU's way on a CPU, too.
    """

    positions: Tensor

    def __init__(self, config: TrainConfig, width: int, outputs: dict[Task, int]) -> None:
        super().__init__()
        self.attention: Attention = plain_attention
        self.padded = False
        self.masked = config.mask_padding
        self.inputs = config.inputs
        self.dropout = config.dropout
        dim = config.root_dim + config.quality_dim
        if "chords" in config.inputs:
            self.chord_root_embedding = nn.Embedding(N_ROOT_IDS, config.root_dim)
            self.chord_attr_embedding = nn.Embedding(N_QUALITY_IDS, config.quality_dim)
            nn.init.xavier_uniform_(self.chord_root_embedding.weight)
            nn.init.xavier_uniform_(self.chord_attr_embedding.weight)
            self.register_buffer("positions", sinusoids(config.max_chords, dim), persistent=False)
            layer = nn.TransformerEncoderLayer(dim, config.heads, config.ffn, config.dropout, batch_first=True)
            # Only for its parameters' names: its own forward pass computes on padding, and every row of the last layer.
            self.chord_transformer = nn.TransformerEncoder(layer, config.transformer_layers, enable_nested_tensor=False)
            self.cls = nn.Parameter(torch.randn(dim) * 0.02) if config.cls == "learned" else None
        embedded = "key" in config.inputs and config.key == "embedding"
        self.key_embedding = nn.Embedding(N_MODES, config.key_dim) if embedded else None
        sizes = {"mert": width, "chords": dim, "key": config.key_dim if embedded else 1}
        total = sum(sizes[name] for name in config.inputs)
        self.input_proj = nn.Sequential(nn.Linear(total, config.hidden), nn.ReLU())
        self.branches = _BRANCHES if len(outputs) > 1 else dict.fromkeys(outputs, "output_proj")
        for task, size in outputs.items():
            hidden = config.branch_hidden
            branch = nn.Sequential(nn.Linear(config.hidden, hidden), nn.ReLU(), nn.Linear(hidden, size))
            self.add_module(self.branches[task], branch)

    def forward(self, inputs: Inputs) -> Predictions:
        """Predictions for B tracks."""
        features = [inputs.features] if "mert" in self.inputs else []
        hidden = self.input_proj(torch.cat(features + self.harmony(inputs), dim=1))  # (B, hidden)
        heads = {task: self.get_submodule(name)(hidden) for task, name in self.branches.items()}
        return Predictions(heads.get("tags"), heads.get("valence_arousal"))

    @property
    def first_layer(self) -> nn.Linear:
        """The trunk's layer on features, chords and key, in this order."""
        layer = self.input_proj[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def after_first_layer(self, task: Task) -> nn.Module:
        """All that follows it for one task."""
        return nn.Sequential(self.input_proj[1], self.get_submodule(self.branches[task]))

    def harmony(self, inputs: Inputs) -> list[Tensor]:
        """What the trunk sees of chords and key [shape=(B, ...) each]: the same for every span of a track."""
        parts = []
        if "chords" in self.inputs:
            parts.append(self.encode_chords(inputs.root, inputs.quality))  # (B, dim)
        if self.key_embedding is not None:
            parts.append(self.key_embedding(inputs.mode))  # (B, key_dim)
        elif "key" in self.inputs:
            parts.append(inputs.mode[:, None].to(self.first_layer.weight.dtype))  # (B, 1)
        return parts

    def encode_chords(self, root: Tensor, quality: Tensor) -> Tensor:
        """Chords [shape=(B, L)] to one vector a track [shape=(B, dim)]: what the transformer makes of CLS (eq. 1-4)."""
        return self._encode_padded(root, quality) if self.padded or root.is_cuda else self._encode_ragged(root, quality)

    def _encode_ragged(self, root: Tensor, quality: Tensor) -> Tensor:
        """Nothing is computed on padding: a CPU's way."""
        real = root != PADDING
        first = F.pad(real.sum(dim=1), (1, 0)).cumsum(dim=0).cpu()
        place = real.nonzero()[:, 1]
        chords = torch.cat([self.chord_root_embedding(root[real]), self.chord_attr_embedding(quality[real])], dim=1)
        chords = chords + self.positions[place]  # (C, dim)
        tokens = torch.cat([self._cls(chords).expand(len(root), -1), chords])  # (B + C, dim), see `attention`

        def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, rate: float) -> Tensor:
            return self.attention(q, k, v, first, heads, rate)

        return self._transform(tokens, lambda tokens: tokens[: len(root)], attend)

    def _encode_padded(self, root: Tensor, quality: Tensor) -> Tensor:
        """Nothing depends on how many chords each track has: a GPU's way, which must not wait for counts."""
        real = root != PADDING
        pairs = self.chord_root_embedding(root.where(real, N_ID)), self.chord_attr_embedding(quality)
        chords = torch.cat(pairs, dim=2) + self.positions[: root.shape[1]]  # (B, L, dim)
        tokens = torch.cat([self._cls(chords).expand(len(root), 1, -1), chords], dim=1)  # (B, 1 + L, dim)
        keys = F.pad(real, (1, 0), value=True) if self.masked else None

        def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, rate: float) -> Tensor:
            return padded_attention(q, k, v, keys, heads, rate)

        return self._transform(tokens, lambda tokens: tokens[:, :1], attend)[:, 0]

    def _cls(self, chords: Tensor) -> Tensor:
        return chords.new_zeros(chords.shape[-1]) if self.cls is None else self.cls

    def _transform(self, tokens: Tensor, cls: Callable[[Tensor], Tensor], attend: _Attend) -> Tensor:
        """The post-norm `TransformerEncoderLayer`s on tokens; of the last one only the output for every track's CLS."""
        *layers, last = self.chord_transformer.layers
        for layer in layers:
            tokens = self._layer(layer, tokens, tokens, attend)
        return self._layer(last, tokens, cls(tokens), attend)

    def _layer(self, layer: nn.Module, tokens: Tensor, asking: Tensor, attend: _Attend) -> Tensor:
        """Output of a layer for the tokens `asking`, which are the first ones or all."""
        assert isinstance(layer, nn.TransformerEncoderLayer)
        block = layer.self_attn
        assert block.in_proj_weight is not None
        if asking is tokens:
            q, k, v = F.linear(tokens, block.in_proj_weight, block.in_proj_bias).chunk(3, dim=-1)
        else:
            dim = tokens.shape[-1]
            weight, bias = block.in_proj_weight, block.in_proj_bias
            q = F.linear(asking, weight[:dim], bias[:dim])
            k, v = F.linear(tokens, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        rate = self.dropout if self.training else 0.0
        attended = block.out_proj(attend(q, k, v, block.num_heads, rate))
        asking = layer.norm1(asking + dropout(attended, rate))
        hidden = layer.linear2(dropout(layer.linear1(asking).relu(), rate))
        return layer.norm2(asking + dropout(hidden, rate))


def dropout(values: Tensor, rate: float) -> Tensor:
    """As torch's, which draws a float an element on the CPU; 16 bits are enough, and take half the time."""
    if not rate:
        return values
    if values.is_cuda:
        return F.dropout(values, rate)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
    bits = words.view(torch.int16)[: values.numel()].view_as(values)
    return values * (bits >= threshold(rate) - 2**15).to(values.dtype).mul_(1 / (1 - rate))


def sinusoids(n: int, dim: int) -> Tensor:
    """Positions 0 to n - 1, sines and cosines in turn, wavelengths 2 pi to 2 pi 1e4 [shape=(n, dim)]."""
    angles = torch.arange(n)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(1e4) / dim))
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(n, dim)
