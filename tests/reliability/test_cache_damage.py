"""Flipped bytes and cut files: always found, never read as if nothing were wrong."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels

from m2e.cache import DataError, FeatureCache, FeatureTable
from m2e.cache.care import pack as packing
from m2e.cache.care.pack import pack
from m2e.cache.care.verify import verify
from m2e.cache.folders import LABELS_FILE, feature_files, features_folder
from m2e.cache.labels import read_labels
from m2e.common.files import is_intact

Rounds = Callable[[int, int], int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packs and shards."""
    monkeypatch.setattr(packing, "PACK_TRACKS", 16)
    make_cache(tmp_path / "deam", make_labels("deam", "D", 40))
    pack(features_folder(tmp_path / "deam", CONFIG))
    return make_cache(tmp_path / "deam", make_labels("deam", "D", 50))


def same(table: FeatureTable, other: FeatureTable) -> bool:
    names = ("embeddings", "first", "chord_records", "first_chord", "key_tonic", "key_mode")
    return table.track_ids == other.track_ids and all(
        np.array_equal(getattr(table, name), getattr(other, name)) for name in names
    )


def test_flips_and_cuts_are_found(folder: Path, rounds: Rounds) -> None:
    rng = random.Random(0)
    features = features_folder(folder, CONFIG)
    whole = FeatureCache.open(folder).load()
    flips, cuts = rounds(30, 500), rounds(10, 150)
    found = silent = 0
    for turn in range(flips + cuts):
        path = rng.choice(feature_files(features))
        content = path.read_bytes()
        damaged = bytearray(content)
        if turn < flips:
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        else:
            damaged = damaged[: rng.randrange(len(damaged))]
        path.write_bytes(damaged)
        found += [damage.path for damage in verify(features)] == [path]
        with contextlib.suppress(DataError):
            silent += not same(FeatureCache.open(folder).load(), whole)
        path.write_bytes(content)
    print(f"{flips} flips, {cuts} cuts: {found} found, {silent} silent on loading")
    assert (found, silent) == (flips + cuts, 0)
    assert all(map(is_intact, feature_files(features)))


def test_flips_in_labels_are_found(folder: Path, rounds: Rounds) -> None:
    rng = random.Random(1)
    path = folder / LABELS_FILE
    content, whole = path.read_bytes(), read_labels(folder)
    for _ in range(rounds(50, 500)):
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            labels = read_labels(folder)
        except DataError:
            continue
        # A byte that no dataset uses.
        assert labels.track_ids == whole.track_ids
        assert labels.splits == whole.splits
        np.testing.assert_array_equal(labels.valence_arousal, whole.valence_arousal)
