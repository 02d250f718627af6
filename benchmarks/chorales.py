"""Bach's chorales with chords by human analysts: Roman numerals of music21's corpus, set beside its scores.

The analyses (Andrew Jones and others, in music21's ``bach/choraleAnalyses``) name a chord on nearly every beat, and
voices pass through notes of none: harder than a pop song.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

from m2e.cache.harmony import QUALITIES, UNKNOWN_CHORD, ChordSequence, Key, pitch_classes

BEATS_PER_SECOND = 72 / 60
# Of the notes' time, this share must be on notes of the analyst's chords: else the score is another one.
MIN_FIT = 0.8


@dataclass(frozen=True)
class Chorale:
    """An analysed chorale: its number in Riemenschneider's edition, its notes (start, end in seconds, MIDI pitch),
    chords and key."""

    number: int
    notes: list[tuple[float, float, int]]
    truth: ChordSequence
    key: Key

    @property
    def seconds(self) -> float:
        return float(self.truth.intervals[-1, 1])

    def write_midi(self, program: int, path: Path) -> None:
        """Write the notes for a General MIDI program."""
        midi = pretty_midi.PrettyMIDI()
        instrument = pretty_midi.Instrument(program)
        instrument.notes = [pretty_midi.Note(80, pitch, start, end) for start, end, pitch in self.notes]
        midi.instruments.append(instrument)
        midi.write(str(path))


def load_chorales() -> Iterator[Chorale]:
    """Those of the 20 analysed chorales whose score the corpus holds in the form that was analysed."""
    from music21 import converter, corpus
    from music21.roman import RomanNumeral

    paths = corpus.getCorePaths()
    for path in sorted(p for p in paths if p.parent.name == "choraleAnalyses" and p.suffix == ".rntxt"):
        work = re.search(r"BWV: *([\d.]+)", path.read_text(encoding="utf-8"))
        if work is None:
            continue
        analysis = converter.parse(path, format="romanText", forceSource=True, storePickle=False).flatten()
        numerals = list(analysis.getElementsByClass(RomanNumeral))
        starts = np.array([float(numeral.offset) for numeral in numerals] + [float(analysis.highestTime)])
        sounding = [frozenset(numeral.pitchClasses) for numeral in numerals]
        for score_path in paths:
            if re.fullmatch(rf"bwv{re.escape(work[1])}(\.\w+)?\.mxl", score_path.name):
                notes = _notes(corpus.parse(f"bach/{score_path.stem}"))
                shift, fit = _transposition(notes, starts, sounding)
                if fit < MIN_FIT or abs(max(end for _, end, _ in notes) - starts[-1]) > 1:
                    continue
                chords = [_chord(numeral) for numeral in numerals]
                yield Chorale(
                    number=int(path.stem.removeprefix("riemenschneider")),
                    notes=[(s / BEATS_PER_SECOND, e / BEATS_PER_SECOND, p + shift) for s, e, p in notes],
                    truth=ChordSequence(
                        np.stack([starts[:-1], starts[1:]], axis=1) / BEATS_PER_SECOND,
                        np.array([root for root, _ in chords]),
                        np.array([quality for _, quality in chords]),
                    ),
                    key=Key(numerals[0].key.tonic.pitchClass, numerals[0].key.mode),
                )


def _notes(score: Any) -> list[tuple[float, float, int]]:
    """Start and end in beats, and MIDI pitch, of the four voices."""
    return [
        (float(note.offset), float(note.offset + note.quarterLength), pitch.midi)
        for part in score.parts[:4]
        for note in part.flatten().notes
        for pitch in note.pitches
    ]


def _transposition(
    notes: list[tuple[float, float, int]], starts: np.ndarray, sounding: list[frozenset[int]]
) -> tuple[int, float]:
    """Semitones, -5 to 6, that bring the score into the analyst's key, and the share of time on chord notes then."""
    members = np.array([[(p in chord) for p in range(12)] for chord in sounding], float)
    fitting = np.zeros(12)
    for start, end, pitch in notes:
        overlap = np.clip(np.minimum(starts[1:], end) - np.maximum(starts[:-1], start), 0, None)
        fitting += np.roll(overlap @ members, -(pitch % 12))
    shift = int(fitting.argmax())
    return (shift + 5) % 12 - 5, float(fitting[shift] / sum(end - start for start, end, _ in notes))


def _chord(numeral: Any) -> tuple[int, int]:
    """(root, quality), X where the vocabulary has no such chord."""
    root = numeral.root().pitchClass
    sounding = set(numeral.pitchClasses)
    for quality in range(len(QUALITIES)):
        if set(pitch_classes(root, quality)) == sounding:
            return root, quality
    return UNKNOWN_CHORD, UNKNOWN_CHORD
