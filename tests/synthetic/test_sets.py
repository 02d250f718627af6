"""The synthetic data sets: the same seed gives the same music, and labels follow from what is heard."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from m2e.cache.harmony import pitch_classes
from m2e.common.errors import DataError
from m2e.synthetic.music import Recipe, draw_recipe, recipe_chords, render
from m2e.synthetic.sets import DEMO_SETS, FORMATS, SPLITS, TAGS, DemoTrack, draw_tracks, main, make_demo

SCALE = 0.01  # 12 tracks a set
NUMBERS = range(len(DEMO_SETS))


def recipes(count: int) -> list[Recipe]:
    return [draw_recipe(np.random.default_rng([5, i])) for i in range(count)]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def demo(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("demo")
    return [Path(shutil.copytree(demo_data / each.name, folder / each.name)) for each in DEMO_SETS]


def files(folders: list[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def spectral_centroid(recipe: Recipe) -> float:
    power = np.abs(np.fft.rfft(render(replace(recipe, stereo=False), 16_000))) ** 2
    return float(power @ np.linspace(0, 8000, len(power)) / power.sum())


# -- Sound


def test_a_recipe_is_drawn_and_played_the_same_twice() -> None:
    first, second = draw_recipe(np.random.default_rng(3)), draw_recipe(np.random.default_rng(3))
    assert first == second
    assert first != draw_recipe(np.random.default_rng(4))
    np.testing.assert_array_equal(render(first, 16_000), render(second, 16_000))


def test_lengths_are_40_to_100_seconds() -> None:
    seconds = np.array([recipe.duration for recipe in recipes(2000)])
    assert seconds.min() >= 40
    assert seconds.max() <= 100
    assert 52 < seconds.mean() < 58


@pytest.mark.parametrize("sample_rate", sorted({rate for _, rate in FORMATS}))
def test_sound_is_finite_and_below_full_scale(sample_rate: int) -> None:
    some = recipes(12)
    picks = [
        next(r for r in some if r.stereo),
        next(r for r in some if not r.stereo),
        max(some, key=lambda r: r.snr_db),
    ]
    for recipe in picks:
        sound = render(recipe, sample_rate)
        n = round(recipe.duration * sample_rate)
        assert sound.dtype == np.float32
        assert sound.shape == ((n, 2) if recipe.stereo else (n,))
        assert np.isfinite(sound).all()
        assert 0.002 < np.abs(sound).max() < 1


def test_chords_are_diatonic_fill_the_track_and_begin_on_the_tonic() -> None:
    scales = {"major": [{0, 2, 4, 5, 7, 9, 11}], "minor": [{0, 2, 3, 5, 7, 8, 10}, {0, 2, 3, 5, 7, 8, 11}]}
    for recipe in recipes(200):
        chords = recipe_chords(recipe)
        assert chords.root[0] == recipe.key.tonic
        assert chords.intervals[0, 0] == 0
        assert chords.intervals[-1, 1] == pytest.approx(recipe.duration)
        np.testing.assert_allclose(chords.intervals[1:, 0], chords.intervals[:-1, 1])
        for root, quality in zip(chords.root, chords.quality, strict=True):
            sounding = {(pitch - recipe.key.tonic) % 12 for pitch in pitch_classes(int(root), int(quality))}
            assert any(sounding <= scale for scale in scales[recipe.key.mode])


def test_the_chords_of_a_recipe_are_what_sounds() -> None:
    recipe = next(r for r in recipes(500) if r.snr_db > 30 and not r.stereo and not r.percussion)
    sound, rate = render(recipe, 16_000), 16_000
    hits = []
    for (start, end), root, quality in zip(*vars(recipe_chords(recipe)).values(), strict=True):
        power = np.abs(np.fft.rfft(sound[int(start * rate) : int(end * rate)], 4 * rate)) ** 2
        hertz = np.arange(len(power)) / 4
        band = (hertz > 60) & (hertz < 500)
        pitch = np.round(69 + 12 * np.log2(hertz[band] / 440)).astype(int) % 12
        loudest = int(np.bincount(pitch, power[band], 12).argmax())
        hits.append(loudest in pitch_classes(int(root), int(quality)))
    assert np.mean(hits) > 0.9


@pytest.mark.parametrize(
    ("louder", "change"),
    [("brightness", {"brightness": -4.0}), ("hiss", {"snr_db": 8.0}), ("percussion", {"percussion": 1.2})],
)
def test_brightness_hiss_and_percussion_are_heard(louder: str, change: dict[str, float]) -> None:
    plain = replace(recipes(1)[0], brightness=-14.0, snr_db=40.0, percussion=0.0)
    assert spectral_centroid(replace(plain, **change)) > 1.2 * spectral_centroid(plain), louder


# -- Labels


def default_tracks(number: int) -> list[DemoTrack]:
    return draw_tracks(number, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_tag_has_positives_in_each_split_and_each_track_a_tag(seed: int) -> None:
    tracks = draw_tracks(0, seed)
    assert [sum(track.split == split for track in tracks) for split in SPLITS] == [72, 16, 32]
    tags = [track.labels["tags"].split(";") for track in tracks]
    assert all(set(names) <= set(TAGS) and names for names in tags)
    for tag in TAGS:
        for split in SPLITS:
            assert sum(tag in names for names, track in zip(tags, tracks, strict=True) if track.split == split) >= 2
        assert 0.05 <= np.mean([tag in names for names in tags]) <= 0.4


@pytest.mark.parametrize("number", [1, 2, 3])
def test_ratings_are_on_1_to_9_and_follow_the_latents(number: int) -> None:
    tracks = default_tracks(number)
    assert [sum(track.split == split for track in tracks) for split in SPLITS] == [36, 12, 24]
    ratings = np.array([[float(value) for value in track.labels.values()] for track in tracks])
    latents = np.array([(track.recipe.valence, track.recipe.arousal) for track in tracks])
    assert ratings.min() >= 1
    assert ratings.max() <= 9
    assert np.corrcoef(ratings[:, 0], latents[:, 0])[0, 1] > 0.8
    assert np.corrcoef(ratings[:, 1], latents[:, 1])[0, 1] > 0.8


def test_formats_do_not_tell_the_mood() -> None:
    tracks = [track for number in NUMBERS for track in default_tracks(number)]
    assert {(track.suffix, track.sample_rate) for track in tracks} == set(FORMATS)
    for suffix in ("wav", "flac", "ogg", "mp3"):
        mean = np.mean([(t.recipe.valence, t.recipe.arousal) for t in tracks if t.suffix == suffix], axis=0)
        assert np.abs(mean).max() < 0.35


# -- Files


def test_manifests_have_the_agreed_columns_and_their_audio(demo: list[Path]) -> None:
    assert [folder.name for folder in demo] == ["demo-jamendo", "demo-deam", "demo-emomusic", "demo-pmemo"]
    for number, folder in enumerate(demo):
        found = rows(folder)
        assert list(found[0]) == ["track_id", "path", "split", *(["valence", "arousal"] if number else ["tags"])]
        for row, track in zip(found, draw_tracks(number, scale=SCALE), strict=True):
            info = soundfile.info(folder / row["path"])
            assert (info.samplerate, info.channels) == (track.sample_rate, 1 + track.recipe.stereo)
            assert info.duration == pytest.approx(track.recipe.duration, abs=0.2)
            assert row["split"] in SPLITS
        assert {path.suffix for path in (folder / "audio").iterdir()} == {".wav", ".flac", ".ogg", ".mp3"}
        assert "Synthetic" in (folder / "SYNTHETIC.txt").read_text(encoding="utf-8")


def test_a_track_made_alone_is_the_track_in_the_set(demo: list[Path]) -> None:
    track = next(track for track in draw_tracks(2, scale=SCALE) if track.suffix == "wav")
    stored, _ = soundfile.read(demo[2] / track.path, dtype="float32")
    np.testing.assert_allclose(stored, render(track.recipe, track.sample_rate), atol=1 / 32_000)


def test_a_half_made_set_is_completed_and_a_finished_one_left_alone(demo: list[Path]) -> None:
    folder = demo[1]
    wav, flac = (next((folder / "audio").glob(f"*.{suffix}")) for suffix in ("wav", "flac"))
    before = {path: path.read_bytes() for path in (wav, flac, folder / "manifest.csv")}
    for path in before:
        path.unlink()
    times = {path: path.stat().st_mtime_ns for path in files(demo)}

    make_demo(folder.parent, scale=SCALE, jobs=1)
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times

    times = {path: path.stat().st_mtime_ns for path in files(demo)}
    make_demo(folder.parent, scale=SCALE, jobs=1)
    assert {path: path.stat().st_mtime_ns for path in files(demo)} == times


def test_another_seed_never_mixes_into_a_set(demo: list[Path]) -> None:
    with pytest.raises(DataError, match="holds another demo"):
        make_demo(demo[0].parent, seed=1, scale=SCALE, jobs=1)


def test_foreign_data_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "demo-jamendo" / "manifest.csv"
    theirs.parent.mkdir()
    theirs.write_text("mine\n")
    with pytest.raises(DataError, match="not the synthetic demo's"):
        make_demo(tmp_path, scale=SCALE, jobs=1)
    assert theirs.read_text() == "mine\n"


def test_the_command_says_synthetic_and_what_to_run_next(demo: list[Path]) -> None:
    result = CliRunner().invoke(main, ["--out", str(demo[0].parent), "--tracks-scale", str(SCALE)])
    assert result.exit_code == 0
    assert "Synthetic" in result.output
    assert f"m2e-extract --dataset demo-jamendo --root {demo[0]}" in result.output.splitlines()[-1]


@pytest.mark.parametrize("scale", ["0", "nan", "-1", "1e9"])
def test_a_useless_scale_is_one_line(scale: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--out", str(tmp_path), "--tracks-scale", scale])
    assert result.exit_code == 1
    assert result.output.startswith("Error: --tracks-scale")
    assert result.output.count("\n") == 1


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "cannot write the demo data" in result.output
    assert result.output.count("\n") == 1
