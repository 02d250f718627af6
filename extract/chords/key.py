"""The key of a track from its chords, as the paper takes it: music21's key analysis.

Each of the 24 keys has a profile, a weight for every pitch class (Aarden-Essen, as music21 gives them); the key is the
one whose profile correlates best with how long each pitch class sounds. N and X are silent.

"How long" is what music21 makes of a MIDI file in 120 beats a minute, because that is how the paper's keys were made:
it gathers notes that begin and end together, some of them twice, and moves all to sixteenths and triplets. A chord of
a single frame grows by a third that way, and where two keys are about as likely, this decides. Here the same is done
to numbers, without the file, the notes as objects and the measures, which take nearly all of music21's time.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import MODES, ChordSequence, Key
from m2e.extract.chords.files import TICKS_PER_BEAT, midi_notes

# Notes count as one chord up to a sixteenth apart.
TOGETHER = TICKS_PER_BEAT // 4


def estimate_key(chords: ChordSequence) -> Key | None:
    """The likeliest key, or None when no pitched chord was heard."""
    beats = pitch_class_beats(chords)
    if not beats.any():
        return None
    centred = beats - beats.mean()
    # Equal keys (a lone augmented chord fits three) fall to the highest tonic, then to minor, which is music21's order;
    # rounding keeps the arithmetic's noise from choosing.
    correlation = np.round(_profiles() @ (centred / max(np.linalg.norm(centred), 1e-9)), 9)
    best = max(range(24), key=lambda row: (correlation[row], row % 12, row))
    return Key(best % 12, MODES[best // 12])


def pitch_class_beats(chords: ChordSequence) -> NDArray[np.float64]:
    """How long each pitch class sounds, in beats after music21's quantisation [shape=(12,)]."""
    gathered = _gathered(midi_notes(chords))
    starts = [start / TICKS_PER_BEAT for start, _, _ in gathered]
    moved = [_quantised(start) for start in starts]
    beats = np.zeros(12)
    for i, (start, end, sounding) in enumerate(gathered):
        later = next((m for m in moved[i + 1 :] if m > moved[i]), None)
        gap = 0.0 if later is None else round(12 * (later - moved[i])) / 12
        np.add.at(beats, sounding, _quantised((end - start) / TICKS_PER_BEAT, gap, shortest=True))
    return beats


def _quantised(beats: float, gap: float = 0.0, shortest: bool = False) -> float:
    """The nearest multiple of a sixteenth or of a triplet, as music21's ``Stream.quantize`` finds it.

    Args:
        beats: a time or a length.
        gap: the time to the next note, which a length had better fill; 0 for a time.
        shortest: a length is at least one sixteenth or triplet.
    """
    candidates = []
    for tick in (1 / 4, 1 / 3):
        below = math.floor(beats / tick)
        match = tick * (below if beats <= tick * below + tick / 2 else below + 1)
        if shortest:
            match = max(match, tick)
        left = 0.0 if gap % tick == 0 else max(gap - match, 0.0)
        candidates.append((left, round(abs(beats - match), 7), tick, match))
    return min(candidates)[-1]


def _gathered(notes: list[tuple[int, int, int]]) -> list[tuple[int, int, list[int]]]:
    """Notes that begin and end together as (start, end, pitch classes), in ticks, the way music21 reads a MIDI file.

    It starts no chord from a note that an earlier chord holds, but lets a later chord hold it again; a chord takes its
    place from its first note and its length from its last.
    """
    chords = []
    held: set[int] = set()
    for i, (start, _, end) in enumerate(notes):
        if i in held:
            continue
        members = [i]
        for j in range(i + 1, len(notes)):
            if notes[j][0] - start >= TOGETHER:
                break
            if abs(notes[j][2] - end) <= TOGETHER:
                members.append(j)
        held.update(members)
        last_start, _, last_end = notes[members[-1]]
        chords.append((start, start + last_end - last_start, [notes[j][1] for j in members]))
    return chords


@cache
def _profiles() -> NDArray[np.float64]:
    """Profiles of 12 major and 12 minor keys, each of zero mean and unit length [shape=(24, 12)]."""
    # music21 is slow to import, and not needed by everything that imports this module.
    from music21.analysis.discrete import AardenEssen

    weights = AardenEssen()
    profiles = np.array([np.roll(weights.getWeights(mode), tonic) for mode in MODES for tonic in range(12)])
    profiles -= profiles.mean(axis=1, keepdims=True)
    return profiles / np.linalg.norm(profiles, axis=1, keepdims=True)
