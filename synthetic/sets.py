"""Four small SYNTHETIC data sets, so that the whole product runs without a download: `python -m m2e.synthetic.sets`.

No recording and no listener is involved. `m2e.synthetic.music` plays the music from latents v and a on [-1, 1]; the
labels are noisy functions of the same latents, here. Results on these sets say that the product works, and nothing
about real music: cues, noise and sizes were chosen so that the scores land in a useful range, looking at test scores.

=============  ===========  ==================================================================
set            tracks       labels
=============  ===========  ==================================================================
demo-jamendo   72, 16, 32   `TAGS`: each Bernoulli, with a logistic function of v, a and the mode
demo-deam      36, 12, 24   5 + 2.5 latent + noise and bias of an imagined group of annotators,
demo-emomusic  36, 12, 24   clipped to 1-9
demo-pmemo     36, 12, 24
=============  ===========  ==================================================================

Files: `<out>/<set>/manifest.csv`, written last, with columns track_id, path, split and either tags (joined by ";") or
valence, arousal; `audio/` in the formats of `FORMATS` in turn; and `SYNTHETIC.txt`, which names recipe, seed and scale.
Each track has a random generator of its own, seeded by (seed, set, number): any one can be made alone, in any order.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from m2e.cache.types import SPLITS
from m2e.common.console import Command, progress_bar, say
from m2e.common.errors import DataError
from m2e.common.files import write_atomically
from m2e.common.regular import read_regular
from m2e.synthetic.music import Recipe, draw_recipe, recipe_chords, render

__all__ = ["Recipe", "draw_recipe", "make_demo", "recipe_chords", "render"]

_LARGEST_STAMP = 4096
# Raised whenever the same seed gives other sounds or labels.
RECIPE_VERSION = 1
# Suffix and sample rate; in turn, so that no mood goes with a format.
FORMATS = (
    ("flac", 44_100), ("mp3", 32_000), ("wav", 22_050), ("ogg", 44_100), ("flac", 24_000),
    ("mp3", 44_100), ("wav", 16_000), ("ogg", 22_050), ("ogg", 48_000),
)  # fmt: skip
# MTG-Jamendo mood/theme tags: bias, and weights of v, a and a minor key (0.5 or -0.5) in the logit.
TAGS = {
    "calm": (-2.2, 0.6, -3.6, 0.0),
    "dark": (-2.2, -3.4, 0.6, 1.2),
    "dream": (-2.4, 1.2, -3.0, 0.0),
    "energetic": (-2.2, 0.6, 3.8, 0.0),
    "epic": (-2.6, -1.6, 3.4, 1.0),
    "happy": (-2.2, 3.6, 1.0, -1.2),
    "melancholic": (-2.5, -3.2, -1.6, 1.2),
    "relaxing": (-2.3, 1.4, -3.4, 0.0),
    "sad": (-2.4, -3.6, -1.0, 1.2),
    "upbeat": (-2.6, 2.4, 2.8, -0.6),
}
MIN_POSITIVES = 2


@dataclass(frozen=True)
class DemoSet:
    """One set: tracks in train, validation and test; tags, or the annotators' (bias, noise sd) of valence, arousal."""

    name: str
    sizes: tuple[int, int, int]
    bias: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    tagged: bool = False


DEMO_SETS = (
    DemoSet("demo-jamendo", (72, 16, 32), tagged=True),
    DemoSet("demo-deam", (36, 12, 24), bias=(-0.2, -0.2), noise=(0.45, 0.45)),
    DemoSet("demo-emomusic", (36, 12, 24), bias=(0.0, 0.1), noise=(0.4, 0.4)),
    DemoSet("demo-pmemo", (36, 12, 24), bias=(0.3, 0.2), noise=(0.45, 0.4)),
)


@dataclass(frozen=True)
class DemoTrack:
    """A track to make, and its row of the manifest."""

    track_id: str
    split: str
    recipe: Recipe
    suffix: str
    sample_rate: int
    labels: dict[str, str]

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""
        return f"audio/{self.track_id}.{self.suffix}"


def make_demo(out: Path, seed: int = 0, scale: float = 1.0, jobs: int = -1) -> list[Path]:
    """Make the four synthetic sets, or what is missing of them.

    Args:
        out: folder for the four sets' folders.
        seed: of everything random, 0 or more.
        scale: of the number of tracks; a split keeps at least 4.
        jobs: processes, as joblib counts them; -1 for all cores.

    Returns:
        The four folders.

    Raises:
        DataError: a folder cannot be written or holds something else, or the scale is not in (0, 100].
    """
    if not 0 < scale <= 100:  # also refuses NaN
        raise DataError(f"--tracks-scale {scale} must be above 0 and at most 100")
    return [_make_set(number, out / DEMO_SETS[number].name, seed, scale, jobs) for number in range(len(DEMO_SETS))]


def _make_set(number: int, folder: Path, seed: int, scale: float, jobs: int) -> Path:
    tracks = draw_tracks(number, seed, scale)
    stamp = (
        "Synthetic music and synthetic labels, made by `python -m m2e.synthetic.sets`; no recording, no listener.\n"
        f"recipe {RECIPE_VERSION}, seed {seed}, scale {scale:g}\n"
    )
    try:
        _claim(folder, stamp.encode())
        if missing := [track for track in tracks if not (folder / track.path).exists()]:
            _make_audio(folder, missing, jobs)
        if not (folder / "manifest.csv").exists():
            write_atomically(folder / "manifest.csv", _manifest(tracks))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the demo data: {error.strerror or error}; choose another --out"
        ) from error
    return folder


