"""Loading and scanning a data set's cache, beside the plain ways.

    python benchmarks/cache.py [--tracks 18486] [--segments 150000]

1. Loading: our packs, every record checked, against one plain .npy of the same bytes, and against HDF5 with a group a
   track, which is read with the same numbers of chords. Random features of 3 x 768 float16 a segment, files in the
   file system's cache, readers in turn; the ratio in one run counts, not the seconds.
2. Finding out that there is nothing to do: a scan of the same cache.
3. A scan of a simulated index of --simulated tracks in as many packs, with no features behind it.

Each reader runs in a process of its own, whose peak memory is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import h5py
import numpy as np

from m2e.cache import ChordSequence, ExtractionConfig, FeatureCache, FeatureWriter, Labels, TrackFeatures, write_labels
from m2e.cache.care.pack import PACK_TRACKS, pack
from m2e.cache.catalogue import scan
from m2e.cache.folders import features_folder, write_config
from m2e.cache.layout import CHORD, INDEX, Records, feature_image, feature_name
from m2e.common.files import write_atomically

CONFIG = ExtractionConfig(encoder="benchmark", encoder_revision="none", chords="template")
CHORDS_A_TRACK = 60


def tracks_of(tracks: int, segments: int) -> Iterator[TrackFeatures]:
    """Random tracks with `segments` segments in all."""
    rng = np.random.default_rng(0)
    counts = np.full(tracks, segments // tracks) + (np.arange(tracks) < segments % tracks)
    times = np.arange(CHORDS_A_TRACK + 1, dtype=np.float32) * 2
    intervals = np.stack([times[:-1], times[1:]], axis=1)
    for i, count in enumerate(counts.tolist()):
        root, quality = rng.integers(0, 12, CHORDS_A_TRACK), rng.integers(0, 14, CHORDS_A_TRACK)
        features = rng.standard_normal((count, 3, 768), np.float32)
        yield TrackFeatures(
            f"track_{i:07d}", features, ChordSequence(intervals, root, quality), None, 30.0 * count, rng.bytes(32), 1
        )


def write_ours(folder: Path, tracks: int, segments: int) -> None:
    """A cache of packs."""
    ids = tuple(f"track_{i:07d}" for i in range(tracks))
    write_labels(
        folder,
        Labels(
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
        ),
    )
    with FeatureWriter(folder, CONFIG) as writer:
        for track in tracks_of(tracks, segments):
            writer.add(track)
    pack(features_folder(folder, CONFIG))


def write_others(folder: Path, npy: Path, groups: Path) -> None:
    """The same as one .npy of all embeddings, and as HDF5 with a group a track."""
    table = FeatureCache.open(folder).load()
    np.save(npy, table.embeddings)
    with h5py.File(groups, "w") as file:
        for i, track_id in enumerate(table.track_ids):
            group = file.create_group(track_id)
            group["embeddings"] = table.embeddings[table.first[i] : table.first[i + 1]]
            group["chords"] = table.chord_records[table.first_chord[i] : table.first_chord[i + 1]]
            group.attrs["key"] = [-1, -1]


def write_simulated(features: Path, tracks: int) -> None:
    """The index of many tracks in packs, with one number a segment and no chords."""
    write_config(features, CONFIG)
    rng = np.random.default_rng(0)
    for start in range(0, tracks, PACK_TRACKS):
        n = min(PACK_TRACKS, tracks - start)
        index = np.zeros(n, INDEX)
        index["id"] = [f"track_{i:07d}".encode() for i in range(start, start + n)]
        index["segments"], index["duration"] = 1, 30
        index["key_tonic"] = index["key_mode"] = -1
        index["digest"] = rng.integers(0, 256, (n, 16))
        records = Records(index, np.zeros((n, len(CONFIG.layers), 1), np.float16), np.zeros(0, CHORD))
        image = feature_image(records, CONFIG)
        write_atomically(features / feature_name("pack", image), image)


def load_groups(path: Path) -> list[object]:
    """Every track of the file with a group a track."""
    with h5py.File(path) as file:
        return [(group["embeddings"][()], group["chords"][()], tuple(group.attrs["key"])) for group in file.values()]


def peak_mb() -> float:
    """Of this process; Linux says so of the process alone, getrusage includes what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def measure(kind: str, path: Path) -> None:
    """In a process of its own: seconds, processor seconds and peak MB above the imports, as JSON."""
    actions: dict[str, Callable[[], object]] = {
        "npy": lambda: np.load(path),
        "ours": lambda: FeatureCache.open(path).load(),
        "open": lambda: FeatureCache.open(path),
        "groups": lambda: load_groups(path),
        "scan": lambda: scan(path, CONFIG),
    }
    before = peak_mb()
    started, processor = time.perf_counter(), time.process_time()
    kept = actions[kind]()
    seconds = time.perf_counter() - started
    click.echo(json.dumps([seconds, time.process_time() - processor, peak_mb() - before, peak_mb()]))
    del kept


def measured(kinds: dict[str, Path], repeats: int) -> dict[str, list[float]]:
    """Medians of `measure`, the readers in turn."""
    results: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, path in kinds.items():
            command = [sys.executable, __file__, "--measure", kind, str(path)]
            results[kind].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    return {kind: [statistics.median(column) for column in zip(*rows, strict=True)] for kind, rows in results.items()}


@click.command()
@click.option("--tracks", default=18_486, show_default=True)
@click.option("--segments", default=150_000, show_default=True, help="In all.")
@click.option("--simulated", default=1_000_000, show_default=True, help="Tracks of the simulated index.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--measure", "only", nargs=2, hidden=True)
def main(tracks: int, segments: int, simulated: int, repeats: int, only: tuple[str, str] | None) -> None:
    """Print seconds, ratios and peak memory."""
    if only:
        measure(only[0], Path(only[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        ours, npy, groups = Path(name, "ours"), Path(name, "plain.npy"), Path(name, "groups.h5")
        write_ours(ours, tracks, segments)
        write_others(ours, npy, groups)
        os.sync()
        size = npy.stat().st_size / 1e6
        found = measured({"npy": npy, "ours": ours, "open": ours}, repeats)
        found |= measured({"groups": groups}, 1)
        click.echo(f"{tracks} tracks, {segments} segments of 3 x 768 float16: {size:.0f} MB; {repeats} runs, medians")
        for kind, what in (
            ("npy", "one .npy"),
            ("ours", "our packs, opened, checked, with chords and keys"),
            ("groups", "HDF5, a group a track (1 run)"),
            ("open", "nothing to do: our cache opened and scanned"),
        ):
            seconds, processor, above, _ = found[kind]
            click.echo(f"  {what}: {seconds:.3f} s, processor {processor:.3f} s, {above:.0f} MB ({above / size:.2f})")
        click.echo(f"ours / one .npy: {found['ours'][0] / found['npy'][0]:.2f} in time (bar: at most 1.5)")
        click.echo(f"  and {found['ours'][1] / found['npy'][1]:.2f} in processor time")
        click.echo(f"a group a track / ours: {found['groups'][0] / found['ours'][0]:.1f} (bar: at least 10)")
    with tempfile.TemporaryDirectory() as name:
        features = features_folder(Path(name), CONFIG)
        write_simulated(features, simulated)
        os.sync()
        seconds, processor, _, peak = measured({"scan": features}, 3)["scan"]
        click.echo(
            f"scan of {simulated} simulated tracks: {seconds:.2f} s, processor {processor:.2f} s, "
            f"{peak:.0f} MB in all (bar: 10 s, 500 MB)"
        )


if __name__ == "__main__":
    main()
