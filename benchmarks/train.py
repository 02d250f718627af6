"""Training at the paper's sizes: our loop beside the plain way, and what the whole protocol would take.

    python benchmarks/train.py [--preset release] [--sample 1000]

Random features, chords and labels in the sizes of the paper's Table I. The plain way is the released code's: a .npy
file a segment with all 12 layers, float32; a Dataset that loads a track's segments and averages two layers over a span
(chords and labels are in memory, which they are not there); four DataLoaders with 4 workers and batches of 8; in each
step four forward passes of the student and four of the teachers with torch's own transformer layers, and Adam.

It runs on as many tracks of each set as a sample of MTG-Jamendo takes steps; a step's cost is scaled to an epoch's
number of steps, apart for every group of data sets that are still in the epoch. Everything is process CPU time, of the
workers too, with one thread; what counts are the ratios in one run, not the seconds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from m2e.cache import ChordSequence, ExtractionConfig, FeatureWriter, Key, Labels, TrackFeatures, write_labels
from m2e.train.config import TrainConfig
from m2e.train.data.encoding import PADDING
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning.loop import _Training, output_sizes
from m2e.train.learning.losses import distilled, task_loss
from m2e.train.learning.schedule import draw_schedule
from m2e.train.learning.spans import span_means, spans_from
from m2e.train.learning.teachers import freeze
from m2e.train.model.network import EmotionModel, Inputs

# Table I: train, validation, test; segments and chords a track, roughly (whole songs, 45 s clips, choruses).
SETS = {
    "J": ((9_949, 3_802, 4_231), 7, 130),
    "D": ((1_261, 271, 270), 1, 25),
    "E": ((495, 124, 125), 1, 25),
    "P": ((536, 116, 115), 1, 20),
}
WIDTH = 768
TAGS = 56
# Rows of a released file: index k is the output of block k + 1.
USED = [4, 5]
CPU = torch.device("cpu")


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak_memory() -> float:
    """Of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def write_caches(folder: Path, layers: int, share: float = 1.0) -> None:
    """Caches of the paper's sizes, or a share of them, `layers` of 768 numbers a segment."""
    config = ExtractionConfig("benchmark", "none", layers=tuple(range(7 - layers + 1, 8)), chords="template")
    for number, (letter, (sizes, segments, chords)) in enumerate(SETS.items()):
        rng = np.random.default_rng(number)
        sizes = tuple(max(4, round(share * size)) for size in sizes)
        n = sum(sizes)
        ids = tuple(f"{letter}{i:06d}" for i in range(n))
        tagged = letter == "J"
        labels = Labels(
            dataset=letter.lower(),
            letter=letter,
            track_ids=ids,
            splits=tuple(np.repeat(["train", "validation", "test"], sizes).tolist()),
            tag_names=tuple(f"tag{i}" for i in range(TAGS if tagged else 0)),
            tags=(rng.uniform(size=(n, TAGS if tagged else 0)) < 0.04).astype(np.uint8),
            valence_arousal=np.full((n, 2), np.nan, np.float32) if tagged else rng.uniform(1, 9, (n, 2)).astype("f4"),
            clip_group=ids,
            artist=("",) * n,
            provenance="random",
        )
        write_labels(folder / letter, labels)
        with FeatureWriter(folder / letter, config) as writer:
            for track_id in ids:
                count = 1 if segments == 1 else 1 + int(rng.poisson(segments - 1))
                ends = np.cumsum(rng.uniform(0.5, 2, max(2, int(rng.gamma(4, chords / 4)))))
                times = np.stack([np.append(0, ends[:-1]), ends], axis=1)
                sequence = ChordSequence(times, rng.integers(0, 12, len(ends)), rng.integers(0, 14, len(ends)))
                features = rng.standard_normal((count, layers, WIDTH), np.float32)
                key = Key(int(rng.integers(12)), "major")
                writer.add(TrackFeatures(track_id, features, sequence, key, 30.0 * count, rng.bytes(32), 1))


def steps_by_group(sets: list[EmotionData], config: TrainConfig) -> dict[tuple[bool, ...], int]:
    """How many steps of an epoch take a batch from which sets."""
    splits, lengths = [data.splits["train"] for data in sets], [data.n_segments for data in sets]
    schedule = draw_schedule(splits, lengths, config, torch.Generator().manual_seed(0))
    return Counter(tuple(size > 0 for size in sizes) for sizes in schedule.sizes)


