"""BTC, a bi-directional transformer for chord recognition, with the large vocabulary of 170 chords.

J. Park, K. Choi, S. Jeon, D. Kim, J. Park, "A Bi-Directional Transformer for Musical Chord Recognition", ISMIR 2019;
weights from jayg996/BTC-ISMIR19. Module names are those of the published checkpoint, so that it loads strictly.

A frame lasts 10/108 s. The constant-Q transform is taken of consecutive 10 s chunks, 108 frames each, and of what
remains; the network reads 108 frames at a time, and what it says of one such instance depends on no other.
"""

from __future__ import annotations

import _codecs
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m2e.cache.harmony import N_CHORD_CLASSES, ChordSequence, chord_from_class
from m2e.common.errors import DataError
from m2e.common.float32 import float32_products
from m2e.extract.audio.sound import Sound, rechunked
from m2e.extract.chords.cqt import C1, constant_q
from m2e.extract.chords.recogniser import SAMPLE_RATE

CHUNK_SAMPLES = 10 * SAMPLE_RATE
CHUNK_FRAMES = 108
HOP = 2_048
OCTAVES = 6
BINS_PER_OCTAVE = 24
N_BINS = OCTAVES * BINS_PER_OCTAVE
WIDTH = 128
N_HEADS = 4
N_LAYERS = 8
# Part of every published file, used by no forward pass.
UNUSED = "output_layer.lstm."
# Instances in one pass: more gain nothing on a CPU, whose caches they leave.
BATCH = 12


def cqt_features(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log magnitudes log(|C| + 1e-6) of a mono wave at 22,050 Hz [shape=(144, frames)]."""
    chunks = [wave[start : start + CHUNK_SAMPLES] for start in range(0, len(wave), CHUNK_SAMPLES)]
    magnitudes = [constant_q(chunk, SAMPLE_RATE, HOP, C1, OCTAVES, BINS_PER_OCTAVE) for chunk in chunks]
    return np.log(np.concatenate(magnitudes, axis=1) + np.float32(1e-6))


class LayerNorm(nn.Module):
    """Layer normalisation by the unbiased deviation, to which (not to the variance) epsilon is added."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))
        self.beta = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        # x.std says the same, in several times the time.
        deviation = (centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)).sqrt()
        return self.gamma * centred / (deviation + 1e-6) + self.beta


class MultiHeadAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_linear = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key_linear = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value_linear = nn.Linear(WIDTH, WIDTH, bias=False)
        self.output_linear = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            """[shape=(batch, heads, frames, width / heads)]"""
            return projected.view(*projected.shape[:2], N_HEADS, -1).transpose(1, 2)

        attended = nn.functional.scaled_dot_product_attention(
            heads(self.query_linear(x)), heads(self.key_linear(x)), heads(self.value_linear(x)), attn_mask=allowed
        )
        return self.output_linear(attended.transpose(1, 2).flatten(-2))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class PositionwiseConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Convolution(), Convolution())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm self-attention in one direction, then convolutions over neighbouring frames."""

    def __init__(self) -> None:
        super().__init__()
        self.multi_head_attention = MultiHeadAttention()
        self.positionwise_convolution = PositionwiseConvolution()
        self.layer_norm_mha = LayerNorm()
        self.layer_norm_ffn = LayerNorm()

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        x = x + self.multi_head_attention(self.layer_norm_mha(x), allowed)
        return x + self.positionwise_convolution(self.layer_norm_ffn(x))


class BidirectionalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn_block = Block()
        self.backward_attn_block = Block()
        self.linear = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return self.linear(torch.cat([self.attn_block(x, past), self.backward_attn_block(x, past.T)], dim=-1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding_proj = nn.Linear(N_BINS, WIDTH, bias=False)
        self.self_attn_layers = nn.ModuleList(BidirectionalLayer() for _ in range(N_LAYERS))
        self.layer_norm = LayerNorm()

    def forward(self, x: Tensor) -> Tensor:
        n_frames = x.shape[1]
        x = self.embedding_proj(x) + timing_signal(n_frames).to(x.device)
        # Row t may look at column s: at s <= t here, at s >= t in the transpose; at itself in both.
        past = torch.ones(n_frames, n_frames, dtype=torch.bool, device=x.device).tril()
        for layer in self.self_attn_layers:
            x = layer(x, past)
        return self.layer_norm(x)


class Output(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output_projection = nn.Linear(WIDTH, N_CHORD_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_projection(x)


class BTC(nn.Module):
    """Normalised features (batch, frames, 144) to logits of the 170 chord classes (batch, frames, 170)."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn_layers = Encoder()
        self.output_layer = Output()

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(self.self_attn_layers(x))


