"""Songs with known chords and keys, drawn from a seed and played by fluidsynth: audio to measure chord recognisers on.

A song is a walk through the functions of its key, with sevenths, suspensions and borrowed chords, played by a chordal
instrument in one of several manners, by a bass, a melody with passing notes, and drums.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pretty_midi
import soundfile
from numpy.typing import NDArray

from m2e.cache.harmony import MODES, QUALITIES, ChordSequence, Key, pitch_classes

RATE = 22_050
SOUNDFONTS = Path("/usr/share/sounds/sf2")
# For evaluation. What is tuned is tuned on songs of another seed, with other instruments of another soundfont.
SOUNDFONT = SOUNDFONTS / "FluidR3_GM.sf2"
SEED = 20_261_121
# General MIDI: piano, electric piano, vibraphone, organ, steel guitar, strings, brass, pad; flute, saxophone, violin.
CHORDAL = (0, 4, 11, 16, 25, 48, 61, 89)
MELODIC = (73, 65, 40)
TUNING_SEED = 1
TUNING_SOUNDFONT = SOUNDFONTS / "TimGM6mb.sf2"
TUNING_CHORDAL = (
    2,
    5,
    6,
    12,
    15,
    18,
    19,
    21,
    24,
    26,
    27,
    28,
    29,
    45,
    46,
    49,
    51,
    52,
    62,
    80,
    81,
    88,
    90,
    91,
    93,
    104,
)
TUNING_MELODIC = (11, 22, 41, 56, 60, 66, 68, 71, 75, 80, 82, 105)
BASSES = (32, 33, 34, 38)
PARTS = ("chords", "bass", "melody", "drums")
MANNERS = ("held", "beats", "arpeggio", "offbeat")

# Degree: semitones above the tonic, qualities with their weights, and the degrees that may follow.
Degree = tuple[int, dict[str, float], str]
DEGREES: dict[str, dict[str, Degree]] = {
    "major": {
        "I": (0, {"maj": 7, "maj7": 2, "maj6": 1, "sus2": 0.5}, "ii iii IV IV V V vi vi bVII III7"),
        "ii": (2, {"min": 5, "min7": 5}, "V V V IV vii"),
        "iii": (4, {"min": 7, "min7": 3}, "vi vi IV ii"),
        "IV": (5, {"maj": 7, "maj7": 2, "min": 1}, "I V V ii vi II7"),
        "V": (7, {"maj": 5, "7": 4, "sus4": 1}, "I I I vi IV"),
        "vi": (9, {"min": 6, "min7": 4}, "ii IV IV V iii II7"),
        "vii": (11, {"dim": 1, "hdim7": 1}, "I iii"),
        "bVII": (10, {"maj": 1}, "IV I"),
        "II7": (2, {"7": 1}, "V"),
        "III7": (4, {"7": 1}, "vi"),
    },
    "minor": {
        "i": (0, {"min": 7, "min7": 2, "min6": 0.5, "minmaj7": 0.3}, "iv iv V V VI VI VII III ii v"),
        "ii": (2, {"hdim7": 2, "dim": 1}, "V V V"),
        "III": (3, {"maj": 7, "maj7": 3, "aug": 0.5}, "VI VII iv"),
        "iv": (5, {"min": 6, "min7": 4}, "i V V VII ii"),
        "v": (7, {"min": 7, "min7": 3}, "i VI iv"),
        "V": (7, {"maj": 4, "7": 6, "sus4": 0.5}, "i i i VI"),
        "VI": (8, {"maj": 6, "maj7": 3}, "III VII iv V ii"),
        "VII": (10, {"maj": 7, "7": 3}, "III i VI vii"),
        "vii": (11, {"dim7": 1}, "i"),
    },
}


@dataclass(frozen=True)
class Song:
    """What is played.

    Attributes:
        key: its key.
        chords: (root, quality) of each chord.
        beats: how long each lasts.
        tempo: beats a minute.
        instruments: General MIDI programs of the chords, the bass and the melody.
        manner: how the chords are played, one of MANNERS.
        seed: of voicings, melody, drums and loudness.
    """

    key: Key
    chords: tuple[tuple[int, int], ...]
    beats: tuple[int, ...]
    tempo: float
    instruments: tuple[int, int, int]
    manner: str
    seed: int

    @property
    def truth(self) -> ChordSequence:
        """The chords, which fill the song."""
        frames = [chord for chord, n in zip(self.chords, self.beats, strict=True) for _ in range(n)]
        return ChordSequence.from_frames(frames, 60 / self.tempo, math.inf)

    @property
    def seconds(self) -> float:
        return sum(self.beats) * 60 / self.tempo


def draw_songs(n: int, seed: int, chordal: tuple[int, ...], melodic: tuple[int, ...], n_chords: int = 16) -> list[Song]:
    """`n` songs: equally many of each key and mode, and of each chordal instrument."""
    rng = np.random.default_rng(seed)
    programs = np.resize(rng.permutation(chordal), n)
    return [
        draw_song(rng, Key(i % 12, MODES[i // 12 % 2]), int(programs[(7 * i + i // 24) % n]), melodic, n_chords)
        for i in range(n)
    ]


def draw_song(rng: np.random.Generator, key: Key, program: int, melodic: tuple[int, ...], n_chords: int) -> Song:
    """A song in a key for a chordal instrument, with one of the melodic ones; it ends with a cadence."""
    degrees = DEGREES[key.mode]
    tonic = next(iter(degrees))
    names = [tonic]
    while len(names) < n_chords - 2:
        names.append(str(rng.choice(degrees[names[-1]][2].split())))
    chords = []
    for name in [*names, "V", tonic]:
        step, weights, _ = degrees[name]
        shares = np.array(list(weights.values()))
        quality = str(rng.choice(list(weights), p=shares / shares.sum()))
        chords.append(((key.tonic + step) % 12, QUALITIES.index(quality)))
    return Song(
        key=key,
        chords=tuple(chords),
        beats=tuple(int(n) for n in rng.choice([2, 4], len(chords), p=[0.35, 0.65])),
        tempo=float(rng.uniform(70, 150)),
        instruments=(program, int(rng.choice(BASSES)), int(rng.choice(melodic))),
        manner=str(rng.choice(MANNERS)),
        seed=int(rng.integers(2**32)),
    )


def write_midi(song: Song, volumes: dict[str, int], path: Path) -> None:
    """Write some of PARTS as a MIDI file, each at a volume of 1-127 (100 is usual)."""
    midi = pretty_midi.PrettyMIDI(initial_tempo=song.tempo)
    beat = 60 / song.tempo
    for part, volume in volumes.items():
        number = PARTS.index(part)
        rng = np.random.default_rng([song.seed, number])
        instrument = pretty_midi.Instrument([*song.instruments, 0][number], is_drum=part == "drums")
        instrument.control_changes.append(pretty_midi.ControlChange(7, volume, 0))
        for start, length, pitch, velocity in PLAYERS[number](song, rng):
            loudness = int(np.clip(velocity + rng.normal(0, 5), 30, 127))
            instrument.notes.append(pretty_midi.Note(loudness, pitch, start * beat, (start + length) * beat))
        midi.instruments.append(instrument)
    midi.write(str(path))


Notes = list[tuple[float, float, int, int]]  # start and length in beats, MIDI pitch, velocity


def _play_chords(song: Song, rng: np.random.Generator) -> Notes:
    notes: Notes = []
    centre, is_open, doubled = int(rng.integers(55, 66)), bool(rng.random() < 0.4), bool(rng.random() < 0.4)
    start = 0
    for (root, quality), beats in zip(song.chords, song.beats, strict=True):
        pitches = sorted(_nearest(p, centre) for p in pitch_classes(root, quality))
        if doubled:
            pitches.append(pitches[0] + 12)
        if is_open:
            pitches = sorted([pitches[0], *pitches[2:], pitches[1] + 12])
        if song.manner == "held":
            notes += [(start, beats * 0.97, pitch, 80) for pitch in pitches]
        elif song.manner == "beats":
            notes += [(start + i, 0.9, pitch, 78) for i in range(beats) for pitch in pitches]
        elif song.manner == "offbeat":
            notes += [(start, 0.45, pitch, 80) for pitch in pitches]
            notes += [(start + i + 0.5, 0.45, pitch, 76) for i in range(beats) for pitch in pitches]
        else:
            notes += [(start + i / 2, 0.8, pitches[i % len(pitches)], 80) for i in range(2 * beats)]
        start += beats
    return notes


def _play_bass(song: Song, rng: np.random.Generator) -> Notes:
    notes: Notes = []
    manner, start = rng.choice(["root", "fifths", "eighths"]), 0
    for (root, quality), beats in zip(song.chords, song.beats, strict=True):
        low = _nearest(root, 38)
        fifth = low + QUALITY_FIFTHS[quality]
        if manner == "root":
            notes.append((start, beats * 0.95, low, 90))
        elif manner == "fifths":
            notes += [(start + i, 0.9, fifth if i % 4 == 2 else low, 88) for i in range(beats)]
        else:
            notes += [(start + i / 2, 0.45, low, 85) for i in range(2 * beats)]
        start += beats
    return notes


def _play_melody(song: Song, rng: np.random.Generator) -> Notes:
    """Chord notes on the beats; between them, now and then, the scale's step between two of them."""
    scale = (0, 2, 4, 5, 7, 9, 11) if song.key.mode == "major" else (0, 2, 3, 5, 7, 8, 10)
    notes: Notes = []
    pitch, start = int(rng.integers(67, 80)), 0
    for (root, quality), beats in zip(song.chords, song.beats, strict=True):
        for beat in range(beats):
            if rng.random() < 0.15:
                continue
            pitch = _nearest(int(rng.choice(pitch_classes(root, quality))), int(np.clip(pitch, 64, 84)))
            if rng.random() < 0.35:
                passing = pitch + int(rng.choice([-2, -1, 1, 2]))
                if (passing - song.key.tonic) % 12 in scale:
                    notes += [(start + beat, 0.5, pitch, 88), (start + beat + 0.5, 0.45, passing, 82)]
                    continue
            notes.append((start + beat, 0.95, pitch, 90))
        start += beats
    return notes


