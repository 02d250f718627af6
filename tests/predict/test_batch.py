"""A song that kills its process costs no other song."""

import os
import signal
from pathlib import Path

from support.workspace import STUDENT

from m2e.predict.batch import predict_songs
from m2e.predict.setup import Setup, prepare


def test_a_song_that_kills_its_process_is_reported_and_the_others_are_heard(workspace: Path) -> None:
    def hear(song: Path, setup: Setup) -> str:
        if song.name == "deadly.mp3":  # as a decoder's fault
            os.kill(os.getpid(), signal.SIGSEGV)
        return f"{song.name} was tried"

    setup = prepare(workspace / STUDENT, device="cpu")
    songs = [Path(f"{name}.mp3") for name in ("one", "deadly", "two", "three")]
    assert sorted(map(str, predict_songs(songs, setup, 1, hear))) == [
        "deadly.mp3: its decoder crashed, or took all memory (SIGSEGV)",
        *(f"{name}.mp3 was tried" for name in ("one", "three", "two")),
    ]