def measure_ours(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """CPU seconds of an epoch of the student and of every teacher, with validation and without, and of a span mean."""
    torch.set_num_threads(1)
    started = cpu_seconds()
    sets = load_data(open_caches(folder, list(SETS)), config, CPU)
    loaded = cpu_seconds() - started

    started = cpu_seconds()
    untrained = [EmotionModel(config, data.width, output_sizes([data])).eval() for data in sets]
    prepared = [freeze(dict.fromkeys(data.targets, model), data) for data, model in zip(sets, untrained, strict=True)]
    freezing = cpu_seconds() - started

    def epoch(members: list[EmotionData], teachers: list[Any] | None) -> float:
        training = _Training(members, teachers, config)
        started = cpu_seconds()
        training._epoch()
        return cpu_seconds() - started

    epoch(sets[3:], None)  # numba compiles
    unjudged = [replace(data, splits={**data.splits, "validation": torch.zeros(0, dtype=torch.long)}) for data in sets]
    results: dict[str, Any] = {
        "load": loaded,
        "freeze": freezing,
        "training": epoch(unjudged, prepared),
        "student": epoch(sets, prepared),
        "teachers": {data.label: epoch([data], None) for data in sets},
        "steps": {json.dumps(group): n for group, n in steps_by_group(sets, config).items()},
    }
    data, generator = sets[0], torch.Generator().manual_seed(0)
    batches = [torch.randint(len(data.base), (32,), generator=generator) for _ in range(500)]
    started = cpu_seconds()
    for rows in batches:
        uniform = torch.rand(2, len(rows), dtype=torch.float64, generator=generator)
        span_means(data.sums, data.base[rows], *spans_from(*uniform, data.n_segments[rows], config.span))
    results["means"] = (cpu_seconds() - started) / len(batches)
    results["gigabytes"] = peak_memory()
    return results


class PlainModel(EmotionModel):
    """The same network by torch's own transformer, padding and all."""

    def encode_chords(self, root: Tensor, quality: Tensor) -> Tensor:
        padded = root == PADDING
        chords = torch.cat(
            [self.chord_root_embedding(root.where(~padded, 0)), self.chord_attr_embedding(quality)], dim=2
        )
        cls = chords.new_zeros(chords.shape[2]) if self.cls is None else self.cls
        sequence = torch.cat([cls.expand(len(root), 1, -1), chords + self.positions[: root.shape[1]]], dim=1)
        outputs: Tensor = self.chord_transformer(sequence, src_key_padding_mask=F.pad(padded, (1, 0)))
        return outputs[:, 0]


class Tracks(Dataset[dict[str, Tensor]]):
    """Tracks whose segments are files; a span of them is loaded and averaged."""

    def __init__(self, folder: Path, data: EmotionData, rows: Tensor) -> None:
        self.folder, self.data, self.rows = folder, data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, row: int) -> Tensor:
        files = sorted((self.folder / f"{self.data.label}-{row}").iterdir())
        segments = np.stack([np.concatenate([np.load(path)[0, layer] for layer in USED]) for path in files])
        start = int(torch.randint(len(segments), ()))
        stop = start + 1 + int(torch.randint(len(segments) - start, ()))
        return torch.from_numpy(segments[start:stop].mean(axis=0))

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        row, data = int(self.rows[i]), self.data
        (target,) = data.targets.values()
        values = {"features": self.features(row), "root": data.root[row].long(), "quality": data.quality[row].long()}
        return {**values, "mode": data.mode[row], "target": target[row]}


def write_segments(folder: Path, data: EmotionData, rows: Tensor) -> None:
    """A folder a track, a .npy file a segment, float32 [shape=(1, 12, 768)]."""
    segment = np.zeros((1, 12, WIDTH), np.float32)
    for row in rows.tolist():
        track = folder / f"{data.label}-{row}"
        track.mkdir()
        base = int(data.base[row])
        segments = data.sums[base : base + int(data.n_segments[row]) + 1].diff(dim=0).numpy()
        for i, values in enumerate(segments):
            segment[0, USED] = values.reshape(-1, WIDTH)
            np.save(track / f"segment_{i}.npy", segment)


def measure_plain(folder: Path, config: TrainConfig, sample: int, groups: list[list[bool]]) -> dict[str, Any]:
    """CPU seconds of a step for each group of data sets, loaders included, and of the loading and averaging alone."""
    torch.set_num_threads(1)
    sets = load_data(open_caches(folder, list(SETS)), config, CPU)
    used = [data.splits["train"][:sample] for data in sets]
    results: dict[str, Any] = {"steps": {}}
    with tempfile.TemporaryDirectory() as name:
        for data, rows in zip(sets, used, strict=True):
            write_segments(Path(name), data, rows)
        tracks = [Tracks(Path(name), data, rows) for data, rows in zip(sets, used, strict=True)]
        for group in groups:
            chosen = [i for i, there in enumerate(group) if there]
            results["steps"][json.dumps(group)] = plain_step([tracks[i] for i in chosen], config)
        rows = used[0][torch.randperm(len(used[0]))[:320]].tolist()
        started = cpu_seconds()
        for row in rows:
            tracks[0].features(row)
        results["means"] = (cpu_seconds() - started) / len(rows) * 32
    return results


