"""Which segments of a track are averaged into one training example (paper IV-B), and their means.

A span is half-open, in segments. "paper" draws the start from {0..n-1} and then the length from {1..n-start}, so that
P(span) = 1 / (n (n - start)): late starts give short spans. "uniform" makes all n (n + 1) / 2 spans equally likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def spans_from(first: Tensor, second: Tensor, n_segments: Tensor, law: str) -> tuple[Tensor, Tensor]:
    """Starts and stops of one span a track.

    Args:
        first, second: uniform on [0, 1), float64 [any shape, all the same].
        n_segments: of each track.
        law: "paper" or "uniform".
    """
    if law == "paper":
        start = (first * n_segments).long()
        return start, start + 1 + (second * (n_segments - start)).long()
    # Two different bounds among the n + 1: every pair is a span, and every pair is equally likely.
    one = (first * (n_segments + 1)).long()
    other = (second * n_segments).long()
    other += other >= one
    return torch.minimum(one, other), torch.maximum(one, other)


def prefix_sums(
    segments: NDArray[np.float16], first: NDArray[np.int64], layers: Sequence[int] | slice = slice(None)
) -> NDArray[np.float32]:
    """Running sums of each track's segment features, from zero on.

    Args:
        segments: of all tracks, one after the other [shape=(S, width) or (S, layers, dim)].
        first: where each track begins, and the end [shape=(N + 1,)].
        layers: which make the feature, in this order; copied track by track, for all at once are many.

    Returns:
        Track i's sums begin at row ``first[i] + i`` [shape=(S + N, width)].
    """
    n = len(first) - 1
    sums = np.zeros((len(segments) + n, math.prod(segments[:0, layers].shape[1:])), np.float32)
    for i in range(n):
        # Per track, not over all: a sum over thousands of tracks would lose the digits of one.
        track = segments[first[i] : first[i + 1], layers].reshape(first[i + 1] - first[i], -1)
        np.cumsum(track, axis=0, dtype=np.float32, out=sums[first[i] + i + 1 : first[i + 1] + i + 1])
    return sums


def span_means(sums: Tensor, base: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Mean feature of each span [shape=(B, width)]; `base` is the first row of each track in `sums`."""
    count = (stop - start).to(sums.dtype)
    return (sums[base + stop] - sums[base + start]) / count[:, None]
