"""Loading a data set for training: our cache beside one .npy file a segment, the way of the paper's released code.

    python benchmarks/cache.py [--tracks 2000] [--segments 8]

Both hold the same random features of 3 x 768 numbers a segment, in a temporary folder, and are read with warm file
system caches; what counts is the ratio in one run, not the seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from m2e.cache import ChordSequence, ExtractionConfig, FeatureCache, FeatureWriter, Labels, TrackFeatures, write_labels


def seconds(action: Callable[[], object], repeats: int = 3) -> float:
    """Best of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


@click.command()
@click.option("--tracks", default=2000, show_default=True)
@click.option("--segments", default=8, show_default=True, help="A track.")
def main(tracks: int, segments: int) -> None:
    """Print seconds to load all features, both ways, and the ratio."""
    rng = np.random.default_rng(0)
    ids = tuple(f"t{i:06d}" for i in range(tracks))
    chords = ChordSequence.from_labels([(0, 1)], ["C"])
    with tempfile.TemporaryDirectory() as name:
        ours, plain = Path(name, "ours"), Path(name, "plain")
        labels = Labels(
            dataset="benchmark",
            letter="",
            track_ids=ids,
            splits=("train",) * tracks,
            tag_names=(),
            tags=np.zeros((tracks, 0), np.uint8),
            valence_arousal=np.full((tracks, 2), 5, np.float32),
            clip_group=ids,
            artist=("",) * tracks,
            provenance="random",
        )
        write_labels(ours, labels)
        plain.mkdir()
        config = ExtractionConfig(encoder="benchmark", encoder_revision="none", chords="template")
        with FeatureWriter(ours, config) as writer:
            for track_id in ids:
                features = rng.standard_normal((segments, 3, 768), np.float32)
                writer.add(TrackFeatures(track_id, features, chords, None, 30.0 * segments, bytes(32), 1))
                for i, segment in enumerate(features):
                    np.save(plain / f"{track_id}_{i}.npy", segment)

        def load_plain() -> list[np.ndarray]:
            return [np.load(plain / f"{track_id}_{i}.npy") for track_id in ids for i in range(segments)]

        def load_ours() -> np.ndarray:
            return FeatureCache.open(ours).load().embeddings.astype(np.float32)

        by_file, by_cache = seconds(load_plain), seconds(load_ours)
        size = [sum(path.stat().st_size for path in folder.rglob("*.*")) / 1e6 for folder in (plain, ours)]
    click.echo(f"{tracks} tracks, {tracks * segments} segments of 3 x 768")
    click.echo(f"one .npy a segment, float32: {by_file:.2f} s, {size[0]:.0f} MB")
    click.echo(f"m2e's cache, float16, digests checked, to float32: {by_cache:.2f} s, {size[1]:.0f} MB")
    click.echo(f"ratio: {by_file / by_cache:.1f} times faster, {size[0] / size[1]:.1f} times smaller")


if __name__ == "__main__":
    main()
