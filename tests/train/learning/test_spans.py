"""Spans follow their law, and their means are means."""

from collections import Counter

import numpy as np
import pytest
import torch

from m2e.train.learning.spans import prefix_sums, span_means, spans_from

DRAWS = 60_000


def draw(n_segments: torch.Tensor, law: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return spans_from(*torch.rand(2, len(n_segments), dtype=torch.float64, generator=generator), n_segments, law)


def frequencies(n: int, law: str) -> dict[tuple[int, int], float]:
    start, stop = draw(torch.full((DRAWS,), n), law, 1)
    return {span: count / DRAWS for span, count in Counter(zip(start.tolist(), stop.tolist(), strict=True)).items()}


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("law", ["paper", "uniform"])
def test_every_span_has_its_probability(n: int, law: str) -> None:
    found = frequencies(n, law)
    spans = [(start, stop) for start in range(n) for stop in range(start + 1, n + 1)]
    assert set(found) == set(spans)
    for start, stop in spans:
        p = 1 / (n * (n - start)) if law == "paper" else 2 / (n * (n + 1))
        assert abs(found[start, stop] - p) < 5 * (p * (1 - p) / DRAWS) ** 0.5 + 1e-12


def test_spans_stay_inside_tracks_of_different_lengths() -> None:
    n = torch.arange(1, 200).repeat(50)
    for law in ("paper", "uniform"):
        start, stop = draw(n, law, 2)
        assert bool((start >= 0).all() & (start < stop).all() & (stop <= n).all())


def test_means_from_prefix_sums_equal_direct_means() -> None:
    rng = np.random.default_rng(0)
    lengths = [1, 7, 3, 130]
    first = np.concatenate([[0], np.cumsum(lengths)])
    embeddings = rng.normal(3, 2, (sum(lengths), 3, 10)).astype(np.float16)
    segments = np.concatenate([embeddings[:, 2], embeddings[:, 0]], axis=1)
    sums = torch.from_numpy(prefix_sums(embeddings, first, [2, 0]))
    base = torch.from_numpy(first[:-1]) + torch.arange(4)
    for _ in range(20):
        rows = torch.from_numpy(rng.integers(0, 4, 6))
        start, stop = draw(torch.tensor(lengths)[rows], "uniform", 3)
        means = span_means(sums, base[rows], start, stop)
        for i, row in enumerate(rows.tolist()):
            direct = segments[first[row] + int(start[i]) : first[row] + int(stop[i])].astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(means[i], direct, atol=2e-6 * max(lengths) ** 0.5)
