"""The compiled attention against plain torch, and both against float64 and torch's own layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from m2e.train.config import TrainConfig
from m2e.train.data.encoding import PADDING
from m2e.train.model.attention import Attention, hash32, plain_attention, threshold
from m2e.train.model.fused_attention import fused_attention
from m2e.train.model.network import EmotionModel

# The released head dimension, and the paper preset's.
DIMS = [1, 4]
HEADS = 8
LENGTHS = [[7, 0, 1, 40, 15, 16, 17], [0], [100, 100], []]


def run(
    attend: Attention, lengths: list[int], dim: int, dtype: torch.dtype, dropout: float, cls_only: bool, size: float = 1
) -> tuple[Tensor, Tensor]:
    """Outputs, and gradients of some function of them by queries, keys and values together."""
    first = torch.tensor([0, *lengths]).cumsum(0)
    tracks = len(lengths)
    generator = torch.Generator().manual_seed(1)
    given = size * torch.randn(int(first[-1]) + tracks, 3 * dim * HEADS, generator=generator)
    weights = torch.randn(given.shape[0], dim * HEADS, generator=generator).to(dtype)
    given = given.to(dtype).requires_grad_()
    q, k, v = given.chunk(3, dim=1)
    torch.manual_seed(5)
    outputs = attend(q[:tracks] if cls_only else q, k, v, first, HEADS, dropout)
    (outputs * weights[: len(outputs)]).sum().backward()
    assert given.grad is not None
    return outputs.detach().double(), given.grad.double()


def distance(values: Tensor, right: Tensor) -> float:
    return float((values - right).norm() / right.norm()) if right.norm() else float((values - right).norm())


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("cls_only", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_float64(
    dim: int, lengths: list[int], cls_only: bool, dropout: float
) -> None:
    ours = run(fused_attention, lengths, dim, torch.float32, dropout, cls_only)
    right = run(plain_attention, lengths, dim, torch.float64, dropout, cls_only)
    for values, expected in zip(ours, right, strict=True):
        assert values.shape == expected.shape
        assert distance(values, expected) < 2e-6


@pytest.mark.parametrize("dim", DIMS)
def test_large_scores_neither_overflow_nor_vanish(dim: int) -> None:
    ours = run(fused_attention, [40, 3], dim, torch.float32, 0.0, False, size=30)
    right = run(plain_attention, [40, 3], dim, torch.float64, 0.0, False, size=30)
    # Scores of thousands: what float32 makes of them is known to a thousandth.
    assert distance(ours[0], right[0]) < 1e-3


def test_what_is_not_a_number_stays_that() -> None:
    first = torch.tensor([0, 5])
    q = torch.full((6, 8), torch.nan)
    assert fused_attention(q, q, q, first, HEADS, 0.0).isnan().all()


@pytest.mark.parametrize("attend", [plain_attention, fused_attention])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(attend: Attention) -> None:
    # All weights are 1 / 200, and the values tell which key was kept.
    n = 199
    first = torch.tensor([0, n])
    zeros = torch.zeros(n + 1, n + 1)
    values = torch.eye(n + 1)
    torch.manual_seed(0)
    used = attend(zeros, zeros, values, first, 1, 0.25) * (n + 1) * 0.75
    assert set(used.round(decimals=3).unique().tolist()) == {0.0, 1.0}
    kept = used.mean()
    assert abs(kept - 0.75) < 4 * (0.75 * 0.25 / used.numel()) ** 0.5
    assert not used.equal(attend(zeros, zeros, values, first, 1, 0.25) * (n + 1) * 0.75)
    torch.manual_seed(0)
    assert used.equal(attend(zeros, zeros, values, first, 1, 0.25) * (n + 1) * 0.75)


def test_the_hash_looks_random() -> None:
    numbers = torch.arange(1_000_000)
    one, other = hash32(numbers, 1), hash32(numbers, 2)
    assert one.unique().numel() == len(numbers)
    for rate in (0.1, 0.5):
        low, high, others = ((bits & 0xFFFF < threshold(rate)).double() for bits in (one, one >> 16, other))
        for dropped in (low, high, others):
            assert abs(dropped.mean() - rate) < 4 * (rate / len(numbers)) ** 0.5
        for against in (low[1:], low[100:], high, high[1:], others):
            pair = torch.stack([low[: len(against)], against])
            assert abs(torch.corrcoef(pair)[0, 1]) < 5e-3


@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize("attend", [plain_attention, fused_attention, None])
def test_the_chord_transformer_is_torchs_own(preset: str, attend: Attention | None) -> None:
    config = TrainConfig.preset(preset)
    torch.manual_seed(0)
    model = EmotionModel(config, 8, {"valence_arousal": 2}).eval()
    if attend:
        model.attention = attend
    model.padded = not attend
    root, quality = torch.randint(14, (4, 30)), torch.randint(14, (4, 30))
    if config.mask_padding:
        root[1, 10:], root[2, :] = PADDING, PADDING
    embedded = torch.cat([model.chord_root_embedding(root.clamp(max=13)), model.chord_attr_embedding(quality)], dim=2)
    cls = torch.zeros(embedded.shape[2]) if model.cls is None else model.cls
    sequence = torch.cat([cls.expand(4, 1, -1), embedded + model.positions[:30]], dim=1)
    expected = model.chord_transformer(sequence, src_key_padding_mask=F.pad(root == PADDING, (1, 0)))[:, 0]
    torch.testing.assert_close(model.encode_chords(root, quality), expected, rtol=0, atol=2e-6)
