"""Songs to train a chord recogniser on, drawn from a seed and played by fluidsynth.

Nothing here is the evaluation's (`chord_songs.py`, `chorales.py`): progressions, voicings and rhythms are drawn by
other rules, and instruments and soundfont are other ones. Two songs in three have chords in some rhythm, with or
without bass, melody and drums; one in three has four voices that move as little as they can, with passing notes and
suspensions.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pretty_midi
import scipy.signal
import soxr
from chord_songs import RATE, TUNING_SOUNDFONT, play_midi
from numpy.typing import NDArray

from m2e.cache.harmony import MODES, NO_CHORD, QUALITIES, QUALITY_INTERVALS, ChordSequence, Mode, pitch_classes

Wave = NDArray[np.float32]
Notes = list[tuple[float, float, int, int]]  # start and length in beats, MIDI pitch, velocity

SOUNDFONT = TUNING_SOUNDFONT
SECONDS = 20


@dataclass(frozen=True)
class Instruments:
    """General MIDI programs of chords (and voices), melodies, basses, and drum kits."""

    chordal: tuple[int, ...]
    melodic: tuple[int, ...]
    basses: tuple[int, ...]
    kits: tuple[int, ...]


# fmt: off
TRAINING = Instruments(
    chordal=(
        1, 3, 5, 6, 7, 8, 10, 12, 15, 17, 18, 20, 21, 23, 26, 27, 28, 29, 30, 41, 42, 44, 45, 50, 51, 52, 53, 57, 59,
        60, 63, 66, 68, 70, 72, 74, 75, 79, 80, 82, 84, 87, 88, 90, 92, 94, 95, 99, 104, 105, 107, 108,
    ),
    melodic=(
        6, 9, 13, 21, 26, 27, 30, 41, 42, 52, 53, 59, 60, 64, 66, 68, 70, 72, 74, 75, 78, 80, 82, 84, 85, 104, 110,
    ),
    basses=(35, 36, 37, 43, 57, 87),
    kits=(8, 16, 25, 40),
)
# What training is judged by never plays in it.
VALIDATION = Instruments(
    chordal=(2, 19, 24, 46, 49, 62, 71, 81, 91, 93), melodic=(22, 56, 67, 69), basses=(39, 58), kits=(24,)
)
# fmt: on

SCALES: dict[Mode, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
HARMONIC_MINOR = (0, 2, 3, 5, 7, 8, 11)
# How many steps of the scale the root moves up, and how often.
ROOT_MOTION = {3: 6, 4: 4, 5: 3, 1: 3, 6: 2, 2: 1.5, 0: 0.5}
# Of chords drawn freely.
QUALITY_SHARES = {"maj": 8, "min": 7, "7": 4, "min7": 4, "maj7": 3, "sus4": 2, "dim": 2, "hdim7": 2}
RARE_SHARE = 1.2


@dataclass(frozen=True)
class Chord:
    """A chord, how long it lasts, and the pitch classes that melodies pass through meanwhile."""

    root: int
    quality: int
    beats: float
    scale: frozenset[int]

    @property
    def tones(self) -> tuple[int, ...]:
        return pitch_classes(self.root, self.quality)


@dataclass(frozen=True)
class Part:
    """What one instrument plays; volume 1-127."""

    program: int
    notes: Notes
    volume: int = 100
    is_drum: bool = False


@dataclass(frozen=True)
class Song:
    """Chords, beats a minute, and the parts that play them."""

    chords: tuple[Chord, ...]
    tempo: float
    parts: tuple[Part, ...]

    @property
    def truth(self) -> ChordSequence:
        ends = np.cumsum([chord.beats for chord in self.chords]) * 60 / self.tempo
        return ChordSequence(
            np.stack([np.append(0, ends[:-1]), ends], axis=1),
            np.array([chord.root for chord in self.chords]),
            np.array([chord.quality for chord in self.chords]),
        )


def draw_song(rng: np.random.Generator, instruments: Instruments) -> Song:
    """A song of some 20 s."""
    if rng.random() < 1 / 3:
        tempo = float(rng.uniform(55, 110))
        lengths, shares = (0.5, 1.0, 2.0, 3.0), (0.1, 0.65, 0.2, 0.05)
        chords = draw_chords(rng, SECONDS * tempo / 60, lengths, shares)
        return Song(chords, tempo, tuple(_voices(rng, chords, instruments)))
    tempo = float(rng.uniform(60, 170))
    lengths, shares = (1.0, 2.0, 3.0, 4.0, 8.0), (0.08, 0.35, 0.07, 0.45, 0.05)
    chords = draw_chords(rng, SECONDS * tempo / 60, lengths, shares)
    return Song(chords, tempo, tuple(_band(rng, chords, instruments)))


# -- Harmony


def draw_chords(
    rng: np.random.Generator, beats: float, lengths: tuple[float, ...], shares: tuple[float, ...]
) -> tuple[Chord, ...]:
    """A walk through the chords of a key, with applied dominants, borrowed and foreign chords; or any chords at all."""
    tonic, mode = int(rng.integers(12)), MODES[int(rng.random() < 0.45)]
    foreign = 1.0 if rng.random() < 0.15 else 0.03
    sevenths = float(rng.choice([0.05, 0.2, 0.6]))
    colour = float(rng.choice([0, 0.05, 0.15]))
    motion = np.array(list(ROOT_MOTION.values())) / sum(ROOT_MOTION.values())
    chords: list[Chord] = []
    degree, left = 0, beats
    while left > 0:
        if rng.random() < 0.03:
            tonic, mode = (tonic + int(rng.choice([3, 5, 7, 9]))) % 12, MODES[int(rng.integers(2))]
        kind = rng.random()
        if kind < foreign:
            root, quality = int(rng.integers(12)), _free_quality(rng)
        elif kind < foreign + 0.06 and mode == "major":
            root, quality = _on_degree(rng, degree, "minor", sevenths)
        else:
            root, quality = _on_degree(rng, degree, mode, sevenths)
        if rng.random() < colour:
            quality = _coloured(rng, quality)
        chord = ((root + tonic) % 12, quality)
        length = float(rng.choice(lengths, p=shares))
        scale = {(tonic + step) % 12 for step in SCALES[mode]} | set(pitch_classes(*chord))
        if rng.random() < 0.08 and length >= 2:
            # On its second half what leads to the next chord does so.
            degree = (degree + int(rng.choice(list(ROOT_MOTION), p=motion))) % 7
            goal = SCALES[mode][degree] + tonic
            step, name = ((7, "maj"), (7, "7"), (11, "dim"), (11, "dim7"))[int(rng.choice(4, p=[0.3, 0.5, 0.1, 0.1]))]
            applied = ((goal + step) % 12, QUALITIES.index(name))
            chords.append(Chord(*chord, length / 2, frozenset(scale)))
            chords.append(Chord(*applied, length / 2, frozenset(scale | set(pitch_classes(*applied)))))
        else:
            chords.append(Chord(*chord, length, frozenset(scale)))
            degree = (degree + int(rng.choice(list(ROOT_MOTION), p=motion))) % 7
        left -= length
    return tuple(chords)


def _on_degree(rng: np.random.Generator, degree: int, mode: Mode, sevenths: float) -> tuple[int, int]:
    """Root above the tonic and quality of thirds stacked on a degree; minor's leading note is often raised."""
    scale = SCALES[mode]
    raised = {0: 0.05, 2: 0.1, 4: 0.75, 6: 0.4}
    if mode == "minor" and rng.random() < raised.get(degree, 0):
        scale = HARMONIC_MINOR
    notes = 4 if rng.random() < min(1, sevenths * (1.5 if degree in (1, 4) else 1)) else 3
    stack = tuple((scale[(degree + 2 * i) % 7] - scale[degree]) % 12 for i in range(notes))
    return scale[degree], QUALITY_INTERVALS.index(stack if stack in QUALITY_INTERVALS else stack[:3])


