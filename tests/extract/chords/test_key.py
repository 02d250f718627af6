"""Keys against music21's own analysis of the MIDI that the paper's released code would write."""

import json
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from music21 import converter, stream
from music21 import key as music21_key

from m2e.cache.harmony import PITCH_CLASSES, QUALITIES, ChordSequence, Key, parse_chord_label, pitch_classes
from m2e.extract.chords.key import estimate_key, pitch_class_beats

MAJOR_DEGREES = [(0, "maj"), (2, "min"), (4, "min"), (5, "maj"), (7, "maj"), (7, "7"), (9, "min"), (2, "min7")]
MINOR_DEGREES = [(0, "min"), (3, "maj"), (5, "min"), (7, "7"), (8, "maj"), (10, "maj"), (7, "min"), (2, "hdim7")]
ANY_CHORD = [(root, quality) for root in range(12) for quality in QUALITIES]


def sequence(*chords: tuple[str, float]) -> ChordSequence:
    ends = np.cumsum([seconds for _, seconds in chords])
    starts = ends - [seconds for _, seconds in chords]
    return ChordSequence.from_labels(np.stack([starts, ends], axis=1), [label for label, _ in chords])


def random_sequence(seed: int) -> ChordSequence:
    """Chords of 1-40 frames, many of them short, in one major or minor key, or of no key, with an N now and then."""
    rng = np.random.default_rng(seed)
    longest = (3, 41)[seed % 2]
    pool, tonic = (MAJOR_DEGREES, MINOR_DEGREES, ANY_CHORD)[seed % 3], rng.integers(12)
    chords = [pool[i] for i in rng.integers(len(pool), size=rng.integers(5, 40))]
    labels = [f"{PITCH_CLASSES[(root + tonic) % 12]}:{quality}".removesuffix(":maj") for root, quality in chords]
    return sequence(
        *(("N" if rng.random() < 0.05 else c, rng.integers(1, rng.choice([2, 3, longest])) * 10 / 108) for c in labels)
    )


def read_lab(path: Path) -> ChordSequence:
    rows = [line.split() for line in path.read_text().splitlines()]
    return ChordSequence.from_labels([[float(start), float(end)] for start, end, _ in rows], [row[2] for row in rows])


def through_midi(chords: ChordSequence, path: Path) -> stream.Score:
    """The slow way: a pitch class of neighbouring chords is one note; music21 reads the file and quantises it."""
    notes = []
    for pitch_class in range(12):
        sounding = None
        for (start, end), label in zip(chords.intervals.astype(float), chords.labels, strict=True):
            if pitch_class not in pitch_classes(*parse_chord_label(label)):
                sounding = None
            elif sounding is None:
                sounding = pretty_midi.Note(120, 48 + pitch_class, start, end)
                notes.append(sounding)
            else:
                sounding.end = end
    midi = pretty_midi.PrettyMIDI(initial_tempo=120.0)
    midi.instruments.append(pretty_midi.Instrument(0))
    midi.instruments[0].notes = notes
    midi.write(str(path))
    return converter.parseFile(path, forceSource=True, storePickle=False)


def as_key(key: music21_key.Key) -> Key:
    return Key(key.tonic.pitchClass, key.mode)


@pytest.mark.parametrize("seed", [*range(30), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(30, 500))])
def test_key_is_music21s_reading_of_the_midi(seed: int, tmp_path: Path) -> None:
    chords = random_sequence(seed)
    score = through_midi(chords, tmp_path / "chords.mid")
    beats = np.zeros(12)
    for element in score.recurse().notes:
        beats[[pitch.pitchClass for pitch in element.pitches]] += float(element.quarterLength)
    np.testing.assert_allclose(pitch_class_beats(chords), beats, atol=1e-9)
    assert estimate_key(chords) == as_key(score.analyze("key"))


def test_reference_keys(reference: Path) -> None:
    folder = reference / "golden/key"
    expected = json.loads((folder / "keys_music21_10.5.1.json").read_text())
    assert len(expected) > 30
    for name, entry in expected.items():
        chords = read_lab(folder / "lab" / f"{name}.lab")
        # The released code has no key for a song of one X, and sounds all twelve notes in an X elsewhere; adding the
        # same to every pitch class changes no correlation, so those songs agree too.
        theirs = None if entry["key"] == "None" else as_key(music21_key.Key(*entry["key"].split()))
        assert estimate_key(chords) == theirs, name


@pytest.mark.parametrize("clip", ["short3", "clip47"])
def test_reference_end_to_end(reference: Path, clip: str) -> None:
    folder = reference / "golden/e2e" / clip
    expected = music21_key.Key(*json.loads((folder / "key.json").read_text())["key"].split())
    assert estimate_key(read_lab(folder / f"{clip}.lab")) == as_key(expected)


@pytest.mark.parametrize("quality", [q for q in QUALITIES if q not in ("aug", "dim7")])
def test_a_chord_alone_has_music21s_key(quality: str, tmp_path: Path) -> None:
    for root in (0, 5, 10):
        chords = ChordSequence([[0, 2]], [root], [QUALITIES.index(quality)])
        assert estimate_key(chords) == as_key(through_midi(chords, tmp_path / "chord.mid").analyze("key"))


@pytest.mark.parametrize("label", ["C:aug", "C:dim7"])
def test_a_tie_does_not_hang_on_the_duration(label: str) -> None:
    # Three or four keys fit a symmetric chord equally well.
    assert len({str(estimate_key(sequence((label, seconds)))) for seconds in (0.093, 1.5, 2.22, 10, 333.3)}) == 1


def test_silence_and_unknown_chords_do_not_sound() -> None:
    assert estimate_key(sequence(("N", 3))) is None
    assert estimate_key(sequence(("X", 3), ("N", 3))) is None
    assert estimate_key(ChordSequence(np.empty((0, 2)), [], [])) is None
    chords = [("A:min", 2), ("D:min", 1), ("E:7", 1)]
    assert estimate_key(sequence(*chords, ("X", 60), ("N", 60))) == estimate_key(sequence(*chords)) == Key(9, "minor")


def test_one_chord_is_a_key() -> None:
    assert estimate_key(sequence(("D#", 0.1))) == Key(3, "major")


@pytest.mark.parametrize("semitones", range(12))
def test_transposing_the_chords_transposes_the_key(semitones: int) -> None:
    chords = sequence(("D:min", 2), ("G:7", 2), ("C", 4), ("A:min7", 2))
    assert estimate_key(chords.transpose(semitones)) == Key(semitones, "major")
