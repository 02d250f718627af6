"""A process that decodes and predicts what strangers send: bounded in time and memory, replaced when it dies.

Decoders are large C libraries, and the files are hostile until proven otherwise: nothing of them is opened in the
server's own process. Answers come back as JSON, never as pickles.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

from m2e.common.checks import is_number, is_whole, unlike
from m2e.common.errors import DataError
from m2e.common.json_files import parse_object
from m2e.predict.setup import Setup

# The model may have to come from a slow disk.
_LOAD_SECONDS = 600.0
_LARGEST_ANSWER = 64_000_000


@dataclass(frozen=True)
class Limits:
    """What a song from outside may cost.

    Attributes:
        upload_bytes: size of the file.
        seconds: decoding and predicting together.
        memory_bytes: address space beyond the loaded model; enforced on Linux only.
    """

    upload_bytes: int
    seconds: float
    memory_bytes: int

    def __post_init__(self) -> None:
        for name in ("upload_bytes", "memory_bytes"):
            if not is_whole(getattr(self, name), 1):
                raise ValueError(unlike(name, getattr(self, name), "a whole number, 1 or more"))
        if not is_number(self.seconds, 0, math.inf) or self.seconds == 0:
            raise ValueError(unlike("seconds", self.seconds, "a finite number above 0"))


class Worker:
    """The process, with the model loaded; one song at a time. Use it in a `with` block."""

    def __init__(self, setup: Setup, limits: Limits) -> None:
        self._setup, self._limits = setup, limits
        self._lock = Lock()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._setup, self._limits.memory_bytes)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # so that its death is the end of the file here
        try:
            answer = self._receive(_LOAD_SECONDS)
        except (EOFError, OSError, ValueError):
            answer = {"error": "the process that is to predict died while it loaded the model"}
        if answer != {}:
            raise DataError(answer["error"] if answer else "the model could not be loaded in time")

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """The next answer, None where it does not come in time. Raises EOFError where the process died."""
        if not self._connection.poll(seconds):
            return None
        return parse_object(self._connection.recv_bytes(_LARGEST_ANSWER))

    def predict(self, path: Path) -> dict[str, Any]:
        """The prediction for a file as `SongPrediction.as_json` has it, without the path.

        Raises:
            DataError: the file is no usable audio, or breaks a limit. The message does not hold the path.
        """
        with self._lock:
            try:
                self._connection.send_bytes(str(path).encode())
                answer = self._receive(self._limits.seconds)
            except (EOFError, OSError, ValueError):
                answer = {"error": "decoding this file broke the decoder, or took more memory than is allowed"}
                self._replace()
            if answer is None:
                answer = {"error": f"this file takes longer than the {self._limits.seconds:g} s that are allowed"}
                self._replace()
        if "error" in answer:
            raise DataError(answer["error"])
        return answer

    @property
    def process_id(self) -> int:
        """Of the process that answers now."""
        assert self._process.pid is not None
        return self._process.pid

    def _replace(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work(connection: Connection, setup: Setup, memory_bytes: int) -> None:
    """The process: load, then answer each path with a prediction or an error, until the other end closes."""
    from m2e.predict.batch import load, predict_or_say

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    try:
        load(setup)
    except DataError as error:
        _answer(connection, {"error": str(error)})
        return
    if sys.platform == "linux":
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        except OSError as error:
            _answer(
                connection, {"error": f"the memory of a song cannot be limited: {error.filename}: {error.strerror}"}
            )
            return
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _answer(connection, {})
    while True:
        try:
            path = connection.recv_bytes().decode()
        except EOFError:
            return
        result = predict_or_say(Path(path), setup)
        if isinstance(result, str):
            out_of_memory = "MemoryError" in result or "allocate memory" in result
            reason = "it takes more memory than is allowed" if out_of_memory else result.replace(path, "the file")
            _answer(connection, {"error": reason})
        else:
            _answer(connection, {**result.as_json(), "song": ""})


def _answer(connection: Connection, values: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(values).encode())