def _coloured(rng: np.random.Generator, quality: int) -> int:
    """A triad with a suspended third or an added sixth; other chords stay."""
    others = {"maj": ("sus4", "sus4", "sus2", "maj6"), "min": ("sus4", "sus2", "min6", "minmaj7")}
    return QUALITIES.index(str(rng.choice(others.get(QUALITIES[quality], (QUALITIES[quality],)))))


def _free_quality(rng: np.random.Generator) -> int:
    shares = np.array([QUALITY_SHARES.get(quality, RARE_SHARE) for quality in QUALITIES])
    return int(rng.choice(len(QUALITIES), p=shares / shares.sum()))


# -- A band


def _band(rng: np.random.Generator, chords: tuple[Chord, ...], instruments: Instruments) -> list[Part]:
    """Chords by one or two instruments; bass, melody and drums, or some of them."""
    parts = [Part(int(rng.choice(instruments.chordal)), _comping(rng, chords))]
    if rng.random() < 0.2:
        parts.append(Part(int(rng.choice(instruments.chordal)), _comping(rng, chords), int(rng.integers(50, 110))))
    if rng.random() < 0.7:
        parts.append(Part(int(rng.choice(instruments.basses)), _bass(rng, chords), int(rng.integers(60, 127))))
    if rng.random() < 0.55:
        parts.append(Part(int(rng.choice(instruments.melodic)), _melody(rng, chords), int(rng.integers(50, 115))))
    if rng.random() < 0.35:
        beats = sum(chord.beats for chord in chords)
        parts.append(Part(int(rng.choice(instruments.kits)), _drums(rng, beats), int(rng.integers(50, 127)), True))
    return parts


