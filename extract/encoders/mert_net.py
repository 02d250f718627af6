"""MERT's network, rearranged: what transformers' HubertModel computes, in other steps that take less time.

Each of these is exact but for rounding; tests/extract/encoders/test_mert_net.py compares with transformers' own model.

- The group norm after the first convolution becomes part of that convolution: mean and variance of its output follow
  from the mean and the covariance of the windows (10 samples, so 10 x 10) that it is a product of.
- Activations are time-major, [frames, channels]. A convolution is then a sum of matrix products of strided views, and
  no windows are ever copied; one of width 3 and stride 2 takes five products where the definition takes six.
- On a CPU all convolutions run over a tile of frames before the next tile, so that what passes between them stays in
  the processor's cache.
- The positional convolution, 128 frames wide, goes through the Fourier transform (overlap-save).
- Queries, keys and values come from one product, and attention reads them in contiguous memory.
- No block above the highest layer that is asked for is kept, and only time means leave the network.

`precision` is that of the matrix products. "float32" is the above. "bf16" multiplies in bfloat16, and "int8" in 8-bit
integers, with a scale for each row of activations and for each output of a weight matrix; both leave the first
convolution, the positional one and the normalisations in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import HubertModel

    from m2e.cache.settings import Precision

TILE = 128  # frames after the last convolution; on a CPU
FFT_LENGTH = 512
INT8_ROWS = 256


class Dense(nn.Module):
    """A matrix product over the last dimension, in its weights' precision."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """`weight` [shape=(out, in)], `bias` [shape=(out,)]."""
        super().__init__()
        self.weight, self.bias = _copy(weight), None if bias is None else _copy(bias)

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, n, in) -> (batch, n, out)]; any strides."""
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """y += x W, in place."""
        y.baddbmm_(x.to(self.weight.dtype), self.weight.mT.expand(len(x), -1, -1))


class Int8Dense(nn.Module):
    """`Dense` in 8-bit integers, quantised symmetrically: weights once, by output; activations as they come, by row."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        scale = _int8_scale(weight)
        self.weight, self.scale = _copy((weight / scale).round().to(torch.int8).mT), _copy(scale.flatten())
        self.bias = None if bias is None else _copy(bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        y = x.new_empty(len(rows), len(self.scale))
        # Few rows at a time: quantising is several passes, which should find them in the cache.
        for part, out in zip(torch.split(rows, INT8_ROWS), torch.split(y, INT8_ROWS), strict=True):
            scale = _int8_scale(part)
            product = torch._int_mm((part / scale).round_().to(torch.int8), self.weight)
            torch.mul(product, scale, out=out).mul_(self.scale)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], -1)

    def add_to(self, y: Tensor, x: Tensor) -> None:
        y += self(x)


def _copy(x: Tensor) -> nn.Buffer:
    """Of a weight, so that no part of the file or of the model it comes from is kept."""
    return nn.Buffer(x.detach().clone(memory_format=torch.contiguous_format))


def _int8_scale(x: Tensor) -> Tensor:
    """Of each row, so that its largest magnitude becomes 127; never 0."""
    return torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).clamp_min_(1e-12).div_(127)


def _dense(weight: Tensor, bias: Tensor | None, precision: Precision) -> Dense | Int8Dense:
    if precision == "int8":
        return Int8Dense(weight, bias)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Dense(weight.to(dtype), None if bias is None else bias.to(dtype))


