"""Caches that tests make themselves: random features through the ordinary writer."""

from pathlib import Path

import numpy as np

from m2e.cache import ChordSequence, ExtractionConfig, FeatureWriter, Key, Labels, TrackFeatures, write_labels

CONFIG = ExtractionConfig(encoder="test", encoder_revision="0" * 40, chords="template")


def random_chords(rng: np.random.Generator, n: int) -> ChordSequence:
    """`n` chords of .5 s or more, a tenth of them N."""
    ends = np.cumsum(rng.uniform(0.5, 2, n))
    root, quality = rng.integers(0, 12, n), rng.integers(0, 14, n)
    silent = rng.uniform(size=n) < 0.1
    return ChordSequence(
        np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
        np.where(silent, -1, root),
        np.where(silent, -1, quality),
    )


def random_track(track_id: str, seed: int = 0, segments: int = 3, layers: int = 3, dim: int = 8) -> TrackFeatures:
    """A track with random features."""
    rng = np.random.default_rng(seed)
    return TrackFeatures(
        track_id=track_id,
        embeddings=rng.normal(size=(segments, layers, dim)).astype(np.float32),
        chords=random_chords(rng, 12),
        key=Key(int(rng.integers(12)), "minor" if seed % 2 else "major") if seed % 5 else None,
        duration=30.0 * segments + 1,
        audio_sha256=rng.bytes(32),
        audio_bytes=1000 + seed,
    )


def make_labels(
    dataset: str, letter: str, n: int, tag_names: tuple[str, ...] = (), seed: int = 0, prefix: str = "t"
) -> Labels:
    """Random labels: tags where `tag_names` are given, else valence and arousal; splits 60/20/20 in turn."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"{prefix}{i:04d}" for i in range(n))
    return Labels(
        dataset=dataset,
        letter=letter,
        track_ids=ids,
        splits=tuple(("train", "train", "train", "validation", "test")[i % 5] for i in range(n)),
        tag_names=tag_names,
        tags=(rng.uniform(size=(n, len(tag_names))) < 0.3).astype(np.uint8),
        valence_arousal=(np.full((n, 2), np.nan) if tag_names else rng.uniform(1, 9, (n, 2))).astype(np.float32),
        clip_group=tuple(f"{dataset}/{track_id}" for track_id in ids),
        artist=("",) * n,
        provenance=f"random labels of {dataset}",
    )


def make_cache(
    folder: Path,
    labels: Labels,
    config: ExtractionConfig = CONFIG,
    dim: int = 8,
    signal: float = 0.0,
    segments: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a cache whose embeddings carry the labels with strength `signal` (0: noise alone); tracks have `segments`,
    or 1 to 4 in turn, and audio that depends on `seed`."""
    targets = np.nan_to_num(np.concatenate([labels.tags, (labels.valence_arousal - 5) / 2], axis=1))
    mixing = np.random.default_rng(7).normal(size=(targets.shape[1], len(config.layers) * dim))
    write_labels(folder, labels)
    with FeatureWriter(folder, config) as writer:
        for i, track_id in enumerate(labels.track_ids):
            n = segments or 1 + i % 4
            track = random_track(track_id, seed=seed + i, segments=n, layers=len(config.layers), dim=dim)
            pull = signal * (targets[i] @ mixing).reshape(len(config.layers), dim)
            object.__setattr__(track, "embeddings", (track.embeddings + pull).astype(np.float32))
            writer.add(track)
    return folder
