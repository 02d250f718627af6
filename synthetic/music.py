"""Synthetic music with known chords, key and mood: the sound of the demo data sets. No recording is used.

A track is a `Recipe`, drawn from a random generator, and `render` turns a recipe into samples.

Latents: valence v and arousal a, independent and uniform on [-1, 1]. Every cue below is a noisy function of them,
so that none gives them away alone; `_cue` mixes a share of latent with a share of chance.

================  =====================================================================================
cue               follows
================  =====================================================================================
mode              major with probability 0.93 at v = 1, 0.07 at v = -1
lead, pad         the instrument's place on a line from hollow (reed, organ) to ringing (pluck, bell): v
register          centre of the lead, MIDI 52-82: mostly v, some a
bass              level of the bass against the rest, heavier for low v
tempo             58-164 beats a minute: a
brightness        slope of the harmonics, -14 to -4 dB an octave: a
density           lead notes a beat, 1/2 to 4: a
staccato          sounding share of a note's length: short for high a, and for high v
percussion        level of kick, snare and hat; none below a threshold: a
snr_db            music over a constant background hiss, 8-42 dB: a. Level alone is invisible to an encoder
                  whose input is normalised to unit variance; the hiss makes it audible
tonic, chords     chance: 4-bar progressions of the key (`PROGRESSIONS`), a chord a bar, two sections
stereo, duration  chance: 30 % stereo; 40-100 s, mean near 55 s, a whole number of bars
================  =====================================================================================

All minor progressions begin on the tonic triad and use the scale's natural or, under V, its raised seventh degree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import QUALITIES, ChordSequence, Key, Mode, pitch_classes

Sound = NDArray[np.float32]
Chord = tuple[int, int]

# Semitones above the tonic, and quality.
DEGREES: dict[Mode, dict[str, tuple[int, str]]] = {
    "major": {
        "I": (0, "maj"), "ii": (2, "min"), "iii": (4, "min"), "IV": (5, "maj"), "V": (7, "maj"), "vi": (9, "min"),
        "Imaj7": (0, "maj7"), "ii7": (2, "min7"), "IVmaj7": (5, "maj7"), "V7": (7, "7"), "vi7": (9, "min7"),
    },
    "minor": {
        "i": (0, "min"), "III": (3, "maj"), "iv": (5, "min"), "V": (7, "maj"), "VI": (8, "maj"), "VII": (10, "maj"),
        "i7": (0, "min7"), "iv7": (5, "min7"), "V7": (7, "7"), "VImaj7": (8, "maj7"),
    },
}  # fmt: skip
PROGRESSIONS: dict[Mode, tuple[str, ...]] = {
    "major": (
        "I V vi IV", "I vi IV V", "I IV V I", "I IV I V7", "I ii V I", "I iii IV V",
        "Imaj7 vi7 ii7 V7", "I IVmaj7 ii7 V",
    ),
    "minor": (
        "i VI III VII", "i iv V i", "i VII VI V", "i VI iv V", "i iv i V7", "i III VI V",
        "i7 iv7 VImaj7 V7", "i VImaj7 iv7 V",
    ),
}  # fmt: skip
BEATS_PER_BAR = 4
MIN_SECONDS, MAX_SECONDS = 40.0, 100.0


@dataclass(frozen=True)
class Timbre:
    """An instrument: level of its even harmonics, decay time in seconds (None: it sustains), attack in seconds, and
    frequency ratios and levels of partials beside the harmonics."""

    even: float
    decay: float | None
    attack: float
    partials: tuple[tuple[float, float], ...] = ()


# In order of valence, from hollow to ringing.
LEADS = (
    Timbre(even=0.02, decay=None, attack=0.05),  # reed
    Timbre(even=0.35, decay=None, attack=0.03),  # organ
    Timbre(even=0.8, decay=0.35, attack=0.004),  # pluck
    Timbre(even=0.2, decay=0.6, attack=0.002, partials=((2.76, 0.45), (5.40, 0.3), (8.93, 0.2))),  # bell
)
PADS = (
    Timbre(even=0.05, decay=None, attack=0.25),
    Timbre(even=0.5, decay=None, attack=0.12),
    Timbre(even=1.0, decay=1.2, attack=0.008),
)
BASS = Timbre(even=0.6, decay=0.9, attack=0.006)


@dataclass(frozen=True)
class Recipe:
    """All that determines a synthetic track.

    Attributes:
        valence, arousal: the latents, -1 to 1.
        key: tonic and mode.
        chords: (root, quality) of each bar, as `m2e.cache.harmony` numbers them.
        tempo: beats a minute; a bar has four.
        lead, pad: indices into LEADS and PADS.
        register: MIDI number around which the lead plays.
        brightness: slope of the harmonics, dB an octave (negative).
        density: lead notes a beat.
        staccato: sounding share of a lead note's length, 0-1.
        bass, percussion: levels beside the pad's 1; 0 is silence.
        snr_db: power of the music over that of the hiss below 12 kHz, dB.
        stereo: two channels.
        seed: of the melody and the noises.
    """

    valence: float
    arousal: float
    key: Key
    chords: tuple[Chord, ...]
    tempo: float
    lead: int
    pad: int
    register: int
    brightness: float
    density: float
    staccato: float
    bass: float
    percussion: float
    snr_db: float
    stereo: bool
    seed: int

    @property
    def bar_seconds(self) -> float:
        return BEATS_PER_BAR * 60 / self.tempo

    @property
    def duration(self) -> float:
        """Seconds, 40 to 100."""
        return len(self.chords) * self.bar_seconds


def draw_recipe(rng: np.random.Generator) -> Recipe:
    """Draw a track; equal generator states give equal recipes."""

    def cue(low: float, high: float, latent: float, chance: float = 0.2) -> float:
        """`low` at latent -1, `high` at latent 1, give or take."""
        place = 0.5 + 0.5 * latent * (1 - 0.3 * chance) + 0.5 * chance * rng.normal()
        return low + (high - low) * float(np.clip(place, 0, 1))

    v, a = (float(x) for x in rng.uniform(-1, 1, size=2))
    mode: Mode = "major" if rng.random() < 0.5 + 0.43 * v else "minor"
    key = Key(int(rng.integers(12)), mode)
    tempo = cue(58, 164, a)
    # The margin keeps the whole number of bars, the longest of which lasts 4.2 s, within the limits.
    seconds = rng.beta(1, 3.3) * (MAX_SECONDS - MIN_SECONDS - 5) + MIN_SECONDS + 2.5
    bars = round(seconds * tempo / 60 / BEATS_PER_BAR)
    return Recipe(
        valence=v,
        arousal=a,
        key=key,
        chords=_draw_chords(rng, key, bars),
        tempo=tempo,
        lead=min(int(cue(0, len(LEADS), v)), len(LEADS) - 1),
        pad=min(int(cue(0, len(PADS), v)), len(PADS) - 1),
        register=round(cue(52, 82, 0.8 * v + 0.2 * a)),
        brightness=cue(-14, -4, a),
        density=2.0 ** round(cue(-1.4, 2.4, a)),
        staccato=cue(0.95, 0.3, 0.6 * a + 0.4 * v),
        bass=cue(1.6, 0.3, v),
        percussion=max(0.0, cue(-1.2, 1.2, a)),
        snr_db=cue(8, 42, a),
        stereo=bool(rng.random() < 0.3),
        seed=int(rng.integers(2**32)),
    )


def _draw_chords(rng: np.random.Generator, key: Key, bars: int) -> tuple[Chord, ...]:
    """Two sections of 8 bars in turn, each a progression played twice."""
    sections = [PROGRESSIONS[key.mode][i].split() for i in rng.choice(len(PROGRESSIONS[key.mode]), 2, replace=False)]
    names = [sections[bar // 8 % 2][bar % 4] for bar in range(bars)]
    chords = [DEGREES[key.mode][name] for name in names]
    return tuple(((key.tonic + step) % 12, QUALITIES.index(quality)) for step, quality in chords)


def recipe_chords(recipe: Recipe) -> ChordSequence:
    """The true chords, equal neighbours merged; they fill the track."""
    return ChordSequence.from_frames(list(recipe.chords), recipe.bar_seconds, recipe.duration)


def render(recipe: Recipe, sample_rate: int) -> Sound:
    """Play a recipe.

    Args:
        recipe: what to play.
        sample_rate: Hz; notes are synthesised at this rate, band-limited, without resampling.

    Returns:
        Samples with a peak below 0.9 [shape=(n,), or (n, 2) for a stereo recipe].
    """
    rng = np.random.default_rng(recipe.seed)
    parts = _Player(recipe, sample_rate).parts(rng)  # [shape=(parts, n)]
    if recipe.stereo:
        left = np.array([1.0, 1.2, 0.8, 0.9], np.float32)
        music = np.stack([left @ parts, (2 - left) @ parts], axis=1)  # [shape=(n, 2)]
    else:
        music = parts.sum(axis=0)  # [shape=(n,)]
    music /= np.sqrt(np.mean(np.square(music)))
    # Equal density at every rate, so that the encoder's band holds equal noise.
    hiss = rng.standard_normal(music.shape, np.float32) * np.float32(np.sqrt(sample_rate / 24_000))
    mixture = music * np.float32(10 ** (recipe.snr_db / 20)) + hiss
    # The hiss is what stays constant among tracks, as far as the loudest of them fit.
    return mixture * np.float32(min(0.0015, 0.9 / (np.abs(mixture).max() * 1.001)))


class _Player:
    """Plays the parts of one recipe at one sample rate; a note that sounds twice is computed once."""

    def __init__(self, recipe: Recipe, sample_rate: int) -> None:
        self.recipe = recipe
        self.rate = sample_rate
        self.samples = round(recipe.duration * sample_rate)
        self.notes: dict[tuple[Timbre, int, float], Sound] = {}

    def parts(self, rng: np.random.Generator) -> Sound:
        """Pad, lead, bass and percussion [shape=(4, n)]."""
        recipe, beat = self.recipe, 60 / self.recipe.tempo
        pad, lead, bass, drums = parts = np.zeros((4, self.samples), np.float32)
        step = beat / recipe.density
        steps_per_bar = max(1, round(BEATS_PER_BAR * recipe.density))
        for bar, (root, quality) in enumerate(recipe.chords):
            start = bar * recipe.bar_seconds
            tones = pitch_classes(root, quality)
            for pitch in tones:
                self._add(pad, start, self.note(PADS[recipe.pad], _nearest(pitch, 57), recipe.bar_seconds), 0.5)
            for half in range(2):
                note = self.note(BASS, _nearest(root, 40), 2 * beat)
                self._add(bass, start + 2 * half * beat, note, recipe.bass)
            for i in range(steps_per_bar):
                if rng.random() < 0.85:
                    pitch = _nearest(int(rng.choice(tones)), recipe.register + int(rng.integers(-5, 6)))
                    note = self.note(LEADS[recipe.lead], pitch, step * recipe.staccato)
                    self._add(lead, start + i * step, note, 1.0 if i == 0 else 0.8)
        if recipe.percussion:
            self._play_drums(drums, rng)
        return parts

    def _play_drums(self, out: Sound, rng: np.random.Generator) -> None:
        """Kick on 1 and 3, snare on 2 and 4, hat on every half beat."""
        t = np.arange(round(0.25 * self.rate), dtype=np.float32) / self.rate
        noise = rng.standard_normal(len(t), np.float32)
        kick = np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-t * 30)))) * np.exp(-t * 14) * 2
        snare = noise * np.exp(-t * 22)
        hat = np.diff(noise, prepend=noise[:1]) * np.exp(-t * 60) * 0.6
        half_beat = 30 / self.recipe.tempo
        for i in range(2 * BEATS_PER_BAR * len(self.recipe.chords)):
            self._add(out, i * half_beat, hat, self.recipe.percussion)
            if i % 2 == 0:
                self._add(out, i * half_beat, snare if i % 4 else kick, self.recipe.percussion)

    def _add(self, out: Sound, start: float, sound: Sound, level: float) -> None:
        first = round(start * self.rate)
        last = min(first + len(sound), len(out))
        out[first:last] += np.float32(level) * sound[: last - first]

    def note(self, timbre: Timbre, midi: int, seconds: float) -> Sound:
        """One note at level 1; it rings 50 ms beyond `seconds`."""
        key = (timbre, midi, seconds)
        if key not in self.notes:
            self.notes[key] = self._make_note(timbre, midi, seconds)
        return self.notes[key]

    def _make_note(self, timbre: Timbre, midi: int, seconds: float) -> Sound:
        hertz = 440 * 2 ** ((midi - 69) / 12)
        n = round((seconds + 0.05) * self.rate)
        t = np.arange(n, dtype=np.float32) / self.rate
        table = self._cycle(timbre, hertz)
        phase = np.arange(n, dtype=np.float64) * (hertz / self.rate * len(table))
        sound = table[phase.astype(np.int32) & (len(table) - 1)]
        for ratio, level in timbre.partials:
            if ratio * hertz < 0.45 * self.rate:
                sound += level * np.sin(2 * np.pi * ratio * hertz * t) * np.exp(-t * (2 * ratio))
        envelope = np.minimum(1, t / timbre.attack) * np.clip((seconds + 0.05 - t) / 0.05, 0, 1)
        return sound * (envelope if timbre.decay is None else envelope * np.exp(-t / timbre.decay))

    def _cycle(self, timbre: Timbre, hertz: float) -> Sound:
        """One period of the harmonics below 0.45 of the sample rate, fine enough to be read without interpolation."""
        k = np.arange(1, max(2, int(min(0.45 * self.rate, 10_000) / hertz) + 1))
        levels = k ** (self.recipe.brightness / 6.02) * np.where(k % 2, 1.0, timbre.even)
        size = 8192
        spectrum = np.zeros(size // 2 + 1, complex)
        # Phases in the manner of Schroeder keep the peaks of bright sounds low.
        spectrum[k] = levels / np.sqrt(np.sum(levels**2)) * np.exp(-1j * np.pi * k**2 / len(k))
        return (np.fft.irfft(spectrum) * size / np.sqrt(2)).astype(np.float32)


def _nearest(pitch_class: int, centre: int) -> int:
    """The MIDI number of a pitch class that is nearest to `centre`."""
    return centre + (pitch_class - centre + 6) % 12 - 6
