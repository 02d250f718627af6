"""Chord recognisers and keys against known truth, and their cost.

    python benchmarks/chords.py accuracy [--songs 96] [--chord-checkpoint FILE]
    python benchmarks/chords.py speed

`accuracy` plays songs of known chords (`chord_songs.py`) and analysed Bach chorales (`chorales.py`) with fluidsynth and
a free soundfont. The songs' seed was fixed before anything was tuned, and nothing was ever tuned on them.
`speed` measures CPU time of this process on one thread, ours beside the plain way in one run.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import chorales
import click
import mir_eval
import numpy as np
import soxr
from chord_songs import (
    CHORDAL,
    MELODIC,
    PARTS,
    RATE,
    SEED,
    SOUNDFONT,
    TUNING_CHORDAL,
    TUNING_MELODIC,
    TUNING_SEED,
    TUNING_SOUNDFONT,
    Song,
    draw_songs,
    missing_programs,
    play,
    play_midi,
)
from numpy.typing import NDArray

from m2e.cache.harmony import PITCH_CLASSES, QUALITIES, ChordSequence, Key, chord_label
from m2e.extract.chords.key import estimate_key
from m2e.extract.chords.registry import RECOGNISERS, load_recogniser

Wave = NDArray[np.float32]

CLEAN = ("chords", "+ bass", "+ melody")
METRICS = ("root", "majmin", "sevenths", "mirex", "tetrads")


@dataclass(frozen=True)
class Example:
    """Audio with its truth."""

    condition: str
    wave: Wave
    truth: ChordSequence
    key: Key


def song_examples(songs: list[Song], soundfont: Path) -> Iterator[Example]:
    """Every song in every condition: three clean ones, out of tune, with drums, and in noise."""
    for song in songs:
        rng = np.random.default_rng(song.seed)
        parts = {part: play(song, {part: 100}, soundfont) for part in PARTS}
        chords = parts["chords"]
        bass = chords + parts["bass"]
        melody = bass + 0.7 * parts["melody"]
        cents = float(rng.uniform(-45, 45))
        noise = rng.standard_normal(len(bass), np.float32) * np.float32(np.sqrt(np.mean(bass**2) / 10))
        waves = dict(zip(CLEAN, (chords, bass, melody), strict=True))
        for condition, wave in waves.items():
            yield Example(condition, wave, song.truth, song.key)
        yield Example("drums", melody + parts["drums"], song.truth, song.key)
        yield Example("noise at 10 dB", bass + noise, song.truth, song.key)
        yield _detuned("out of tune", bass, song, cents)


def _detuned(condition: str, wave: Wave, song: Song, cents: float) -> Example:
    """Played faster and higher, or slower and lower."""
    ratio = 2 ** (cents / 1200)
    truth = song.truth
    stretched = ChordSequence(truth.intervals / ratio, truth.root, truth.quality)
    return Example(condition, soxr.resample(wave, RATE * ratio, RATE, "HQ"), stretched, song.key)


def chorale_examples() -> Iterator[Example]:
    """The chorales on piano and on strings."""
    with tempfile.TemporaryDirectory() as folder:
        for chorale in chorales.load_chorales():
            for program in (0, 48):
                path = Path(folder, "chorale.mid")
                chorale.write_midi(program, path)
                wave = play_midi(path, SOUNDFONT)[: round(chorale.seconds * RATE)]
                yield Example("chorales", wave, chorale.truth, chorale.key)


@dataclass(frozen=True)
class Score:
    """Of one recogniser on one example."""

    seconds: float
    recall: dict[str, float]
    key: Key | None
    key_from_truth: Key | None
    true_key: Key

    @property
    def mirex(self) -> float:
        return key_score(self.true_key, self.key)


def key_score(truth: Key, estimate: Key | None) -> float:
    """MIREX: 1 for the key, .5 a fifth above, .3 its relative, .2 its parallel key."""
    return 0.0 if estimate is None else mir_eval.key.weighted_score(str(truth), str(estimate))


def score(example: Example, heard: ChordSequence) -> Score:
    with warnings.catch_warnings():
        # A metric of which a song has no chord.
        warnings.simplefilter("ignore")
        recall = mir_eval.chord.evaluate(
            example.truth.intervals.astype(float), example.truth.labels, heard.intervals.astype(float), heard.labels
        )
    return Score(
        seconds=float(example.truth.intervals[-1, 1]),
        recall={name: recall[name] for name in METRICS},
        key=estimate_key(heard),
        key_from_truth=estimate_key(example.truth),
        true_key=example.key,
    )


@click.group()
def main() -> None:
    """Accuracy and cost of chords and keys."""


@main.command()
@click.option("--songs", default=96, show_default=True, help="A multiple of 24 has every key equally often.")
@click.option("--chord-checkpoint", type=click.Path(path_type=Path, exists=True), help="Measure BTC too, with these.")
@click.option("--recogniser", "only", multiple=True, type=click.Choice(RECOGNISERS), help="Only this one.")
@click.option(
    "--tuning",
    is_flag=True,
    help='On the songs that numbers in template.py were chosen on; "cnn" trained on some of their instruments.',
)
def accuracy(songs: int, chord_checkpoint: Path | None, only: tuple[str, ...], tuning: bool) -> None:
    """Print weighted chord symbol recall (mir_eval), by condition, and how often the key is right."""
    if tuning:
        seed, chordal, melodic, soundfont = TUNING_SEED, TUNING_CHORDAL, TUNING_MELODIC, TUNING_SOUNDFONT
    else:
        seed, chordal, melodic, soundfont = SEED, CHORDAL, MELODIC, SOUNDFONT
    missing = missing_programs(soundfont)
    if missing:
        raise SystemExit(f"nothing measured: {missing}")
    sources = [song_examples(draw_songs(songs, seed, chordal, melodic), soundfont)]
    if not tuning:
        sources.append(chorale_examples())
    names = only or tuple(name for name in RECOGNISERS if name != "btc" or chord_checkpoint)
    recognisers = {name: load_recogniser(name, chord_checkpoint if name == "btc" else None) for name in names}
    scores: dict[str, dict[str, list[Score]]] = {name: defaultdict(list) for name in names}
    for examples in sources:
        for example in examples:
            for name, recognise in recognisers.items():
                scores[name][example.condition].append(score(example, recognise(example.wave)))
    click.echo(f"{songs} songs of seed {seed}, {len(chordal)} chordal instruments of {soundfont.name}")
    for name in names:
        conditions = {"clean": [s for c in CLEAN for s in scores[name][c]]} | scores[name]
        click.echo(
            f"\n{name:<16}" + "".join(f"{metric:>9}" for metric in METRICS) + "   key   MIREX   key of the truth"
        )
        for condition, found in conditions.items():
            click.echo(_row(condition, found))
    if "template" in names and len(names) > 1:
        click.echo("\nmore majmin than templates, and 95 % of its bootstrap over songs")
        for name in names:
            if name != "template":
                for condition, found in _by_song(scores[name]).items():
                    _echo_gain(f"{name}, {condition}", found, _by_song(scores["template"])[condition])


def _by_song(scores: dict[str, list[Score]]) -> dict[str, list[list[Score]]]:
    """What is of one song together: it is clean in several ways, and a chorale has two instruments."""
    clean = [list(song) for song in zip(*(scores[condition] for condition in CLEAN), strict=True)]
    chorales = scores.get("chorales", [])
    return {"clean": clean} | (
        {"chorales": [chorales[i : i + 2] for i in range(0, len(chorales), 2)]} if chorales else {}
    )


def _echo_gain(title: str, ours: list[list[Score]], theirs: list[list[Score]]) -> None:
    weights = np.array([song[0].seconds for song in ours])
    gains = np.array(
        [
            np.mean([a.recall["majmin"] - b.recall["majmin"] for a, b in zip(*pair, strict=True)])
            for pair in zip(ours, theirs, strict=True)
        ]
    )
    drawn = np.random.default_rng(0).integers(len(gains), size=(10_000, len(gains)))
    means = (gains * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    click.echo(f"{title:<24}{np.average(gains, weights=weights):+.3f} ({low:+.3f} to {high:+.3f})")


def _row(condition: str, scores: list[Score]) -> str:
    weights = np.array([s.seconds for s in scores])
    recalls = [np.average([s.recall[metric] for s in scores], weights=weights) for metric in METRICS]
    exact = np.mean([s.key == s.true_key for s in scores])
    mirex = np.mean([s.mirex for s in scores])
    ceiling = np.mean([s.key_from_truth == s.true_key for s in scores])
    return f"{condition:<16}" + "".join(f"{r:9.3f}" for r in recalls) + f"{exact:6.3f} {mirex:7.3f} {ceiling:9.3f}"


@main.command()
@click.option("--sequences", default=500, show_default=True, help="Chord sequences whose keys are compared.")
def speed(sequences: int) -> None:
    """Print CPU times of each stage, ours beside the plain way, and their share of the MERT stage."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    wave = music(240)
    click.echo("CPU seconds for 4 minutes of audio      ours    plain way   ratio")
    costs = {"constant-Q": compare_cqt(wave), "BTC's network": compare_btc(wave), "key": compare_keys(sequences)}
    for stage, (ours, plain) in costs.items():
        click.echo(f"{stage:<34}{ours:10.4f}{plain:13.4f}{plain / ours:8.1f}")
    click.echo("(key: a track of 130 chords)")
    mert = 8 * mert_seconds()
    key = costs["key"][0]
    stages = {"btc": costs["constant-Q"][0] + costs["BTC's network"][0]}
    for name in RECOGNISERS:
        if name != "btc":
            recogniser = load_recogniser(name)
            stages[name] = cpu_seconds(partial(recogniser, wave))
    click.echo(f"\nMERT, 8 segments of 30 s: {mert:.1f}. Beside it, chords and key:")
    for name, seconds in stages.items():
        click.echo(f"{name:<34}{seconds + key:10.4f}{(seconds + key) / mert:12.1%}")