def draw_tracks(number: int, seed: int = 0, scale: float = 1.0) -> list[DemoTrack]:
    """Recipes and labels of set `number` of DEMO_SETS, without a sound."""
    demo_set = DEMO_SETS[number]
    sizes = [max(4, round(size * scale)) for size in demo_set.sizes]
    splits = np.repeat(SPLITS, sizes)
    generators = [np.random.default_rng([seed, number, i]) for i in range(len(splits))]
    recipes = [draw_recipe(rng) for rng in generators]
    if demo_set.tagged:
        labels = _draw_tags(recipes, splits, generators)
    else:
        labels = [_draw_ratings(demo_set, recipe, rng) for recipe, rng in zip(recipes, generators, strict=True)]
    prefix = demo_set.name.removeprefix("demo-")
    return [
        DemoTrack(f"{prefix}-{i:04d}", str(splits[i]), recipes[i], *FORMATS[i % len(FORMATS)], labels[i])
        for i in range(len(splits))
    ]


def _draw_tags(
    recipes: list[Recipe], splits: NDArray[np.str_], generators: list[np.random.Generator]
) -> list[dict[str, str]]:
    """Tags of each track; where chance gave a track none, or a tag too few tracks in a split, add the likeliest."""
    cues = np.array([(1, r.valence, r.arousal, 0.5 if r.key.mode == "minor" else -0.5) for r in recipes])
    likely = 1 / (1 + np.exp(-cues @ np.array(list(TAGS.values())).T))  # [shape=(tracks, tags)]
    has = np.array([rng.random(len(TAGS)) for rng in generators]) < likely
    untagged = np.flatnonzero(~has.any(axis=1))
    has[untagged, likely[untagged].argmax(axis=1)] = True
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        for column in np.flatnonzero(has[rows].sum(axis=0) < MIN_POSITIVES):
            likeliest = rows[np.argsort(-(likely[rows, column] + has[rows, column]), kind="stable")]
            has[likeliest[:MIN_POSITIVES], column] = True
    names = np.array(list(TAGS))
    return [{"tags": ";".join(names[row])} for row in has]


def _draw_ratings(demo_set: DemoSet, recipe: Recipe, rng: np.random.Generator) -> dict[str, str]:
    latents = np.array([recipe.valence, recipe.arousal])
    ratings = np.clip(5 + 2.5 * latents + demo_set.bias + rng.normal(size=2) * demo_set.noise, 1, 9)
    return {"valence": f"{ratings[0]:.2f}", "arousal": f"{ratings[1]:.2f}"}


def _claim(folder: Path, stamp: bytes) -> None:
    """Take an empty folder, or one that this very demo began."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    stamp_path = folder / "SYNTHETIC.txt"
    if stamp_path.exists():
        if read_regular(stamp_path, _LARGEST_STAMP) != stamp:
            raise DataError(f"{folder} holds another demo (recipe, seed or scale): delete it or choose another --out")
    elif any((folder / "audio").iterdir()) or (folder / "manifest.csv").exists():
        raise DataError(f"{folder} holds data that is not the synthetic demo's: choose another --out")
    else:
        write_atomically(stamp_path, stamp)


def _make_audio(folder: Path, tracks: list[DemoTrack], jobs: int) -> None:
    # joblib takes a third of a second to import, which a finished demo need not wait for.
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    with progress_bar("tracks") as bar:
        task = bar.add_task(f"{folder.name} (synthetic)", total=len(tracks), rate=0.0)
        for _ in parallel(delayed(_write_track)(folder / track.path, track) for track in tracks):
            bar.advance(task)
            bar.update(task, rate=bar.tasks[task].speed or 0.0)


def _write_track(path: Path, track: DemoTrack) -> None:
    import soundfile

    sound = render(track.recipe, track.sample_rate)
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    encoded = io.BytesIO()
    with soundfile.SoundFile(encoded, "w", track.sample_rate, channels, format=track.suffix.upper()) as file:
        # libsndfile 1.2's Vorbis encoder crashes on a minute in one block.
        for first in range(0, len(sound), 65_536):
            file.write(sound[first : first + 65_536])
    write_atomically(path, encoded.getvalue())


def _manifest(tracks: list[DemoTrack]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["track_id", "path", "split", *tracks[0].labels])
    writer.writerows([track.track_id, track.path, track.split, *track.labels.values()] for track in tracks)
    return text.getvalue().encode()


@click.command(cls=Command)
@click.option("--out", type=click.Path(path_type=Path), default=Path("data"), show_default=True, help="Folder to fill.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--tracks-scale", default=1.0, show_default=True, help="Times 336 tracks; each split keeps at least 4.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; one a core by default.")
def main(out: Path, seed: int, tracks_scale: float, jobs: int | None) -> None:
    """Make four small SYNTHETIC data sets (sound and labels), to try m2e without a download."""
    folders = make_demo(out, seed, tracks_scale, jobs or -1)
    names = ", ".join(folder.name for folder in folders)
    say(
        f"Synthetic demo data (no real music, no real labels) in {out}: {names}. Next, for each of them: "
        f"m2e-extract --dataset {folders[0].name} --root {folders[0]}"
    )


if __name__ == "__main__":
    main()
