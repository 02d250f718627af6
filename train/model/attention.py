"""Attention of the chord transformer over tracks of different lengths, without padding (Vaswani et al. 2017, eq. 1).

Tokens
------
The tokens of B tracks with C chords together are B + C rows: the CLS of every track first, then all chords, track after
track. `first` says where each track's chords begin among the C, and the end [shape=(B + 1,)]. A track's CLS and chords
attend to each other, and to no one else's. Queries are all B + C tokens, or the B CLS alone.

Dropout
-------
Of a track with n tokens, key j (the CLS is 0, chord i is i + 1) goes with key j + m, m = `half_of`(n). For the query of
row r in head h, `hash32` of ``(r * heads + h) * longest + j`` decides both: j's weight is dropped where its low 16 bits
fall below the rate, that of j + m where its high 16 bits do. Nothing random is stored for the backward pass, and every
way to compute attention drops the same weights. The seed of each call comes from torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# (queries, keys, values [shape=(rows, dim) each], first, heads, dropout) to [shape=(queries, dim)]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]

# Multiples of it walk through all 32-bit numbers (2^32 over the golden ratio).
WEYL = 0x9E3779B9
# Finaliser of MurmurHash3 (Appleby, public domain).
MIX = (0x85EBCA6B, 0xC2B2AE35)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, first: Tensor, heads: int, dropout: float) -> Tensor:
    """Attention in plain torch, on any device; pads the tracks to the longest.

    Args:
        q: queries of all tokens or of the B CLS [shape=(B + C, dim) or (B, dim)].
        k, v: keys and values of all tokens [shape=(B + C, dim)].
        first: see above, on the CPU.
        heads: divides dim.
        dropout: share of attention weights that are dropped; 0 outside training.
    """
    tracks = len(first) - 1
    longest = 1 + max(first.diff().tolist(), default=0)
    place = torch.arange(longest)
    chord = first[:-1, None] + place - 1
    real = place <= first.diff()[:, None]  # (B, S); a track's CLS is always there
    rows = torch.where(place == 0, torch.arange(tracks)[:, None], tracks + chord).where(real, 0).to(q.device)
    real = real.to(q.device)
    asking = rows if len(q) > tracks else rows[:, :1]  # (B, Q)

    def split(values: Tensor, wanted: Tensor) -> Tensor:
        return (
            values[wanted].reshape(*wanted.shape, heads, values.shape[1] // heads).transpose(1, 2)
        )  # (B, H, tokens, D)

    queries, keys, values = split(q, asking), split(k, rows), split(v, rows)
    if dropout:
        scores = queries @ keys.transpose(2, 3) * keys.shape[3] ** -0.5
        weights = scores.masked_fill(~real[:, None, None], -torch.inf).softmax(dim=3)
        half = half_of(first.diff() + 1)[:, None]
        place, high = (x.to(q.device)[:, None, None] for x in (place % half, place >= half))  # (B, 1, 1, S)
        number = (asking[:, None, :, None] * heads + torch.arange(heads, device=q.device)[:, None, None]) * longest
        kept = (hash32(number + place, draw_seed()) >> 16 * high) & 0xFFFF >= threshold(dropout)
        attended = (weights * kept / (1 - dropout)) @ values
    else:
        attended = F.scaled_dot_product_attention(queries, keys, values, real[:, None, None])
    attended = attended.transpose(1, 2).flatten(2)  # (B, Q, dim)
    if len(q) == tracks:
        return attended[:, 0]
    return torch.cat([attended[:, 0], attended[:, 1:][real[:, 1:]]])


def padded_attention(q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, heads: int, dropout: float) -> Tensor:
    """Attention over tracks that are padded to one length, by torch's own kernels and with their dropout.

    Args:
        q: queries [shape=(B, Q, dim)].
        k, v: keys and values [shape=(B, S, dim)].
        real: which keys are no padding [shape=(B, S)]; None: all of them.
        heads, dropout: as in `plain_attention`.
    """

    def split(values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], heads, -1).transpose(1, 2)  # (B, H, tokens, D)

    mask = None if real is None else real[:, None, None]
    return F.scaled_dot_product_attention(split(q), split(k), split(v), mask, dropout).transpose(1, 2).flatten(2)


def draw_seed() -> int:
    """32 random bits from torch's default generator."""
    return int(torch.randint(2**32, ()))


def threshold(rate: float) -> int:
    """What of 16 random bits lies below it is dropped."""
    return round(rate * 2**16)


def half_of(n: Tensor) -> Tensor:
    """Half of a number of keys, which is first rounded up to a multiple of 16."""
    return (n + 15) // 16 * 8


def hash32(number: Tensor, seed: int) -> Tensor:
    """A random-looking number, 0 to 2^32 - 1, for each whole number of `number` [dtype=int64]."""
    low = 2**32 - 1
    x = (number * WEYL + seed) & low
    x = ((x ^ (x >> 16)) * MIX[0]) & low
    x = ((x ^ (x >> 13)) * MIX[1]) & low
    return x ^ (x >> 16)
