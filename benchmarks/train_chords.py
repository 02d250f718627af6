"""Train the "cnn" chord recogniser (extract/chords/cnn.py) on songs that fluidsynth plays (training_songs.py).

    python benchmarks/train_chords.py --folder /tmp/chords

makes extract/chords/cnn.safetensors as it is in the package: 9 minutes to render the songs into the folder, where later
runs find them, and 28 to train, on one thread. The same seed gives the same songs and, on the same kind of machine and
with the same libraries, the same weights. docs/chords.md says what came of it.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import click
import numpy as np
import torch
import training_songs
from chord_songs import RATE, missing_programs
from safetensors.torch import save_file
from torch import Tensor, nn

from m2e.cache.harmony import QUALITIES
from m2e.extract.chords.cnn import BINS_PER_SEMITONE, N_CLASSES, OCTAVES, ChordNetwork, network_input
from m2e.extract.chords.cqt import C1
from m2e.extract.chords.spectrum import HOP, tuned_spectrum

Example = tuple[Tensor, Tensor]  # log magnitudes [shape=(216, frames)], classes [shape=(frames,)]

SEED = 7_001
# The first songs are played by other instruments than all the others, to judge by.
VALIDATION = 80
BATCH = 16
FRAMES = 192
LEARNING_RATE = 3e-3
FLOOR = math.log(1e-6)
IGNORED = -100


def make_example(number: int, path: Path) -> None:
    """Render song `number` and keep its spectrum and classes."""
    rng = np.random.default_rng([SEED, number])
    instruments = training_songs.VALIDATION if number < VALIDATION else training_songs.TRAINING
    song = training_songs.draw_song(rng, instruments)
    wave, truth = training_songs.recorded(training_songs.play(song, rng), song.truth, rng)
    spectrum, _ = tuned_spectrum(wave, C1, OCTAVES)
    middles = (np.arange(spectrum.shape[1]) + 0.5) * HOP / RATE
    chord = np.searchsorted(truth.intervals[:, 0], middles, side="right") - 1
    root, quality = truth.root[chord].astype(int), truth.quality[chord]
    classes = np.where(root < 0, N_CLASSES - 1, root * len(QUALITIES) + quality)
    logarithm = np.log(np.maximum(spectrum / spectrum.max(), np.exp(FLOOR)))
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, spectrum=logarithm.astype(np.float16), classes=classes.astype(np.uint8))
    partial.rename(path)


def load(path: Path) -> Example:
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["spectrum"]), torch.from_numpy(arrays["classes"].astype(np.int64))


def excerpt(example: Example, rng: np.random.Generator) -> Example:
    """192 frames, transposed, through a random equaliser and among louder ones, as the network takes them."""
    spectrum, classes = example
    start = int(rng.integers(max(1, len(classes) - FRAMES)))
    spectrum, classes = spectrum[:, start : start + FRAMES].float(), classes[start : start + FRAMES]
    octave = torch.linspace(0, math.pi, len(spectrum))
    spectrum = spectrum + sum(0.5 * float(rng.normal()) * torch.cos(k * octave)[:, None] for k in (1, 2, 3))
    semitones = int(rng.integers(-5, 7))
    spectrum = spectrum.roll(BINS_PER_SEMITONE * semitones, dims=0)
    empty = slice(0, BINS_PER_SEMITONE * semitones) if semitones > 0 else slice(BINS_PER_SEMITONE * semitones, None)
    if semitones:
        spectrum[empty] = FLOOR
    n_chords = N_CLASSES - 1
    classes = torch.where(classes < n_chords, (classes + len(QUALITIES) * semitones) % n_chords, classes)
    # The loudest bin of the track may lie elsewhere: one that is louder stands in for it.
    louder = torch.full((len(spectrum), 1), FLOOR)
    louder[0] = spectrum.max() + float(rng.choice([0, rng.uniform(0, 2)]))
    missing = FRAMES - len(classes)
    frames = network_input(torch.cat([spectrum, louder], dim=1).exp())[:-1]
    return nn.functional.pad(frames, (0, 0, 0, missing)), nn.functional.pad(classes, (0, missing), value=IGNORED)


def accuracy(network: ChordNetwork, examples: list[Example]) -> tuple[float, float]:
    """Shares of frames whose class is heard, and whose root is."""
    heard, truth = [], []
    network.eval()
    with torch.inference_mode():
        for spectrum, classes in examples:
            heard.append(network(network_input(spectrum.float().exp())[None])[0].argmax(dim=-1))
            truth.append(classes)
    network.train()
    found, expected = torch.cat(heard), torch.cat(truth)
    same_root = found // len(QUALITIES) == expected // len(QUALITIES)
    return float((found == expected).float().mean()), float(same_root.float().mean())


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Keeps the rendered songs.")
@click.option("--songs", default=1_600, show_default=True)
@click.option("--steps", default=4_000, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("extract/chords/cnn.safetensors"), show_default=True
)
def main(folder: Path, songs: int, steps: int, out: Path) -> None:
    """Render the songs that are not there yet, train, and write the weights: their running mean over the last steps."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    missing = missing_programs(training_songs.SOUNDFONT)
    if missing:
        raise SystemExit(f"nothing to train on: {missing}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.npz" for number in range(songs)]
    for number, path in enumerate(paths):
        if not path.exists():
            make_example(number, path)
    examples = [load(path) for path in paths]
    validation, training = examples[:VALIDATION], examples[VALIDATION:]
    rng = np.random.default_rng(SEED)
    network, judged = ChordNetwork(), ChordNetwork()
    mean = judged.state_dict()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    losses = []
    for step in range(1, steps + 1):
        rate = LEARNING_RATE * min(1, step / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = rate
        batch = [excerpt(training[i], rng) for i in rng.integers(len(training), size=BATCH)]
        logits = network(torch.stack([frames for frames, _ in batch]))
        classes = torch.stack([truth for _, truth in batch])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten(), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        for name, tensor in network.state_dict().items():
            mean[name].lerp_(tensor, max(0.005, 10 / (step + 10)))
        if step % 250 == 0 or step == steps:
            save_file(mean, out)
            heard, roots = accuracy(judged, validation)
            click.echo(
                f"step {step}, {time.process_time() / 60:.1f} CPU minutes: loss {np.mean(losses[-250:]):.3f}; of "
                f"{VALIDATION} songs of other instruments, {heard:.3f} of frames heard, {roots:.3f} of roots"
            )
    click.echo(f"the weights are in {out}")


if __name__ == "__main__":
    main()
