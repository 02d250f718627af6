"""Extraction, ours beside the plain way, in one process on one thread.

    python benchmarks/extract.py speed [--tracks 2] [--repeats 3] [--eager] [--precision int8]
    python benchmarks/extract.py memory [--tracks 100] [--minutes 60]
    python benchmarks/extract.py resampler [--tracks 4]

Music is synthesised; MERT's weights (of the 95M's shape) and BTC's are random, and saved as checkpoints that ours loads
as it would load the published ones. `speed` counts CPU seconds of the process, takes both ways in turn, and keeps the
least of each stage: what counts is the ratio in one run. `plain.py` is the plain way, and `gpu.py` measures a GPU.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import plain
import soundfile
import torch
from threadpoolctl import threadpool_limits

from m2e.cache import ChordSequence, ExtractionConfig, FeatureWriter, TrackFeatures
from m2e.cache.settings import PRECISIONS, Precision
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models

Result = TypeVar("Result")

LAYERS = (5, 6, 7)
SEGMENT = 720_000
# The 95M's configuration, as far as it differs from transformers' defaults.
MERT_95M = {"conv_bias": False, "conv_pos_batch_norm": False, "num_hidden_layers": 12}
STAGES = ("decode and resample", "MERT", "chords", "key", "write")


@dataclass(frozen=True)
class Song:
    """A file, and its true chords: those of a network with random weights change with every frame."""

    path: Path
    chords: ChordSequence
    segments: int


def synthesise(folder: Path, tracks: int, seed: int = 0) -> list[Song]:
    """Stereo at 44.1 kHz as mp3 (about 320 kbit/s); each at least a minute."""
    from m2e.synthetic.music import draw_recipe, recipe_chords, render

    rng = np.random.default_rng(seed)
    songs: list[Song] = []
    while len(songs) < tracks:
        recipe = draw_recipe(rng)
        if recipe.duration >= 60:
            wave = render(recipe, 44_100)
            stereo = wave if wave.ndim == 2 else np.stack([wave, wave], axis=1)
            path = folder / f"{len(songs)}.mp3"
            soundfile.write(path, stereo, 44_100, bitrate_mode="CONSTANT", compression_level=0.0)
            songs.append(Song(path, recipe_chords(recipe), int(recipe.duration // 30)))
    return songs


def make_checkpoints(folder: Path, precision: Precision, shape: dict[str, Any] = MERT_95M) -> Models:
    """MERT and BTC with random weights, in the form of the published ones."""
    from transformers import HubertConfig, HubertModel

    from m2e.extract.chords.btc import BTC
    from m2e.extract.encoders.registry import find_encoder

    encoder, chords = folder / "random-95M", folder / "btc.pt"
    if not encoder.exists():
        encoder.mkdir()
        torch.manual_seed(0)
        torch.save(HubertModel(HubertConfig(**shape)).state_dict(), encoder / "pytorch_model.bin")
        config = {"model_type": "mert_model", "feat_extract_norm": "group", **shape}
        (encoder / "config.json").write_text(json.dumps(config))
        (encoder / "preprocessor_config.json").write_text('{"sampling_rate": 24000, "do_normalize": true}')
        state = {name: 0.2 * torch.randn_like(tensor) for name, tensor in BTC().state_dict().items()}
        torch.save({"model": state, "mean": np.float64(-3.5), "std": np.float64(1.6)}, chords)
    source = find_encoder(str(encoder))
    config = ExtractionConfig(source.name, source.revision, LAYERS, precision=precision)
    return Models(config, encoder, chords, "cpu")


class Stages:
    """CPU seconds of each stage, as lists of what each repeat took."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __call__(self, stage: str, action: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = action()
        self.seconds[stage][-1] += time.process_time() - start
        return result

    def begin(self) -> None:
        for stage in STAGES:
            self.seconds[stage].append(0.0)

    def least(self, stage: str) -> float:
        return min(self.seconds[stage])


def extract_ours(songs: list[Song], models: Models, folder: Path, timed: Stages) -> None:
    """What an extractor and a worker do, in stages."""
    from m2e.extract.audio.reader import load_audio, split_segments
    from m2e.extract.chords.key import estimate_key

    extractor = Extractor.of(models)
    encoder, recogniser = extractor.encoder, extractor.recogniser
    timed.begin()
    with FeatureWriter(folder, models.config) as writer:
        for song in songs:
            audio = timed("decode and resample", lambda path=song.path: load_audio(path))  # type: ignore[misc]
            segments = split_segments(audio.encoder_wave, SEGMENT, "drop", 0)
            embeddings = timed("MERT", lambda these=segments: encoder.embed(these))  # type: ignore[misc]
            timed("chords", lambda wave=audio.chord_wave: recogniser(wave))  # type: ignore[misc]
            key = timed("key", lambda chords=song.chords: estimate_key(chords))  # type: ignore[misc]
            features = TrackFeatures(
                song.path.stem, embeddings, song.chords, key, audio.duration, audio.sha256, audio.file_bytes
            )
            timed("write", lambda these=features: writer.add(these))  # type: ignore[misc]
        timed("write", writer.seal)