def _play_drums(song: Song, rng: np.random.Generator) -> Notes:
    notes: Notes = []
    for beat in range(sum(song.beats)):
        notes.append((beat, 0.2, 38 if beat % 2 else 36, 95))
        notes += [(beat + half, 0.2, 42, 70) for half in (0, 0.5)]
        if beat % 16 == 0:
            notes.append((beat, 1, 49, 80))
        if rng.random() < 0.15:
            notes.append((beat + 0.75, 0.2, 36, 80))
    return notes


PLAYERS = (_play_chords, _play_bass, _play_melody, _play_drums)
QUALITY_FIFTHS = tuple(pitch_classes(0, quality)[2] for quality in range(len(QUALITIES)))


def _nearest(pitch_class: int, centre: int) -> int:
    """The MIDI number of a pitch class that is nearest to `centre`."""
    return centre + (pitch_class - centre + 6) % 12 - 6


def missing_programs(*soundfonts: Path) -> str:
    """What is not installed, and how to install it; empty when all is there."""
    missing = [name for name in ("fluidsynth",) if not shutil.which(name)]
    missing += [str(path) for path in soundfonts if not path.exists()]
    if not missing:
        return ""
    return (
        f"{' and '.join(missing)} not found; on Debian: "
        "apt-get install --no-install-recommends fluidsynth fluid-soundfont-gm timgm6mb-soundfont"
    )


def play_midi(path: Path, soundfont: Path) -> NDArray[np.float32]:
    """A MIDI file played by fluidsynth, mono at 22,050 Hz."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "out.wav")
        command = ["fluidsynth", "-ni", "-q", "-r", str(RATE), "-g", "0.4", "-F", str(wav), str(soundfont), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        wave, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    return wave.mean(axis=1)


def play(song: Song, volumes: dict[str, int], soundfont: Path) -> NDArray[np.float32]:
    """The given parts at their volumes, as long as the song, mono at 22,050 Hz."""
    with tempfile.TemporaryDirectory() as folder:
        write_midi(song, volumes, Path(folder, "song.mid"))
        wave = play_midi(Path(folder, "song.mid"), soundfont)
    n = round(song.seconds * RATE)
    return np.pad(wave[:n], (0, max(0, n - len(wave))))
