"""What every chord recogniser is."""

from __future__ import annotations

from typing import Protocol

from m2e.cache.harmony import ChordSequence
from m2e.extract.audio.sound import Sound

SAMPLE_RATE = 22_050


class ChordRecogniser(Protocol):
    """Hears chords in a mono sound at 22,050 Hz of at least one sample; its name and revision go into the cache.

    A long track's sound is a `Recording`, which is decoded anew whenever it is iterated over.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def __call__(self, sound: Sound, /) -> ChordSequence: ...
