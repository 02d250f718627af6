"""The rearranged network against transformers' own model, on seeded random weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import HubertConfig, HubertModel

from m2e.cache.settings import PRECISIONS, Precision
from m2e.extract.encoders import mert_net as mert
from m2e.extract.encoders.mert_net import MERT, PositionalConvolution
from m2e.extract.encoders.registry import Encoder

torch.set_num_threads(1)  # as in every worker

SMALL: dict[str, Any] = {
    "conv_bias": False,
    "conv_dim": [24] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_pos_batch_norm": False,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_conv_pos_embedding_groups": 4,
    "num_conv_pos_embeddings": 128,
    "num_hidden_layers": 3,
}
STABLE = {"do_stable_layer_norm": True}
# The 95M's, but for its twelve blocks.
LARGE = {"conv_dim": [512] * 7, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE["num_conv_pos_embedding_groups"] = 16


def hubert(seed: int = 0, **settings: Any) -> HubertModel:
    """transformers' model, its norms and biases drawn too, and with attention that tells frames apart."""
    torch.manual_seed(seed)
    model = HubertModel(HubertConfig(**{**SMALL, **settings})).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            weight += 0.1 * torch.randn_like(weight)
        if "q_proj.weight" in name or "k_proj.weight" in name:
            weight *= 4
    return model


