"""A song that kills its process costs no other song."""

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest
from support.workspace import STUDENT

from m2e.extract import extractor
from m2e.extract.workers import limits
from m2e.predict.batch import predict_or_say, predict_songs
from m2e.predict.result import SongPrediction
from m2e.predict.setup import Setup, prepare


def test_a_song_that_kills_its_process_is_reported_and_the_others_are_heard(workspace: Path) -> None:
    def hear(song: Path, setup: Setup) -> str:
        if song.name == "deadly.mp3":  # as a decoder's fault
            os.kill(os.getpid(), signal.SIGSEGV)
        return f"{song.name} was tried"

    setup = prepare(workspace / STUDENT, device="cpu")
    songs = [Path(f"{name}.mp3") for name in ("one", "deadly", "two", "three")]
    assert sorted(map(str, predict_songs(songs, setup, 1, hear))) == [
        "deadly.mp3: its worker process crashed, most often in a decoder that the file misleads (SIGSEGV), and again "
        "with nothing else running",
        *(f"{name}.mp3 was tried" for name in ("one", "three", "two")),
    ]


@pytest.mark.parametrize("names", [["hangs.flac"], ["hangs.flac", "song.mp3"]])
def test_a_decoder_that_hangs_costs_that_song(workspace: Path, names: list[str]) -> None:
    def hear(song: Path, setup: Setup) -> SongPrediction | str:
        limits._LEAST_SECONDS = 5.0  # in this process alone
        real = extractor.load_audio

        def load_audio(path: Path, *words: object, **named: object) -> object:
            if path.name == "hangs.flac":  # in native code that keeps the interpreter
                ctypes.PyDLL(None).sleep(600)
            return real(path, *words, **named)  # type: ignore[arg-type]

        extractor.load_audio = load_audio  # type: ignore[assignment]
        try:
            return predict_or_say(song, setup)
        finally:
            extractor.load_audio = real

    setup = prepare(workspace / STUDENT, device="cpu")
    started = time.monotonic()
    found = list(predict_songs([workspace / name for name in names], setup, 1, hear))
    assert time.monotonic() - started < 120
    (line,) = (each for each in found if isinstance(each, str))
    assert line.startswith(f"{workspace / 'hangs.flac'}: its worker process was stopped, since it took far longer than")
    assert [each.song for each in found if not isinstance(each, str)] == [str(workspace / name) for name in names[1:]]
