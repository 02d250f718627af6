"""Writers and packers as forked processes that say through a pipe what is done."""

from __future__ import annotations

import os
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from support.caches import CONFIG, random_track

from m2e.cache import DataError, FeatureWriter
from m2e.cache.care import pack as packing
from m2e.cache.folders import features_folder

_NOTE = struct.Struct("<cI")
STARTED, COMMITTED, PACKED = b"s", b"c", b"p"


def track_id(number: int) -> str:
    return f"t{number:06d}"


def write(
    folder: Path, numbers: Iterable[int], batch: int, tell: Callable[[bytes, int], None], pause: float = 0
) -> None:
    """Tracks in shards of `batch`, `pause` seconds apart; each is told of when it is begun, and when it is durable."""
    with FeatureWriter(folder, CONFIG) as writer:
        waiting: list[int] = []
        for number in numbers:
            tell(STARTED, number)
            writer.add(random_track(track_id(number), seed=number, segments=1 + number % 3))
            waiting.append(number)
            if len(waiting) == batch:
                writer.seal()
                for done in waiting:
                    tell(COMMITTED, done)
                waiting = []
                time.sleep(pause)
        writer.seal()
        for done in waiting:
            tell(COMMITTED, done)


def pack_endlessly(folder: Path, tell: Callable[[bytes, int], None]) -> None:
    """Pack again and again, over what other packers left; in small packs, so that many are replaced."""
    packing.PACK_TRACKS = 64
    while not folder.is_dir():
        time.sleep(0.01)
    while True:
        try:
            done = packing.pack(features_folder(folder, CONFIG))
            if done.written:
                tell(PACKED, done.written)
        except DataError as error:
            # The first writer has not got so far; or another packer was killed before its lock had its name.
            if "config.json" not in str(error) and "--break-lock" not in str(error):
                raise
            time.sleep(0.01)


@dataclass
class Child:
    """A forked process and what it has told so far."""

    process: int
    pipe: int
    rest: bytes = b""

    def told(self) -> list[tuple[bytes, int]]:
        """What is new; nothing that was told is lost by a kill."""
        while True:
            try:
                part = os.read(self.pipe, 1 << 20)
            except BlockingIOError:
                break
            if not part:
                break
            self.rest += part
        whole = len(self.rest) // _NOTE.size * _NOTE.size
        notes = list(_NOTE.iter_unpack(self.rest[:whole]))
        self.rest = self.rest[whole:]
        return notes

    def first(self, seconds: float | None = None) -> tuple[bytes, int] | None:
        """Wait for the first note, so long at most; None where there is none."""
        while len(self.rest) < _NOTE.size:
            if not select.select([self.pipe], [], [], seconds)[0]:
                return None
            part = os.read(self.pipe, _NOTE.size - len(self.rest))
            if not part:
                raise EOFError("the child ended before it said anything")
            self.rest += part
        kind, number = _NOTE.unpack(self.rest)
        self.rest = b""
        return kind, number

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    def close(self) -> None:
        os.close(self.pipe)


def fork(action: Callable[[Callable[[bytes, int], None]], None]) -> Child:
    """Run `action` in a child process; it gets a function to tell with."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        code = 1
        try:
            action(lambda kind, number: _tell(writing, kind, number))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    os.set_blocking(reading, False)
    return Child(process, reading)


def _tell(pipe: int, kind: bytes, number: int) -> None:
    os.write(pipe, _NOTE.pack(kind, number))