def timing_signal(n_frames: int) -> Tensor:
    """64 sines, then 64 cosines, of timescales from 1 to 10,000 frames [shape=(frames, 128)]."""
    n_scales = WIDTH // 2
    rates = torch.exp(torch.arange(n_scales) * (-math.log(1e4) / (n_scales - 1)))
    angles = torch.arange(n_frames)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class BTCRecogniser:
    """Chords by BTC with the weights of one checkpoint.

    Raises:
        DataError: `checkpoint` is not a readable file of the published form.
    """

    name = "btc"

    def __init__(self, checkpoint: Path, revision: str, device: str = "cpu") -> None:
        self.revision = revision
        self.device = device
        self.model, self.mean, self.std = load_checkpoint(checkpoint)
        self.model.to(device)

    def __call__(self, sound: Sound) -> ChordSequence:
        """Chords of a mono sound at 22,050 Hz; the last one ends with the sound at the latest."""
        classes: list[int] = []
        for part in rechunked(sound, BATCH * CHUNK_SAMPLES):
            classes += self._classes([cqt_features(part)])[0]
        return _chords(classes, len(sound) / SAMPLE_RATE)

    def recognise(self, features: Sequence[NDArray[np.float32]], durations: Sequence[float]) -> list[ChordSequence]:
        """Chords of several tracks at once.

        Args:
            features: of each track, as `cqt_features` makes them [shape=(144, frames)].
            durations: of each track, seconds; its last chord ends there at the latest.
        """
        return [_chords(*track) for track in zip(self._classes(features), durations, strict=True)]

    def _classes(self, features: Sequence[NDArray[np.float32]]) -> list[list[int]]:
        """The likeliest class of each frame of each track."""
        return [logits.argmax(axis=1).tolist() for logits in self.logits(features)]

    def logits(self, features: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Logits [shape=(frames, 170)] of each track's features [shape=(144, frames)]."""
        instances = torch.cat([self._instances(track) for track in features])
        with torch.inference_mode(), float32_products("ieee"):
            batches = [self.model(batch.to(self.device)).cpu() for batch in torch.split(instances, BATCH)]
        n_frames = [track.shape[1] for track in features]
        padded = [-(-n // CHUNK_FRAMES) * CHUNK_FRAMES for n in n_frames]
        tracks = torch.split(torch.cat(batches).flatten(0, 1), padded)
        return [logits[:n].numpy() for logits, n in zip(tracks, n_frames, strict=True)]

    def _instances(self, features: NDArray[np.float32]) -> Tensor:
        """The network's inputs for one track [shape=(n, 108, 144)]."""
        frames = (torch.from_numpy(features).T - self.mean) / self.std
        # The zeros come after the normalisation: they stand for its mean.
        padded = nn.functional.pad(frames, (0, 0, 0, -len(frames) % CHUNK_FRAMES))
        return padded.view(-1, CHUNK_FRAMES, N_BINS)


def _chords(classes: Sequence[int], duration: float) -> ChordSequence:
    return ChordSequence.from_frames([chord_from_class(number) for number in classes], 10 / CHUNK_FRAMES, duration)


def load_checkpoint(path: Path) -> tuple[BTC, float, float]:
    """The network of a published checkpoint, and the scalar mean and deviation of its features.

    Raises:
        DataError: the file is missing, is no such checkpoint, or its tensors are not exactly the network's.
    """
    if not path.is_file():
        raise DataError(f"chord checkpoint {path}: no such file")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: tensor for name, tensor in content["model"].items() if not name.startswith(UNUSED)}
        mean, std = float(content["mean"]), float(content["std"])
    except Exception as error:  # torch.load raises nearly anything on a file that is damaged or something else
        raise DataError(
            f"chord checkpoint {path} is not readable as BTC's (a dict with 'model', 'mean' and 'std'; "
            f"{type(error).__name__}): pass the published btc_model_large_voca.pt"
        ) from error
    model = BTC().eval()
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: getattr(tensor, "shape", None) for name, tensor in state.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise DataError(
            f"chord checkpoint {path} is not BTC with 170 chords: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, such as {wrong[0]!r}"
        )
    if not (math.isfinite(mean) and 0 < std < math.inf and all(tensor.isfinite().all() for tensor in state.values())):
        raise DataError(f"chord checkpoint {path} holds a value that is not finite, or a 'std' that is not positive")
    model.load_state_dict(state)
    return model, mean, std


def _numpy_scalars() -> list[Any]:
    """What `weights_only` must admit for numpy scalars, under the names of numpy 1 and of numpy 2."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, *dtypes, _codecs.encode]