def _comping(rng: np.random.Generator, chords: tuple[Chord, ...]) -> Notes:
    voicing, centre = str(rng.choice(["near", "near", "root", "inverted", "open"])), int(rng.integers(50, 72))
    doubled, rolled = rng.random() < 0.35, rng.random() < 0.1
    rhythm = str(rng.choice(["held", "struck", "arpeggio", "offbeat", "pattern"]))
    step, order = float(rng.choice([0.25, 1 / 3, 0.5, 0.5, 1])), str(rng.choice(["up", "down", "both", "alberti"]))
    pulse, length = float(rng.choice([0.5, 1, 1, 2])), float(rng.choice([0.4, 0.9, 0.98]))
    pattern = np.flatnonzero(rng.random(8) < 0.5) / 2
    notes: Notes = []
    start = 0.0
    for chord in chords:
        pitches = _voiced(rng, chord, voicing, centre)
        if doubled:
            pitches.append(pitches[0] + 12)
        end = start + chord.beats
        if rhythm == "arpeggio":
            turns = {"up": pitches, "down": pitches[::-1], "both": pitches + pitches[-2:0:-1]}
            cycle = turns.get(order) or [pitches[i % len(pitches)] for i in (0, 2, 1, 2)]
            times = np.arange(start, end - 1e-6, step)
            ring = step * 1.8 if length > 0.5 else step * 0.9
            notes += [(t, min(ring, end - t), cycle[i % len(cycle)], 80) for i, t in enumerate(times)]
        else:
            if rhythm == "held":
                times, lasts = np.array([start]), chord.beats * 0.97
            elif rhythm == "struck":
                times, lasts = np.arange(start, end - 1e-6, pulse), pulse * length
            elif rhythm == "offbeat":
                times, lasts = np.append(start, np.arange(start + 0.5, end - 1e-6, 1)), 0.45
            else:
                bars = np.concatenate([pattern + bar for bar in range(0, int(end) + 4, 4)])
                times, lasts = np.append(start, bars[(bars > start) & (bars < end)]), 0.5 * length
            late = 0.04 if rolled else 0.0
            notes += [
                (t + late * i, max(0.1, min(lasts, end - t) - late * i), pitch, 80)
                for t in times
                for i, pitch in enumerate(pitches)
            ]
        start = end
    return notes


def _voiced(rng: np.random.Generator, chord: Chord, voicing: str, centre: int) -> list[int]:
    """Pitches of a chord, lowest first."""
    if voicing == "near":
        return sorted(_nearest(pitch, centre) for pitch in chord.tones)
    lowest = _nearest(chord.root, centre - 5)
    pitches = [lowest + (pitch - chord.root) % 12 for pitch in chord.tones]
    if voicing == "inverted":
        for _ in range(int(rng.integers(len(pitches)))):
            pitches = [*pitches[1:], pitches[0] + 12]
    elif voicing == "open":
        pitches = sorted([pitches[0], *pitches[2:], pitches[1] + 12])
    if len(pitches) == 4 and rng.random() < 0.1:
        pitches = [pitch for pitch in pitches if (pitch - chord.root) % 12 not in (6, 7, 8)]
    return pitches


def _bass(rng: np.random.Generator, chords: tuple[Chord, ...]) -> Notes:
    manner, centre = str(rng.choice(["held", "fifths", "eighths", "walking", "octaves"])), int(rng.integers(33, 45))
    inversions = float(rng.choice([0, 0.05, 0.25]))
    notes: Notes = []
    start = 0.0
    for i, chord in enumerate(chords):
        end = start + chord.beats
        tone = chord.root if rng.random() >= inversions else int(rng.choice(chord.tones[1:]))
        low = _nearest(tone, centre)
        if manner == "held" or chord.beats < 1:
            notes.append((start, chord.beats * 0.95, low, 90))
        else:
            step = 0.5 if manner in ("eighths", "octaves") else 1.0
            for n, t in enumerate(np.arange(start, end - 1e-6, step)):
                pitch = low
                if manner == "octaves":
                    pitch += 12 * (n % 2)
                elif manner == "fifths" and n % 2:
                    pitch = _nearest(chord.tones[2], low)
                elif manner == "walking" and n:
                    pitch = _nearest(int(rng.choice(chord.tones)), low)
                    if t + step >= end - 1e-6 and i + 1 < len(chords):
                        pitch = _nearest(chords[i + 1].root, low) + int(rng.choice([-2, -1, 1, 2]))
                notes.append((t, min(step, end - t) * 0.92, pitch, 88))
        start = end
    return notes


