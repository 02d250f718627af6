"""Several writers, packers and readers on one cache."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import crash
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import FeatureCache, FeatureWriter
from m2e.cache.care import pack as packing
from m2e.cache.folders import feature_files, features_folder

Rounds = Callable[[int, int], int]


def test_readers_miss_nothing_while_others_write_and_pack(tmp_path: Path, rounds: Rounds) -> None:
    found = crash.run("scans", tmp_path, rounds(20, 250))
    assert found["committed"] > 0
    assert found["read"] > 0
    assert found["missing"] == 0


def test_any_number_of_writers_in_any_order_gives_the_same_bytes(tmp_path: Path, rounds: Rounds) -> None:
    packed = {crash.run("writers", tmp_path / str(turn), turn % 5 + 1, turn) for turn in range(rounds(3, 40))}
    assert len(packed) == 1


@pytest.mark.parametrize("value", [np.nan, -np.inf, 7e4])
def test_a_track_that_float16_cannot_hold_fails_alone(tmp_path: Path, value: float) -> None:
    with FeatureWriter(tmp_path, CONFIG) as writer:
        for i in range(5):
            track = random_track(f"t{i}", seed=i)
            if i == 2:  # after the check that every track makes of itself
                track.embeddings[0, 0, 0] = value
                with pytest.raises(ValueError, match=r"'t2'.*float16"):
                    writer.add(track)
            else:
                writer.add(track)
    index = packing.scan(features_folder(tmp_path, CONFIG), CONFIG).index
    assert index["id"].tolist() == [b"t0", b"t1", b"t3", b"t4"]


def test_means_over_spans_are_those_of_float64(tmp_path: Path) -> None:
    """Within 1e-5 of the standard deviation, from float16 on disk to the trainer's running sums."""
    import torch

    from m2e.train.learning.spans import prefix_sums, span_means

    labels = make_labels("deam", "D", 5)
    make_cache(tmp_path / "deam", labels, dim=64)
    with FeatureWriter(tmp_path / "deam", CONFIG) as writer:
        writer.add(random_track("long", seed=1, segments=240, dim=64))
    table = FeatureCache.open(tmp_path / "deam").load()
    flat = table.embeddings.reshape(len(table.embeddings), -1)
    sums = torch.from_numpy(prefix_sums(flat, table.first))
    rng = random.Random(0)
    for _ in range(200):
        i = rng.randrange(len(table.track_ids))
        n = int(table.first[i + 1] - table.first[i])
        start = rng.randrange(n)
        stop = rng.randrange(start + 1, n + 1)
        base = torch.tensor([int(table.first[i]) + i])
        mean = span_means(sums, base, torch.tensor([start]), torch.tensor([stop]))[0].numpy()
        exact = flat[table.first[i] + start : table.first[i] + stop].astype(np.float64).mean(axis=0)
        assert np.abs(mean - exact).max() < 1e-5 * flat.astype(np.float64).std()


def test_files_are_named_by_their_content(tmp_path: Path) -> None:
    import hashlib

    make_cache(tmp_path / "deam", make_labels("deam", "D", 70))
    for path in feature_files(features_folder(tmp_path / "deam", CONFIG)):
        assert path.name == f"shard-{hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()}.h5"
