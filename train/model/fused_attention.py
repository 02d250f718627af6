"""The attention of `m2e.train.model.attention` in one compiled pass on the CPU: scores are never stored.

torch's own kernels are made for heads of 64 or more; the released chord transformer has heads of 1. Here the inner
loops run over the keys, which the compiler turns into vector instructions. The forward pass keeps the log of each
softmax sum; the backward pass computes the weights again (Dao et al. 2022).

Serial, and compiled anew in every process: numba's files on disk break when two processes write them at once (numba
issue 10128), and compiling takes a few seconds.
"""

# The kernels' types are numba's, which stand in their signatures.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from m2e.train.model.attention import MIX, WEYL, draw_seed, threshold

# Keys are padded to a multiple of it, so that no loop has a remainder; `half_of` counts on it.
_LANES = 16
_FAR = np.float32(-1e30)
# Scores that are known to lie closer to 0 need no maximum: it takes longer to find than their exponentials.
_SMALL = np.float32(8)
_U = np.uint32
_LOG2_E = np.float32(1 / math.log(2))
# Taylor coefficients of 2^x, x in [-1/2, 1/2]: the relative error is 6e-9, a tenth of float32's.
_EXP2 = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))


def fused_attention(q: Tensor, k: Tensor, v: Tensor, first: Tensor, heads: int, dropout: float) -> Tensor:
    """As `plain_attention`, for float32 on the CPU."""
    result: Tensor = _Fused.apply(q, k, v, first, heads, dropout)
    return result


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, first: Tensor, heads: int, dropout: float) -> Tensor:
        forward, _ = _kernels(q.shape[1] // heads)
        seed = draw_seed() if dropout else 0
        out, log_sum = torch.empty(q.shape), torch.empty(len(q), heads)
        setting = (heads, np.uint32(threshold(dropout)), np.float32(1 / (1 - dropout)), np.uint32(seed))
        forward(*(x.detach().numpy() for x in (q, k, v, first)), *setting, out.numpy(), log_sum.numpy())
        ctx.save_for_backward(q, k, v, first, out, log_sum)
        ctx.setting = setting
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, first, out, log_sum = ctx.saved_tensors
        _, backward = _kernels(q.shape[1] // ctx.setting[0])
        dq, dk, dv = torch.empty(q.shape), torch.empty(k.shape), torch.empty(v.shape)
        given = (q, k, v, first)
        results = (out, log_sum, gradient.contiguous(), dq, dk, dv)
        backward(*(x.detach().numpy() for x in given), *ctx.setting, *(x.numpy() for x in results))
        return dq, dk, dv, None, None, None


@lru_cache
def _kernels(dim: int) -> tuple[Any, Any]:
    """Forward and backward pass for heads of `dim`, a constant to the compiler."""
    options = {"fastmath": True, "error_model": "numpy"}
    compiled = numba.njit(**options)
    read, written = "f4[:, :]", "f4[:, ::1]"
    given = f"{read}, {read}, {read}, i8[::1], i8, u4, f4, u4"
    scale = np.float32(dim**-0.5)

    @compiled
    def gather(x, first, b, h, into, reach):
        """Column block h of track b's tokens, transposed [shape=(dim, keys)], and the largest size in each row."""
        tracks = len(first) - 1
        for d in range(dim):
            into[d, 0] = x[b, h * dim + d]
            for j in range(first[b], first[b + 1]):
                into[d, 1 + j - first[b]] = x[tracks + j, h * dim + d]
            into[d, 1 + first[b + 1] - first[b] :] = 0
            reach[d] = np.abs(into[d]).max()

    @compiled
    def exponentials(q, row, h, keys, reach, n, padded, shift, e, power, fold):
        """exp(scores - shift) as e times the powers of two whose bits are in `power`. Without a shift it is the scores'
        maximum, or a bound near it. Returns the shift."""
        a = q[row, h * dim] * scale
        bound = abs(a) * reach[0]
        for j in range(padded):
            e[j] = a * keys[0, j]
        for d in range(1, dim):
            a = q[row, h * dim + d] * scale
            bound += abs(a) * reach[d]
            for j in range(padded):
                e[j] += a * keys[d, j]
        for j in range(n, padded):
            e[j] = _FAR
        if shift is None and bound < _SMALL:
            top = bound
        elif shift is None:
            width = padded // 2
            for j in range(width):
                fold[j] = max(e[j], e[width + j])
            while width % 2 == 0:
                width //= 2
                for j in range(width):
                    fold[j] = max(fold[j], fold[width + j])
            top = fold[0]
            for j in range(1, width):
                top = max(top, fold[j])
        else:
            top = shift
        for j in range(padded):
            x = max((e[j] - top) * _LOG2_E, np.float32(-60))
            whole = np.int32(x - np.float32(0.5))
            x -= np.float32(whole)
            y = _EXP2[7]
            y = y * x + _EXP2[6]
            y = y * x + _EXP2[5]
            y = y * x + _EXP2[4]
            y = y * x + _EXP2[3]
            y = y * x + _EXP2[2]
            y = y * x + _EXP2[1]
            y = y * x + _EXP2[0]
            e[j] = y
            power[j] = (whole + np.int32(127)) << np.int32(23)
        for j in range(n, padded):
            e[j] = np.float32(0)
        return top

    @compiled
    def draw(number, half, seed, limit, boost, used):
        """used = boost where the weight is kept, else 0."""
        for j in range(half):
            x = _U(_U(number + _U(j)) * _U(WEYL) + seed)
            x = _U(_U(x ^ _U(x >> _U(16))) * _U(MIX[0]))
            x = _U(_U(x ^ _U(x >> _U(13))) * _U(MIX[1]))
            x = _U(x ^ _U(x >> _U(16)))
            used[j] = boost if _U(x & _U(0xFFFF)) >= limit else np.float32(0)
            used[half + j] = boost if _U(x >> _U(16)) >= limit else np.float32(0)

    @numba.njit(f"void({given}, {written}, {written})", **options)
    def forward(q, k, v, first, heads, limit, boost, seed, out, log_sum):
        tracks = len(first) - 1
        longest = 1
        for b in range(tracks):
            longest = max(longest, 1 + first[b + 1] - first[b])
        size = (longest + _LANES - 1) // _LANES * _LANES
        keys, values = np.empty((dim, size), np.float32), np.empty((dim, size), np.float32)
        e, used, power = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.int32)
        fold, reach, unused = np.empty(size // 2, np.float32), np.empty(dim, np.float32), np.empty(dim, np.float32)
        two_to = power.view(np.float32)
        for b in range(tracks):
            n = 1 + first[b + 1] - first[b]
            padded = (n + _LANES - 1) // _LANES * _LANES
            for h in range(heads):
                gather(k, first, b, h, keys, reach)
                gather(v, first, b, h, values, unused)
                for i in range(n if len(q) > tracks else 1):
                    row = b if i == 0 else tracks + first[b] + i - 1
                    top = exponentials(q, row, h, keys, reach, n, padded, None, e, power, fold)
                    total = np.float32(0)
                    for j in range(padded):
                        e[j] *= two_to[j]
                        total += e[j]
                    if limit:
                        draw(_U((row * heads + h) * longest), padded // 2, seed, limit, boost / total, used)
                        for j in range(padded):
                            e[j] *= used[j]
                    else:
                        for j in range(padded):
                            e[j] *= boost / total
                    for d in range(dim):
                        mean = np.float32(0)
                        for j in range(padded):
                            mean += e[j] * values[d, j]
                        out[row, h * dim + d] = mean
                    log_sum[row, h] = top + np.log(total)

    @numba.njit(f"void({given}{f', {written}' * 6})", **options)
    def backward(q, k, v, first, heads, limit, boost, seed, out, log_sum, gradient, dq, dk, dv):
        tracks = len(first) - 1
        longest = 1
        for b in range(tracks):
            longest = max(longest, 1 + first[b + 1] - first[b])
        size = (longest + _LANES - 1) // _LANES * _LANES
        keys, values = np.empty((dim, size), np.float32), np.empty((dim, size), np.float32)
        d_keys, d_values = np.empty((dim, size), np.float32), np.empty((dim, size), np.float32)
        p, power = np.empty(size, np.float32), np.empty(size, np.int32)
        fold, reach, unused = np.empty(size // 2, np.float32), np.empty(dim, np.float32), np.empty(dim, np.float32)
        two_to = power.view(np.float32)
        used, ds = np.empty(size, np.float32), np.empty(size, np.float32)
        for b in range(tracks):
            n = 1 + first[b + 1] - first[b]
            padded = (n + _LANES - 1) // _LANES * _LANES
            for h in range(heads):
                gather(k, first, b, h, keys, reach)
                gather(v, first, b, h, values, unused)
                d_keys[:] = 0
                d_values[:] = 0
                for i in range(n if len(q) > tracks else 1):
                    row = b if i == 0 else tracks + first[b] + i - 1
                    exponentials(q, row, h, keys, reach, n, padded, log_sum[row, h], p, power, fold)
                    draw(_U((row * heads + h) * longest), padded // 2, seed, limit, boost, used)
                    for j in range(padded):
                        p[j] *= two_to[j]
                        ds[j] = np.float32(0)
                    mean = np.float32(0)
                    for d in range(dim):
                        g = gradient[row, h * dim + d]
                        mean += g * out[row, h * dim + d]
                        for j in range(padded):
                            ds[j] += g * values[d, j]
                            d_values[d, j] += g * p[j] * used[j]
                    for j in range(padded):
                        ds[j] = p[j] * (ds[j] * used[j] - mean) * scale
                    for d in range(dim):
                        a = q[row, h * dim + d]
                        total = np.float32(0)
                        for j in range(padded):
                            total += ds[j] * keys[d, j]
                            d_keys[d, j] += a * ds[j]
                        dq[row, h * dim + d] = total
                for d in range(dim):
                    dk[b, h * dim + d] = d_keys[d, 0]
                    dv[b, h * dim + d] = d_values[d, 0]
                    for j in range(n - 1):
                        dk[tracks + first[b] + j, h * dim + d] = d_keys[d, 1 + j]
                        dv[tracks + first[b] + j, h * dim + d] = d_values[d, 1 + j]

    return forward, backward
