"""A file of predictions, one JSON object a line, that an interrupted run goes on with."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from m2e.common.errors import DataError
from m2e.common.json_files import parse_object, typed
from m2e.common.regular import append_regular, open_regular
from m2e.predict.result import SongPrediction

# Of every line; what is cut off of a file has to begin so.
_BEGINNING = b'{"song": '
_LONGEST_LINE = 1 << 26


class Record:
    """The predictions of one model, `FILE.jsonl`; each line is on the disk as soon as it is added.

    A line that a kill left half is cut off. A song whose file has changed in size counts as new: its later line holds.
    """

    notes_apart = True

    def __init__(self, path: Path, model: str) -> None:
        """Read what is there.

        Args:
            path: need not exist.
            model: digest of the weights, as `SongPrediction.model`.

        Raises:
            DataError: it holds something else, or predictions of another model, or cannot be written.
        """
        self.path = path
        self._sizes: dict[str, int] = {}
        try:
            whole, ended = self._read(model) if path.exists() else (0, True)
            self._file = append_regular(path)
            self._file.truncate(whole)
            if not ended:
                whole += self._file.write(b"\n")
            self._whole = whole
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error

    def _read(self, model: str) -> tuple[int, bool]:
        """Take in the lines; returns where the last whole one ends, and whether by a newline."""
        end, ended = 0, True
        with io.BufferedReader(open_regular(self.path)) as file:
            lines = iter(lambda: file.readline(_LONGEST_LINE), b"")
            for number, line in enumerate(lines, start=1):
                ended = line.endswith(b"\n")
                try:
                    song = _parse(self.path, number, line)
                except DataError:
                    if not ended and line[: len(_BEGINNING)] == _BEGINNING[: len(line)]:
                        return end, True  # a kill left it half
                    raise
                if song["model"] != model:
                    raise DataError(f"{self.path} holds predictions of another model: choose another --out")
                self._sizes[song["song"]] = song["audio_bytes"]
                end += len(line)
        return end, ended

    def holds(self, song: Path) -> bool:
        """Whether the song is in the file, and its audio is still as long."""
        try:
            return self._sizes.get(str(song)) == song.stat().st_size
        except OSError:
            return False

    def add(self, prediction: SongPrediction) -> None:
        """Append a line. Raises DataError where the disk is full."""
        line = rest = json.dumps(prediction.as_json()).encode() + b"\n"
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._whole)  # the next line is one of its own
            raise DataError(f"cannot write {self.path}: {error.strerror or error}; what it holds is kept") from error
        self._whole += len(line)
        self._sizes[prediction.song] = prediction.audio_bytes

    def finish(self) -> None:
        """Close the file."""
        self._file.close()


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        song = parse_object(line)
        for name, kind in (("song", str), ("audio_bytes", int), ("model", str)):
            typed(song, name, kind)
    except ValueError as error:
        raise DataError(
            f"{path}, line {number}: not a prediction of m2e-predict ({error}); choose another --out"
        ) from error
    return song