def _melody(rng: np.random.Generator, chords: tuple[Chord, ...]) -> Notes:
    """A line through chord notes and, more or less often, others of the scale."""
    foreign, pitch = float(rng.uniform(0.1, 0.45)), int(rng.integers(62, 84))
    low, high = pitch - 9, pitch + 9
    ends = np.cumsum([chord.beats for chord in chords])
    notes: Notes = []
    t = 0.0
    while t < ends[-1] - 1e-6:
        chord = chords[int(np.searchsorted(ends, t + 1e-6))]
        length = float(rng.choice([0.5, 0.5, 1, 1, 1.5, 2]))
        kind = rng.random()
        if kind < foreign and t % 1:
            steps = [p for p in range(pitch - 2, pitch + 3) if p % 12 in chord.scale and p != pitch]
            pitch = int(rng.choice(steps)) if steps else pitch
            length = 0.5
        elif kind < foreign / 3:
            # On the beat as well: resolved by what follows, or not.
            scale = [p for p in range(pitch - 3, pitch + 4) if p % 12 in chord.scale]
            pitch, length = int(rng.choice(scale)) if scale else pitch, 0.5
        else:
            pitch = _nearest(int(rng.choice(chord.tones)), int(np.clip(pitch, low, high)))
        if rng.random() < 0.88:
            notes.append((t, length * 0.95, pitch, int(rng.integers(75, 100))))
        t += length
    return notes


def _drums(rng: np.random.Generator, beats: float) -> Notes:
    kicks, snares = rng.random(8) < 0.3, np.arange(8) % 4 == 2
    hat, tick = int(rng.choice([42, 46, 51, 54, 70])), float(rng.choice([0.25, 0.5, 1]))
    kicks[0] = True
    notes: Notes = [(t, 0.2, hat, 70) for t in np.arange(0, beats, tick)]
    for n, t in enumerate(np.arange(0, beats, 0.5)):
        if kicks[n % 8]:
            notes.append((t, 0.2, 36, 95))
        if snares[n % 8]:
            notes.append((t, 0.2, 38, 95))
        if n % 64 == 0:
            notes.append((t, 1, 49, 85))
    return notes


# -- Four voices

RANGES = ((60, 79), (55, 72), (48, 67))  # soprano, alto, tenor; the bass has 40-60


def _voices(rng: np.random.Generator, chords: tuple[Chord, ...], instruments: Instruments) -> list[Part]:
    """Four voices, of one instrument or of two, by the chords' notes, what lies between them, and suspensions."""
    busy, suspended = float(rng.uniform(0, 0.7)), float(rng.uniform(0, 0.2))
    upper = [int(rng.integers(67, 74)), int(rng.integers(60, 66)), int(rng.integers(52, 60))]
    bass = 50
    lines: list[list[int]] = []
    for chord in chords:
        shares = np.array([0.62, 0.24, 0.09, 0.12][: len(chord.tones)])
        bass = _nearest(int(rng.choice(chord.tones, p=shares / shares.sum())), int(np.clip(bass, 43, 57)))
        upper = _led(rng, upper, chord, bass)
        lines.append([*upper, bass])
    notes: Notes = []
    start = 0.0
    for i, chord in enumerate(chords):
        for voice, pitch in enumerate(lines[i]):
            before = lines[i - 1][voice] if i else pitch
            after = lines[i + 1][voice] if i + 1 < len(chords) else pitch
            half = chord.beats / 2 if chord.beats <= 1 else chord.beats - 0.5
            velocity = int(rng.integers(74, 90))
            if 1 <= before - pitch <= 2 and voice < 3 and chord.beats >= 1 and rng.random() < suspended:
                notes += [
                    (start + i * chord.beats / 2, chord.beats / 2, p, velocity) for i, p in enumerate((before, pitch))
                ]
            elif chord.beats >= 1 and rng.random() < busy and (between := _between(rng, pitch, after, chord)):
                notes += [(start, half, pitch, velocity), (start + half, chord.beats - half, between, velocity)]
            else:
                notes.append((start, chord.beats, pitch, velocity))
        start += chord.beats
    program = int(rng.choice(instruments.chordal))
    if rng.random() < 0.2:
        low = [note for note in notes if note[2] < 55]
        high = [note for note in notes if note[2] >= 55]
        return [Part(program, high), Part(int(rng.choice(instruments.chordal)), low)]
    return [Part(program, notes)]