def waves(samples: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Noise over tones, each wave of its own loudness and offset."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 24_000
    tones = [torch.sin(2 * torch.pi * 220 * (i + 1) * time) for i in range(batch)]
    noise = torch.randn(batch, samples, generator=generator)
    scale = torch.rand(batch, 2, 1, generator=generator)
    return (torch.stack(tones) + 0.3 * noise) * (0.1 + scale[:, 0]) + scale[:, 1]


def official_states(model: HubertModel, wave: Tensor) -> list[Tensor]:
    """h[0], h[1], ... of a normalised wave; the last one with the final layer norm of a pre-norm model."""
    out = model((wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt(), output_hidden_states=True)
    return [*out.hidden_states[:-1], out.last_hidden_state]


def embedded(model: HubertModel, layers: Sequence[int], precision: Precision, wave: Tensor, device: str) -> Tensor:
    """Time means as an encoder of that precision gives them."""
    if precision == ("tf32" if device == "cpu" else "int8"):
        pytest.skip(f"{precision} is for other devices")
    network = MERT(model, layers, normalise=True, final_norm=False, precision=precision)
    return Encoder(network, device, precision=precision)(wave.to(device)).cpu()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"feat_proj_layer_norm": False},
        STABLE,
        {**STABLE, "feat_extract_norm": "layer", "conv_bias": True},
        {"feat_extract_norm": "layer"},
        {"conv_bias": True, "num_conv_pos_embeddings": 33, "num_conv_pos_embedding_groups": 3},
        {"conv_kernel": [10, 5, 3, 2, 7, 3, 1], "conv_stride": [5, 2, 3, 2, 2, 1, 1]},
    ],
    ids=["95M", "no projection norm", "330M", "layer norms", "layer norms, post-norm", "biases", "other widths"],
)
def test_every_layer_equals_transformers(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(mert, "TILE", 7)  # many tiles, the last one short
    model = hubert(**settings)
    ours = MERT(
        model, range(4), normalise=True, final_norm=bool(settings.get("do_stable_layer_norm")), precision="float32"
    ).to(device)
    for samples in (24_000, 24_321, 50_159):
        wave = waves(samples, seed=samples)
        expected = official_states(model, wave)
        for state, theirs in zip(ours.hidden_states(wave.to(device)), expected, strict=True):
            assert state.shape == theirs.shape
            torch.testing.assert_close(state.cpu(), theirs, atol=1e-5, rtol=1e-5)
        means = torch.stack([state.mean(dim=1) for state in expected], dim=1)
        for layer in range(4):
            assert relative(ours(wave.to(device))[:, layer].cpu(), means[:, layer]) < 1e-6


@pytest.mark.parametrize("samples", [720, 721, 1039, 1040])
def test_the_shortest_waves(samples: int) -> None:
    model = hubert()
    wave = waves(samples)
    ours = list(MERT(model, (3,), normalise=True, final_norm=False, precision="float32").hidden_states(wave))
    torch.testing.assert_close(ours[3], official_states(model, wave)[3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"feat_extract_norm": "layer"}], ids=["95M", "layer norms"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_is_its_waves_one_by_one(settings: dict[str, Any], precision: Any, device: str) -> None:
    model, batch = hubert(**settings), waves(30_000, batch=3)
    single = torch.cat([embedded(model, (0, 3), precision, wave[None], device) for wave in batch])
    together = embedded(model, (0, 3), precision, batch, device)
    torch.testing.assert_close(together, single, atol=1e-5 if precision == "float32" else 2e-2, rtol=0)


def test_the_folded_group_norm_is_as_exact_as_the_norm_where_a_wave_has_an_offset() -> None:
    """An offset a thousand times the sound, and nothing that normalises the wave; both against float64."""
    model, wave = hubert(), waves(24_000) * 1e-3 + 1
    ours = MERT(model, (0,), normalise=False, final_norm=False, precision="float32").front_end(wave)
    theirs = model.feature_extractor(wave).mT
    precise = model.double().feature_extractor(wave.double()).mT
    assert (ours - precise).abs().max() < 2 * (theirs - precise).abs().max()


@pytest.mark.parametrize(("frames", "width"), [(1, 128), (129, 128), (386, 128), (2249, 128), (300, 33), (900, 300)])
def test_the_positional_convolution_by_fourier_transform(frames: int, width: int) -> None:
    conv = torch.nn.Conv1d(12, 12, width, padding=width // 2, groups=3).requires_grad_(False)
    x = torch.randn(2, frames, 12)
    expected = torch.nn.functional.gelu(conv(x.mT)[:, :, :frames]).mT
    torch.testing.assert_close(PositionalConvolution(conv)(x), expected, atol=2e-6, rtol=0)


@dataclass(frozen=True)
class Tolerance:
    """Of the pooled feature of a segment, all stored layers together, against transformers in float32."""

    relative: float
    cosine: float  # distance: 1 - cosine


# docs/performance.md states these.
TOLERANCES = {
    "float32": Tolerance(1e-6, 1e-12),
    "tf32": Tolerance(3e-3, 5e-6),
    "bf16": Tolerance(1e-2, 5e-5),
    "int8": Tolerance(4e-2, 8e-4),
}
STORAGE = Tolerance(3e-4, 5e-8)


def distance(ours: Tensor, theirs: Tensor) -> Tolerance:
    cosine = torch.cosine_similarity(ours.double().flatten(), theirs.double().flatten(), dim=0)
    return Tolerance(relative(ours, theirs), float(1 - cosine))


@pytest.fixture(scope="module")
def large() -> tuple[HubertModel, Tensor, Tensor]:
    """A model of the 95M's dimensions, a wave, and the official pooled feature of its last two layers."""
    model, wave = hubert(**LARGE), waves(48_000)
    return model, wave, torch.stack([state.mean(dim=1) for state in official_states(model, wave)[2:]], dim=1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_keeps_its_tolerance(
    large: tuple[HubertModel, Tensor, Tensor], precision: Any, device: str
) -> None:
    model, wave, expected = large
    found = distance(embedded(model, (2, 3), precision, wave, device), expected)
    assert found.relative < TOLERANCES[precision].relative
    assert found.cosine < TOLERANCES[precision].cosine
    if precision != "float32":  # an option that changed nothing would be float32 under another name
        assert found.relative > 10 * TOLERANCES["float32"].relative


def test_storing_float16_costs_far_less_than_reduced_precision(large: tuple[HubertModel, Tensor, Tensor]) -> None:
    found = distance(large[2].half().float(), large[2])
    assert found.relative < STORAGE.relative
    assert found.cosine < STORAGE.cosine
    for precision in ("bf16", "int8"):
        assert TOLERANCES[precision].relative > 30 * STORAGE.relative
        assert TOLERANCES[precision].cosine > 500 * STORAGE.cosine


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_keeps_its_tolerance_over_a_whole_segment_and_seven_blocks(precision: Any, device: str) -> None:
    model, wave = hubert(**LARGE, num_hidden_layers=8), waves(720_000)
    expected = torch.stack([state.mean(dim=1) for state in official_states(model, wave)[5:8]], dim=1)
    found = distance(embedded(model, (5, 6, 7), precision, wave, device), expected)
    print(precision, found)
    assert found.relative < TOLERANCES[precision].relative
    assert found.cosine < TOLERANCES[precision].cosine


def test_the_network_keeps_nothing_of_the_model_it_came_from() -> None:
    """Neither its memory, which may be a mapped file, nor its blocks above the highest layer."""
    model = hubert()
    network = MERT(model, (1,), normalise=True, final_norm=False, precision="float32")
    before = network(waves(24_000))
    for weight in model.parameters():
        weight.fill_(np.nan)
    torch.testing.assert_close(network(waves(24_000)), before, atol=0, rtol=0)
    assert len(network.blocks) == 1