class Norm(nn.LayerNorm):
    """Layer norm over channels, in float32."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps)
        self.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class FirstConvolution(nn.Module):
    """From the wave, with the group norm after it (each channel is a group) where there is one."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        conv, norm = layer.conv, layer.layer_norm
        self.width, self.stride = conv.kernel_size[0], conv.stride[0]
        self.weight = _copy(conv.weight[:, 0].mT)  # [width, out]
        self.bias = _copy(torch.zeros(conv.out_channels) if conv.bias is None else conv.bias)
        self.norm = copy.deepcopy(norm) if isinstance(norm, nn.GroupNorm) else None

    def fit(self, waves: Tensor) -> Tensor:
        """Weights for each wave as a whole, the biases as their last row [shape=(batch, width + 1, out)]."""
        weight, bias = self.weight.expand(len(waves), -1, -1), self.bias.expand(len(waves), 1, -1)
        if self.norm is None:
            return torch.cat([weight, bias], dim=1)
        # In float64: these are sums over 144,000 windows, and their errors would be in every frame.
        weight, windows = weight.double(), waves.unfold(1, self.width, self.stride).double()
        mean = windows.mean(dim=1, keepdim=True)
        covariance = (windows - mean).mT @ (windows - mean) / windows.shape[1]
        variance = (weight * (covariance @ weight)).sum(dim=1, keepdim=True)
        scale = self.norm.weight / (variance + self.norm.eps).sqrt()
        # The convolution's own bias is part of the mean that the norm takes away.
        return torch.cat([weight * scale, self.norm.bias - mean @ weight * scale], dim=1).float()

    def forward(self, waves: Tensor, fitted: Tensor) -> Tensor:
        """[shape=(batch, n) -> (batch, frames, out)]"""
        windows = waves.unfold(1, self.width, self.stride)
        # With a 1 for the bias: a product that is added to costs more than one row.
        return torch.bmm(functional.pad(windows, (0, 1), value=1.0), fitted)


