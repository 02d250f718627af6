"""Chords as files that people and other programs read: .lab and MIDI.

A .lab file has a line a chord: start and end in seconds, to the millisecond, and the label in Harte's syntax. In the
MIDI file each pitch class is a note from C3 upwards, which lasts as long as neighbouring chords share it, at 120 beats
a minute: the file from which the paper's released code has music21 find the key.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np

from m2e.cache import DataError, FeatureCache
from m2e.cache.harmony import ChordSequence, pitch_classes
from m2e.common.files import mark_export

# A MIDI file's clock, and how fast it runs.
TICKS_PER_BEAT = 220
TICKS_PER_SECOND = 440
LOWEST_NOTE = 48
VELOCITY = 120


def midi_notes(chords: ChordSequence) -> list[tuple[int, int, int]]:
    """(start, pitch class, end), sorted, in ticks: one note for a pitch class that neighbouring chords share."""
    # Chord files have milliseconds, and the released code makes the MIDI file from one.
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


def write_lab(chords: ChordSequence, path: Path) -> None:
    """Write a .lab file."""
    lines = [
        f"{start:.3f} {end:.3f} {label}\n"
        for (start, end), label in zip(chords.intervals.tolist(), chords.labels, strict=True)
    ]
    path.write_text("".join(lines), encoding="utf-8")


def write_midi(chords: ChordSequence, path: Path) -> None:
    """Write a MIDI file."""
    from music21.midi import ChannelVoiceMessages, DeltaTime, MetaEvents, MidiEvent, MidiFile, MidiTrack

    # (tick, whether it sounds, note): what ends at a tick ends before anything begins there.
    events = sorted(
        event
        for start, pitch_class, end in midi_notes(chords)
        for event in ((start, True, pitch_class), (end, False, pitch_class))
    )
    track = MidiTrack(0)

    def add(delay: int, event: MidiEvent) -> None:
        track.events += [DeltaTime(track, time=delay), event]

    tempo = MidiEvent(track, type=MetaEvents.SET_TEMPO)
    tempo.data = (1_000_000 * TICKS_PER_BEAT // TICKS_PER_SECOND).to_bytes(3, "big")
    add(0, tempo)
    now = 0
    for tick, sounds, pitch_class in events:
        kind = ChannelVoiceMessages.NOTE_ON if sounds else ChannelVoiceMessages.NOTE_OFF
        event = MidiEvent(track, type=kind, channel=1)
        event.pitch, event.velocity = LOWEST_NOTE + pitch_class, VELOCITY if sounds else 0
        add(tick - now, event)
        now = tick
    end_of_track = MidiEvent(track, type=MetaEvents.END_OF_TRACK)
    end_of_track.data = b""
    add(0, end_of_track)
    file = MidiFile()
    file.ticksPerQuarterNote = TICKS_PER_BEAT
    file.tracks = [track]
    path.write_bytes(file.writestr())


def chord_files(track_id: str) -> tuple[str, str]:
    """The names of a track's .lab file and of its MIDI file."""
    name = quote(track_id, safe=" ,;!@()[]+=~#&'")
    return f"{name}.lab", f"{name}.mid"


def export_chords(cache: FeatureCache, folder: Path) -> int:
    """Write TRACK.lab and TRACK.mid of every track in a cache; in file names, odd characters stand as in an address.

    Returns:
        How many tracks.

    Raises:
        DataError: `folder` cannot be written, or holds such files that no export wrote; or the cache is damaged.
    """
    try:
        mark_export(folder, (name for track_id in cache.track_ids for name in chord_files(track_id)))
        for track_id in cache.track_ids:
            chords = cache.chords(track_id)
            lab, midi = chord_files(track_id)
            write_lab(chords, folder / lab)
            write_midi(chords, folder / midi)
    except OSError as error:
        raise DataError(f"cannot write chords to {folder}: {error.strerror or error}") from error
    return len(cache.track_ids)