def extract_plainly(songs: list[Song], model: Any, chord_model: tuple[Any, float, float], timed: Stages) -> None:
    """The plain way; a segment is a .npy file in the end."""
    kernels: dict[int, plain.SincKernel] = {}
    timed.begin()
    with tempfile.TemporaryDirectory() as folder:
        for song in songs:
            path = song.path
            wave = timed("decode and resample", lambda path=path: plain.encoder_wave(path, kernels))  # type: ignore[misc]
            chord_wave = timed("decode and resample", lambda path=path: plain.chord_wave(path))  # type: ignore[misc]
            for i in range(len(wave) // SEGMENT):
                part = wave[i * SEGMENT : (i + 1) * SEGMENT]
                feature = timed("MERT", lambda part=part: plain.embed(model, part))  # type: ignore[misc]
                file = Path(folder, f"{path.stem}_{i}.npy")
                timed("write", lambda file=file, feature=feature: np.save(file, feature))  # type: ignore[misc]
            timed("chords", lambda wave=chord_wave: plain.chord_classes(*chord_model, wave))  # type: ignore[misc]
            timed("key", lambda chords=song.chords: plain.key(chords))  # type: ignore[misc]


def peak_gflops() -> float:
    """Of a float32 product of two 2,048 x 2,048 matrices; the most of some."""
    a, b, out = (torch.randn(2048, 2048) for _ in range(3))
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        torch.mm(a, b, out=out)
        best = min(best, time.process_time() - start)
    return 2 * 2048**3 / best / 1e9


def segment_gflop(blocks: int, positional_by_fft: bool) -> float:
    """Multiplications and additions of a 30 s segment through the 95M, counted from the definition."""
    frames, channels, dim, wide = SEGMENT, 1, 768, 3072
    total = 0.0
    for width, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        frames = (frames - width) // stride + 1
        total += 2 * frames * width * channels * 512
        channels = 512
    block = 2 * frames * (4 * dim * dim + 2 * dim * wide) + 4 * frames * frames * dim
    positional = 0 if positional_by_fft else 2 * frames * 128 * dim * dim / 16
    return (total + 2 * frames * 512 * dim + positional + blocks * block) / 1e9


def deviation(ours: np.ndarray, theirs: np.ndarray) -> str:
    relative = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return f"relative {relative:.1e}, 1 - cosine {max(0.0, 1 - cosine):.1e}"


@click.group()
def main() -> None:
    """CPU time, memory, and what the resampler changes."""
    torch.set_num_threads(1)
    threadpool_limits(1)


@main.command()
@click.option("--tracks", type=click.IntRange(1), default=2, show_default=True, help="Of 60 to 100 s.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--eager", is_flag=True, help="Attention of the plain way as the released code has it, not fused.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
def speed(tracks: int, repeats: int, eager: bool, precision: Precision) -> None:
    """Print CPU seconds for 30 s of audio by stage, both ways, and the ratio."""
    from m2e.extract.chords.btc import load_checkpoint
    from m2e.extract.encoders.mert import load_hubert

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        songs = synthesise(folder, tracks)
        models = make_checkpoints(folder, precision)
        model = load_hubert(models.encoder_folder, 12)[0]
        model.set_attn_implementation("eager" if eager else "sdpa")
        chord_model = load_checkpoint(models.chord_checkpoint or folder)
        segment = torch.from_numpy(np.random.default_rng(0).standard_normal(SEGMENT, np.float32))
        theirs = plain.embed(model, segment)[LAYERS[0] - 1 : LAYERS[-1]]
        ours = Extractor.of(models).encoder.embed([segment.numpy()])[0]
        peaks, our_stages, plain_stages = [peak_gflops()], Stages(), Stages()
        # Once to warm up: imports, compiled functions, memory.
        extract_plainly(songs[:1], model, chord_model, Stages())
        extract_ours(songs[:1], models, folder / "warm", Stages())
        for i in range(repeats):
            extract_plainly(songs, model, chord_model, plain_stages)
            extract_ours(songs, models, folder / str(i), our_stages)
            peaks.append(peak_gflops())
    segments = sum(song.segments for song in songs)
    click.echo(
        f"{tracks} tracks, {segments} segments; CPU seconds for 30 s of audio, {precision}, 1 thread, of {repeats}"
    )
    click.echo(f"{'':<24}{'ours':>9}{'plain way':>12}{'ratio':>8}")
    for stage in STAGES:
        _print_row(stage, our_stages.least(stage) / segments, plain_stages.least(stage) / segments)
    totals = [sum(timed.least(stage) for stage in STAGES) / segments for timed in (our_stages, plain_stages)]
    _print_row("whole extraction", *totals)
    click.echo(f"\npooled feature against the plain way's: {deviation(ours, theirs)}")
    peak = max(peaks)
    click.echo(
        f"peak of float32 matrix products, before and after each repeat: {', '.join(f'{p:.0f}' for p in peaks)} GFLOP/s"
    )
    for who, blocks, timed in (("ours", LAYERS[-1], our_stages), ("plain", 12, plain_stages)):
        work, seconds = segment_gflop(blocks, who == "ours"), timed.least("MERT") / segments
        click.echo(
            f"MERT, {who}: {work:.0f} GFLOP by definition in {seconds:.2f} s = {work / seconds:.0f} GFLOP/s, "
            f"{work / seconds / peak:.0%} of the peak; floor {work / peak:.2f} s"
        )


def _print_row(stage: str, ours: float, theirs: float) -> None:
    click.echo(f"{stage:<24}{ours:9.4f}{theirs:12.4f}{theirs / ours:8.2f}")


@main.command()
@click.option("--tracks", type=click.IntRange(1), default=100, show_default=True, help="Of 30 s.")
@click.option("--minutes", type=click.IntRange(1), default=60, show_default=True, help="Length of the long file.")
@click.option("--chords", type=click.Choice(["btc", "cnn", "template"]), default="btc", show_default=True)
def memory(tracks: int, minutes: int, chords: str) -> None:
    """Print the resident memory of one worker over many tracks, and over one long file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoints(folder, "float32")
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(folder / "long.flac", "w", 44_100, 2) as file:
            for _ in range(minutes):
                file.write(0.1 * rng.standard_normal((60 * 44_100, 2), np.float32))
        soundfile.write(folder / "half.flac", 0.1 * rng.standard_normal((30 * 44_100, 2), np.float32), 44_100)
        for job in (f"{tracks} half.flac", "1 long.flac"):
            command = [sys.executable, __file__, "worker", name, chords, *job.split()]
            subprocess.run(command, check=True)


@main.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("chords")
@click.argument("tracks", type=int)
@click.argument("file")
def worker(folder: Path, chords: str, tracks: int, file: str) -> None:
    """A process as `m2e-extract --jobs` starts them."""
    models = make_checkpoints(folder, "float32")
    if chords != "btc":
        models = replace(models, config=replace(models.config, chords=chords), chord_checkpoint=None)
    extractor = Extractor.of(models)
    for i in range(tracks):
        features = extractor(folder / file, str(i))
        if i + 1 in (1, 5, 10, 20, 50, tracks):
            now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            click.echo(
                f"{file}, {features.duration:.0f} s, {chords}: after {i + 1} tracks {now:.0f} MB, at most {most:.0f} MB"
            )


@main.command()
@click.option("--tracks", type=click.IntRange(1), default=4, show_default=True, help="Of 60 to 100 s.")
def resampler(tracks: int) -> None:
    """Print how far soxr's resampling moves pooled features from the released code's."""
    from m2e.extract.audio.reader import load_audio, split_segments

    with tempfile.TemporaryDirectory() as name:
        songs = synthesise(Path(name), tracks)
        models = make_checkpoints(Path(name), "float32")
        encoder = Extractor.of(models).encoder
        pooled = {
            method: np.concatenate(
                [
                    encoder.embed(split_segments(load_audio(s.path, resampler=method).encoder_wave, SEGMENT, "drop", 0))
                    for s in songs
                ]
            )
            for method in ("sinc_hann", "soxr_hq")
        }
    for i, layer in enumerate(LAYERS):
        click.echo(
            f"h[{layer}], soxr_hq against sinc_hann: {deviation(pooled['soxr_hq'][:, i], pooled['sinc_hann'][:, i])}"
        )
    halved = pooled["sinc_hann"].astype(np.float16).astype(np.float32)
    click.echo(f"float16 storage: {deviation(halved, pooled['sinc_hann'])}")


if __name__ == "__main__":
    main()
