"""Before any test here touches librosa: compile what it compiles, one process at a time (see m2e.extract.compiled)."""

from m2e.extract.chords import load_recogniser

load_recogniser("template")