def plain_step(tracks: list[Tracks], config: TrainConfig) -> float:
    """CPU seconds of a step with a batch of each set, over as many steps as the first set's tracks make."""
    sets = [each.data for each in tracks]
    student = PlainModel(config, sets[0].width, output_sizes(sets))
    teachers = [PlainModel(config, sets[0].width, output_sizes([data])).eval() for data in sets]
    optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate)
    started, steps = cpu_seconds(), 0
    loaders = [DataLoader(each, config.batch_size, shuffle=True, num_workers=4) for each in tracks]
    others = [iter(loader) for loader in loaders[1:]]
    for first in loaders[0]:
        batches = [first]
        for i, loader in enumerate(loaders[1:]):
            try:
                batches.append(next(others[i]))
            except StopIteration:
                others[i] = iter(loader)
                batches.append(next(others[i]))
        total = torch.zeros(())
        for data, teacher, batch in zip(sets, teachers, batches, strict=True):
            (task,) = data.targets
            longest = int((batch["root"] != PADDING).sum(dim=1).max())
            inputs = Inputs(batch["features"], batch["root"][:, :longest], batch["quality"][:, :longest], batch["mode"])
            outputs = student(inputs).of(task)
            with torch.no_grad():
                taught = teacher(inputs).of(task)
            total = total + distilled(
                config, task_loss(config, task, outputs, batch["target"], data.tag_rate), outputs, taught
            )
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        steps += 1
    del others, loaders
    return (cpu_seconds() - started) / steps


def in_a_process(part: str, folder: Path, preset: str, *more: str) -> dict[str, Any]:
    """A part of the benchmark by itself, so that its peak memory is its own."""
    options = ["--part", part, "--folder", str(folder), "--preset", preset, *more]
    command = [sys.executable, "-W", "ignore::UserWarning", __file__, *options]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


@click.command()
@click.option("--preset", "presets", multiple=True, default=("release", "paper"), show_default=True)
@click.option("--layers", default=3, show_default=True, help="Stored a segment; two are used.")
@click.option("--sample", default=1000, show_default=True, help="Jamendo tracks of the plain way.")
@click.option("--epochs", default=200, show_default=True, help="Of the whole protocol.")
@click.option("--part", type=click.Choice(["ours", "plain"]), hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--groups", hidden=True)
def main(
    presets: tuple[str, ...],
    layers: int,
    sample: int,
    epochs: int,
    part: str | None,
    folder: Path | None,
    groups: str | None,
) -> None:
    """Print CPU seconds an epoch of both ways, their ratio, the whole protocol's time and the peak memory."""
    if part:
        assert folder
        # The release preset's early stopping apart: at most so many epochs.
        config = TrainConfig.preset(presets[0], patience=0)
        if part == "ours":
            click.echo(json.dumps(measure_ours(folder, config)))
        else:
            assert groups
            click.echo(json.dumps(measure_plain(folder, config, sample, json.loads(groups))))
        return
    with tempfile.TemporaryDirectory() as name:
        write_caches(Path(name), layers)
        for preset in presets:
            ours = in_a_process("ours", Path(name), preset)
            groups = json.dumps([json.loads(group) for group in ours["steps"]])
            plain = in_a_process("plain", Path(name), preset, "--sample", str(sample), "--groups", groups)
            report(preset, ours, plain, epochs)


def report(preset: str, ours: dict[str, Any], plain: dict[str, Any], epochs: int) -> None:
    """Say what was measured."""
    whole = sum(n * plain["steps"][group] for group, n in ours["steps"].items())
    teachers = sum(ours["teachers"].values())
    hours = (ours["load"] + ours["freeze"] + epochs * (ours["student"] + teachers)) / 3600
    click.echo(f"preset {preset}: J,D,E,P, batches of 8, CPU seconds of one thread")
    for group, n in ours["steps"].items():
        letters = "".join(letter for letter, there in zip(SETS, json.loads(group), strict=True) if there)
        click.echo(f"  plain step with {letters}: {plain['steps'][group] * 1e3:.0f} ms, {n} of them an epoch")
    click.echo(f"  epoch of the student, training alone: ours {ours['training']:.1f} s, plain {whole:.1f} s")
    click.echo(f"  ratio: {whole / ours['training']:.1f}")
    click.echo(f"  span means of 32 tracks: ours {ours['means'] * 1e3:.2f} ms, plain {plain['means'] * 1e3:.1f} ms")
    click.echo(f"  ratio: {plain['means'] / ours['means']:.0f}")
    click.echo(f"  epoch with validation: student {ours['student']:.1f} s, the four teachers {teachers:.1f} s together")
    click.echo(f"  loading {ours['load']:.0f} s, preparing the teachers {ours['freeze']:.0f} s")
    click.echo(f"  the whole protocol, {epochs} epochs of four teachers and the student, extrapolated: {hours:.2f} h")
    click.echo(f"  peak memory: {ours['gigabytes']:.2f} GB")


if __name__ == "__main__":
    main()