class Convolution(nn.Module):
    """A strided convolution as a sum of products: taps 0 to stride - 1, the next `stride` taps, and so on."""

    def __init__(self, conv: nn.Conv1d, precision: Precision) -> None:
        super().__init__()
        self.width, self.stride = conv.kernel_size[0], conv.stride[0]
        taps = [conv.weight[:, :, i : i + self.stride].mT.flatten(1) for i in range(0, self.width, self.stride)]
        self.products = nn.ModuleList(
            _dense(weight, None if i else conv.bias, precision) for i, weight in enumerate(taps)
        )
        self.columns = [weight.shape[1] for weight in taps]
        self.spare = 0

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, frames, in) -> (batch, (frames - width) // stride + 1, out)]"""
        batch, frames, channels = x.shape
        step = self.stride * channels
        shape, strides = (batch, (frames - self.width) // self.stride + 1), (frames * channels, step, 1)
        views = [x.as_strided((*shape, columns), strides, i * step) for i, columns in enumerate(self.columns)]
        y = self.products[0](views[0])
        for product, view in zip(self.products[1:], views[1:], strict=True):
            product.add_to(y, view)  # type: ignore[operator]
        return y


class PairedConvolution(nn.Module):
    """A convolution of width 3 and stride 2, two outputs at a time with five products of six.

    With inputs a b c d e, the outputs a W0 + b W1 + c W2 and c W0 + d W1 + e W2 are
    b W1 + c (W0 + W2) + (a - c) W0 and d W1 + c (W0 + W2) - (c - e) W2, whose middle product is the same
    (S. Winograd, "Arithmetic Complexity of Computations", 1980: F(2, 2) on the even inputs).
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        first, second, third = conv.weight.unbind(dim=2)
        self.own = Dense(second, conv.bias)
        self.shared = Dense(first + third)
        self.left, self.right = Dense(first), Dense(-third)
        self.spare = 1  # output that it may leave out at the end, to have pairs

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, frames, in) -> (batch, (frames - 1) // 4 * 2, out)]"""
        batch, frames, _ = x.shape
        pairs = (frames - 1) // 4
        x = x[:, : 4 * pairs + 1]
        y = self.own(x[:, 1::2])
        both = y.view(batch, pairs, 2, -1)
        both += self.shared(x[:, 2::4])[:, :, None]
        difference = x[:, :-2:2] - x[:, 2::2]
        self.left.add_to(both[:, :, 0], difference[:, 0::2])
        self.right.add_to(both[:, :, 1], difference[:, 1::2])
        return y


class FrontEnd(nn.Module):
    """Waves to features, 75 a second with MERT's seven convolutions."""

    def __init__(self, layers: Any, precision: Precision) -> None:
        super().__init__()
        convolutions = [layer.conv for layer in layers[1:]]
        self.first = FirstConvolution(layers[0])
        self.rest = nn.ModuleList(
            # A difference of rounded numbers would be too coarse in bfloat16, and needs a scale of its own in int8.
            PairedConvolution(conv)
            if precision == "float32" and conv.kernel_size == (3,) and conv.stride == (2,)
            else Convolution(conv, precision)
            for conv in convolutions
        )
        self.norms = nn.ModuleList(
            Norm(layer.layer_norm) if isinstance(getattr(layer, "layer_norm", None), nn.LayerNorm) else nn.Identity()
            for layer in layers
        )
        # In samples: from feature to feature, under one feature, and what pairs may need beyond.
        self.stride, self.field, self.margin = self.first.stride, self.first.width, 0
        for conv, module in zip(convolutions, self.rest, strict=True):
            self.field += (conv.kernel_size[0] - 1) * self.stride
            self.stride *= conv.stride[0]
            self.margin += int(module.spare) * self.stride  # type: ignore[arg-type]
        self.channels = convolutions[-1].out_channels

    def forward(self, waves: Tensor) -> Tensor:
        """[shape=(batch, n) -> (batch, (n - 400) // 320 + 1, channels)]"""
        fitted = self.first.fit(waves)
        frames = (waves.shape[1] - self.field) // self.stride + 1
        tile = TILE if waves.device.type == "cpu" else frames
        padded = functional.pad(waves, (0, self.margin))
        features = waves.new_empty(len(waves), frames, self.channels)
        for start in range(0, frames, tile):
            stop = min(start + tile, frames)
            end = (stop - 1) * self.stride + self.field + self.margin
            x = _gelu(self.norms[0](self.first(padded[:, start * self.stride : end], fitted)))
            for convolution, norm in zip(self.rest, self.norms[1:], strict=True):
                x = _gelu(norm(convolution(x)))
            features[:, start:stop] = x[:, : stop - start]
        return features


def _gelu(x: Tensor) -> Tensor:
    """In place: a new buffer for each of these would cost as much as the function."""
    return torch.ops.aten.gelu_(x)


class PositionalConvolution(nn.Module):
    """A grouped convolution over time, centred, by overlap-save: FFTs of overlapping stretches."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.width, self.groups = conv.kernel_size[0], conv.groups
        filters = conv.weight.unflatten(0, (self.groups, -1)).flip(-1)  # [groups, out, in, width]
        self.spectrum = _copy(torch.fft.rfft(filters, self.length).permute(0, 3, 2, 1))  # [groups, bins, in, out]
        self.bias = _copy(conv.bias)

    @property
    def length(self) -> int:
        """Samples of an FFT."""
        return max(FFT_LENGTH, 2 * self.width)

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, frames, dim) -> (batch, frames, dim)]"""
        frames, hop = x.shape[1], self.length - self.width + 1
        stretches = -(-frames // hop)
        before = self.width // 2
        after = stretches * hop + self.width - 1 - frames - before
        x = functional.pad(x.mT, (before, after)).unfold(2, self.length, hop)  # [batch, dim, stretches, length]
        spectrum = torch.fft.rfft(x).unflatten(1, (self.groups, -1))
        product = torch.einsum("bgisf,gfio->bgosf", spectrum, self.spectrum)
        # The first samples of a stretch have wrapped around.
        y = torch.fft.irfft(product, self.length)[..., self.width - 1 :].flatten(3).flatten(1, 2)
        return _gelu(y[:, :, :frames].mT + self.bias)


class Block(nn.Module):
    """A Transformer block, with its layer norms after (95M) or before (330M) attention and feed-forward."""

    def __init__(self, layer: Any, heads: int, norm_first: bool, precision: Precision) -> None:
        super().__init__()
        attention, forward = layer.attention, layer.feed_forward
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv = _dense(torch.cat([projection.weight for projection in projections]), None, precision)
        bias = torch.cat([projection.bias for projection in projections]).view(3, 1, heads, 1, -1)
        self.qkv_bias = _copy(bias.to(torch.bfloat16 if precision == "bf16" else torch.float32))
        self.out = _dense(attention.out_proj.weight, attention.out_proj.bias, precision)
        self.wide = _dense(forward.intermediate_dense.weight, forward.intermediate_dense.bias, precision)
        self.narrow = _dense(forward.output_dense.weight, forward.output_dense.bias, precision)
        self.attention_norm, self.forward_norm = Norm(layer.layer_norm), Norm(layer.final_layer_norm)
        self.heads, self.norm_first = heads, norm_first

    def forward(self, x: Tensor) -> Tensor:
        """[shape=(batch, frames, dim) -> (batch, frames, dim)]"""
        if self.norm_first:
            x = x + self.attend(self.attention_norm(x))
            return x + self.feed_forward(self.forward_norm(x))
        x = self.attention_norm(x + self.attend(x))
        return self.forward_norm(x + self.feed_forward(x))

    def attend(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [3, batch, heads, frames, d]
        qkv = torch.add(heads, self.qkv_bias, out=heads.new_empty(heads.shape))
        attended = functional.scaled_dot_product_attention(*qkv)
        return self.out(attended.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.narrow(_gelu(self.wide(x)))


class MERT(nn.Module):
    """The network up to the highest layer that is asked for, on waves of equal length."""

    @torch.no_grad()
    def __init__(
        self, model: HubertModel, layers: Sequence[int], normalise: bool, final_norm: bool, precision: Precision
    ) -> None:
        """Take the weights of transformers' model.

        Args:
            model: at least max(layers) blocks.
            layers: indices k of the hidden states h[k] whose means are wanted, ascending.
            normalise: each wave to zero mean and unit variance first, as the preprocessor's do_normalize says.
            final_norm: the last layer norm of a pre-norm model applies to h[max(layers)].
            precision: of matrix products.
        """
        super().__init__()
        config = model.config
        encoder, projection = model.encoder, model.feature_projection
        self.layers, self.normalise, self.final_norm = tuple(layers), normalise, final_norm
        self.norm_first = bool(config.do_stable_layer_norm)
        self.front_end = FrontEnd(model.feature_extractor.conv_layers, precision)
        self.feature_norm = Norm(projection.layer_norm) if config.feat_proj_layer_norm else nn.Identity()
        self.projection = Dense(projection.projection.weight, projection.projection.bias)
        self.positions = PositionalConvolution(encoder.pos_conv_embed.conv)
        self.norm = Norm(encoder.layer_norm)
        self.blocks = nn.ModuleList(
            Block(layer, config.num_attention_heads, self.norm_first, precision)
            for layer in encoder.layers[: max(layers)]
        )
        self.eval().requires_grad_(False)

    def forward(self, waves: Tensor) -> Tensor:
        """Time means of the hidden states asked for.

        Args:
            waves: at 24 kHz [shape=(batch, n), n at least 400].

        Returns:
            [shape=(batch, layers, dim)]
        """
        states = enumerate(self.hidden_states(waves))
        return torch.stack([state.mean(dim=1) for number, state in states if number in self.layers], dim=1)

    def hidden_states(self, waves: Tensor) -> Iterator[Tensor]:
        """h[0], h[1], ... up to the highest layer [shape=(batch, frames, dim) each]."""
        if self.normalise:  # as the Wav2Vec2 feature extractor does: population variance
            variance, mean = torch.var_mean(waves, dim=1, correction=0, keepdim=True)
            waves = (waves - mean) / (variance + 1e-7).sqrt()
        x = self.projection(self.feature_norm(self.front_end(waves)))
        x = x + self.positions(x)
        if not self.norm_first:
            x = self.norm(x)
        yield x
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            yield self.norm(x) if self.final_norm and number == len(self.blocks) else x
