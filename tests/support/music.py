"""Small audio files that tests write themselves."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray


def chord_wave(notes: tuple[float, ...], seconds: float, rate: int = 22_050) -> NDArray[np.float32]:
    """MIDI `notes` sounding together, four harmonics each."""
    t = np.arange(int(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * 440 * 2 ** ((n - 69) / 12) * k * t) / k for n in notes for k in (1, 2, 3, 4)]
    return (0.5 * np.sum(tones, axis=0) / len(tones)).astype(np.float32)


def write_songs(folder: Path, n: int, seconds: float = 2.0) -> Path:
    """`n` tracks of two chords each, in several formats, and their table folder/songs.csv (valence and arousal)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["track_id,path,valence,arousal"]
    for i in range(n):
        form = ("wav", "flac", "ogg", "mp3")[i % 4]
        chords = [
            chord_wave((48 + i % 12, 52 + i % 12, 55 + i % 12), seconds / 2),
            chord_wave((53, 57, 60), seconds / 2),
        ]
        soundfile.write(folder / f"{i}.{form}", np.concatenate(chords), 22_050)
        rows.append(f"song{i:02d},{i}.{form},{1 + i % 9},{9 - i % 9}")
    table = folder / "songs.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table
