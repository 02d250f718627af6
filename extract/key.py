"""The key of a track from its chords, as the paper takes it: music21's key analysis.

Each of the 24 keys has a profile, a weight for every pitch class (Aarden-Essen, as music21 gives them); the key is the
one whose profile correlates best with how long each pitch class sounds. N and X are silent.

"How long" is what music21 makes of a MIDI file in 120 beats a minute, because that is how the paper's keys were made:
it gathers notes that begin and end together, some of them twice, and moves all to sixteenths and triplets. A chord of
a single frame grows by a third that way, and where two keys are about as likely, this decides. What music21 then does
to fill measures changes no duration and takes most of the time; it is left out here.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from m2e.cache.harmony import MODES, ChordSequence, Key, pitch_classes

# A MIDI file's clock: 220 ticks a beat (pretty_midi's default) at 120 beats a minute.
TICKS_PER_BEAT = 220
TICKS_PER_SECOND = 440
# Notes count as one chord up to a sixteenth apart.
TOGETHER = TICKS_PER_BEAT // 4


def estimate_key(chords: ChordSequence) -> Key | None:
    """The likeliest key, or None when no pitched chord was heard."""
    beats = pitch_class_beats(chords)
    if not beats.any():
        return None
    centred = beats - beats.mean()
    correlation = _profiles() @ (centred / max(np.linalg.norm(centred), 1e-9))
    # Equal keys (a lone augmented chord fits three) fall to the highest tonic, then to minor, which is music21's order;
    # rounding keeps the arithmetic's noise from choosing.
    best = max(range(24), key=lambda row: (round(correlation[row], 9), row % 12, row))
    return Key(best % 12, MODES[best // 12])


def pitch_class_beats(chords: ChordSequence) -> NDArray[np.float64]:
    """How long each pitch class sounds, in beats after music21's quantisation [shape=(12,)]."""
    from music21 import note, stream

    gathered = _gathered(_notes(chords))
    rhythm = stream.Stream()
    for start, end, _ in gathered:
        rhythm.insert(start / TICKS_PER_BEAT, note.Note(quarterLength=(end - start) / TICKS_PER_BEAT))
    # Only a sorted stream lets `quantize` look ahead to the next note.
    rhythm.sort()
    rhythm.quantize(inPlace=True)
    beats = np.zeros(12)
    for element, (_, _, sounding) in zip(rhythm, gathered, strict=True):
        np.add.at(beats, sounding, float(element.quarterLength))
    return beats


def _notes(chords: ChordSequence) -> list[tuple[int, int, int]]:
    """(start, pitch class, end), sorted, in ticks: one note for a pitch class that neighbouring chords share."""
    # Chord files have milliseconds, and the MIDI file is made from one.
    ticks = np.rint(TICKS_PER_SECOND * chords.intervals.astype(np.float64).round(3)).astype(int).tolist()
    notes = []
    since: dict[int, int] = {}
    until = 0
    for (start, end), root, quality in zip(ticks, chords.root.tolist(), chords.quality.tolist(), strict=True):
        sounding = set(pitch_classes(root, quality))
        notes += [(since.pop(p), p, until) for p in since.keys() - sounding]
        since |= dict.fromkeys(sounding - since.keys(), start)
        until = end
    return sorted(notes + [(start, p, until) for p, start in since.items()])


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