def cpu_seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """The least of some runs, after one to warm up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def music(seconds: float) -> Wave:
    """Synthetic music, without fluidsynth."""
    from m2e.synthetic.music import draw_recipe, render

    rng = np.random.default_rng(0)
    parts: list[Wave] = []
    while sum(map(len, parts)) < seconds * RATE:
        part = render(draw_recipe(rng), RATE)
        parts.append(part.mean(axis=1) if part.ndim == 2 else part)
    return np.concatenate(parts)[: round(seconds * RATE)]


def compare_cqt(wave: Wave) -> tuple[float, float]:
    """Ours, and librosa chunk by chunk."""
    import librosa

    from m2e.extract.chords.btc import CHUNK_SAMPLES, HOP, cqt_features

    def plain() -> Wave:
        chunks = [wave[start : start + CHUNK_SAMPLES] for start in range(0, len(wave), CHUNK_SAMPLES)]
        spectra = [librosa.cqt(c, sr=RATE, hop_length=HOP, n_bins=144, bins_per_octave=24) for c in chunks]
        return np.log(np.abs(np.concatenate(spectra, axis=1)) + 1e-6)

    distance = np.abs(cqt_features(wave) - plain())
    click.echo(f"log features from librosa's: {np.quantile(distance, 0.999):.1e} at the 99.9th percentile", err=True)
    return cpu_seconds(lambda: cqt_features(wave)), cpu_seconds(plain, 2)


def compare_btc(wave: Wave) -> tuple[float, float]:
    """All instances in batches, and as released: one instance at a time through modules as METHOD.md words them."""
    import torch

    from m2e.extract.chords.btc import BATCH, BTC, CHUNK_FRAMES, N_BINS, LayerNorm, MultiHeadAttention, cqt_features

    def plain_norm(self: LayerNorm, x: torch.Tensor) -> torch.Tensor:
        return self.gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.beta

    def plain_attention(self: MultiHeadAttention, x: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        def heads(linear: torch.nn.Linear) -> torch.Tensor:
            return linear(x).view(*x.shape[:2], 4, -1).transpose(1, 2)

        weights = heads(self.query_linear) * 32**-0.5 @ heads(self.key_linear).transpose(2, 3)
        weights = weights.masked_fill(~allowed, -torch.inf).softmax(-1)
        return self.output_linear((weights @ heads(self.value_linear)).transpose(1, 2).flatten(-2))

    torch.manual_seed(0)
    model = BTC().eval()
    frames = torch.from_numpy(cqt_features(wave)).T
    instances = frames[: len(frames) // CHUNK_FRAMES * CHUNK_FRAMES].reshape(-1, CHUNK_FRAMES, N_BINS)

    def run(batch: int) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model(part) for part in torch.split(instances, batch)])

    together, ours = run(BATCH), cpu_seconds(lambda: run(BATCH))
    kept = LayerNorm.forward, MultiHeadAttention.forward
    try:
        LayerNorm.forward, MultiHeadAttention.forward = plain_norm, plain_attention
        one_by_one, plain = run(1), cpu_seconds(lambda: run(1))
    finally:
        LayerNorm.forward, MultiHeadAttention.forward = kept
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)
    return ours, plain


def compare_keys(n: int) -> tuple[float, float]:
    """Ours, and by way of MIDI files that music21 parses, quantises and analyses; keys must be equal."""
    import pretty_midi
    from music21 import converter

    from m2e.extract.chords.files import midi_notes

    def plain(chords: ChordSequence, path: Path) -> Key:
        midi = pretty_midi.PrettyMIDI(initial_tempo=120.0)
        midi.instruments.append(pretty_midi.Instrument(0))
        midi.instruments[0].notes = [
            pretty_midi.Note(120, 48 + p, start / 440, end / 440) for start, p, end in midi_notes(chords)
        ]
        midi.write(str(path))
        key = converter.parseFile(path, forceSource=True, storePickle=False).analyze("key")
        return Key(key.tonic.pitchClass, key.mode)

    songs = [random_chords(seed, diatonic=seed % 2 == 0) for seed in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "chords.mid")
        equal = sum(plain(song, path) == estimate_key(song) for song in songs)
        theirs = cpu_seconds(lambda: [plain(song, path) for song in songs[:20]], 2) / 20
    click.echo(f"keys equal to music21's: {equal} of {n} (random and diatonic in turn)", err=True)
    return cpu_seconds(lambda: [estimate_key(song) for song in songs[:20]]) / 20, theirs


def random_chords(seed: int, diatonic: bool) -> ChordSequence:
    """130 chords of 1 to 40 frames, as a recogniser might hear them in 4 minutes."""
    rng = np.random.default_rng(seed)
    tonic, degrees = rng.integers(12), [(0, "maj"), (2, "min"), (4, "min"), (5, "maj"), (7, "7"), (9, "min7")]
    chords = [
        ((degree + tonic) % 12, QUALITIES.index(quality))
        for degree, quality in (degrees[i] for i in rng.integers(len(degrees), size=130))
    ]
    if not diatonic:
        chords = [(int(rng.integers(len(PITCH_CLASSES))), int(rng.integers(len(QUALITIES)))) for _ in chords]
    ends = np.cumsum(rng.integers(1, 41, len(chords))) * 10 / 108
    labels = [chord_label(int(root), quality) for root, quality in chords]
    return ChordSequence.from_labels(np.stack([np.append(0, ends[:-1]), ends], axis=1), labels)


def mert_seconds() -> float:
    """Of one 30 s segment through our network of MERT-95M's shape, its weights random, up to block 7."""
    import torch
    from transformers import HubertConfig, HubertModel

    from m2e.extract.encoders.mert_net import MERT

    config = HubertConfig(num_hidden_layers=7, conv_pos_batch_norm=False, conv_bias=False)
    network = MERT(HubertModel(config), (5, 6, 7), True, False, "float32")
    segment = torch.randn(1, 720_000)
    with torch.inference_mode():
        return cpu_seconds(lambda: network(segment), 2)


if __name__ == "__main__":
    main()