def _led(rng: np.random.Generator, upper: list[int], chord: Chord, bass: int) -> list[int]:
    """The upper voices' next notes: all of the chord sounds if it can, and they move little."""
    options = []
    for (low, high), pitch in zip(RANGES, upper, strict=True):
        middle = int(np.clip(pitch, low + 4, high - 4))
        options.append([_nearest(tone, middle) for tone in chord.tones])
    best, cost = upper, np.inf
    for pitches in itertools.product(*options):
        sounding = {pitch % 12 for pitch in pitches} | {bass % 12}
        missing = [(tone - chord.root) % 12 for tone in chord.tones if tone not in sounding]
        crossing = pitches[0] <= pitches[1] or pitches[1] <= pitches[2] or pitches[2] < bass
        moved = sum(abs(a - b) for a, b in zip(pitches, upper, strict=True))
        total = moved + sum(4 if gap == 7 else 30 for gap in missing) + 20 * crossing + 3 * rng.random()
        if total < cost:
            best, cost = list(pitches), total
    return best


def _between(rng: np.random.Generator, pitch: int, after: int, chord: Chord) -> int:
    """What a voice passes through on its way, a neighbour where it stays; 0 where there is nothing."""
    low, high = min(pitch, after), max(pitch, after)
    if 3 <= high - low <= 5:
        steps = [p for p in range(low + 1, high) if p % 12 in chord.scale]
    elif high == low:
        steps = [p for p in range(pitch - 2, pitch + 3) if p % 12 in chord.scale and p != pitch and rng.random() < 0.3]
    else:
        steps = []
    return int(rng.choice(steps)) if steps else 0


def _nearest(pitch_class: int, centre: int) -> int:
    """The MIDI number of a pitch class that is nearest to `centre`."""
    return centre + (pitch_class - centre + 6) % 12 - 6


# -- Sound


def play(song: Song, rng: np.random.Generator) -> Wave:
    """A song played as written, but for how loud each note is; mono at 22,050 Hz."""
    midi = pretty_midi.PrettyMIDI(initial_tempo=song.tempo)
    beat = 60 / song.tempo
    for part in song.parts:
        instrument = pretty_midi.Instrument(part.program, is_drum=part.is_drum)
        instrument.control_changes.append(pretty_midi.ControlChange(7, part.volume, 0))
        for start, length, pitch, velocity in part.notes:
            loudness = int(np.clip(velocity + rng.normal(0, 7), 30, 127))
            instrument.notes.append(pretty_midi.Note(loudness, pitch, start * beat, (start + length) * beat))
        midi.instruments.append(instrument)
    with tempfile.TemporaryDirectory() as folder:
        midi.write(str(Path(folder, "song.mid")))
        wave = play_midi(Path(folder, "song.mid"), SOUNDFONT)
    n = round(float(song.truth.intervals[-1, 1]) * RATE)
    return np.pad(wave[:n], (0, max(0, n - len(wave))))


def recorded(wave: Wave, truth: ChordSequence, rng: np.random.Generator) -> tuple[Wave, ChordSequence]:
    """A song as it may reach us: after silence, coloured, out of tune, in noise, distorted."""
    intervals, root, quality = truth.intervals.astype(float), truth.root, truth.quality
    if rng.random() < 0.2:
        rest = float(rng.uniform(0.5, 3))
        wave = np.pad(wave, (round(rest * RATE), 0))
        intervals = np.concatenate([[[0, rest]], intervals + rest])
        root, quality = np.append(NO_CHORD, root), np.append(NO_CHORD, quality)
    if rng.random() < 0.5:
        wave = scipy.signal.lfilter([1, rng.uniform(-0.6, 0.6)], [1], wave)
    if rng.random() < 0.4:
        ratio = 2 ** (rng.uniform(-0.42, 0.42) / 12)
        wave, intervals = soxr.resample(wave, RATE * ratio, RATE, "HQ"), intervals / ratio
    wave = wave / max(np.sqrt(np.mean(np.square(wave))), 1e-9)
    if rng.random() < 0.4:
        noise = rng.standard_normal(len(wave))
        if rng.random() < 0.5:
            noise = scipy.signal.lfilter([1], [1, -0.97], noise)
        wave = wave + noise / noise.std() * 10 ** (-rng.uniform(5, 40) / 20)
    if rng.random() < 0.15:
        wave = np.tanh(wave * rng.uniform(0.5, 2))
    return (0.9 * wave / np.abs(wave).max()).astype(np.float32), ChordSequence(intervals, root, quality)
