"""Comparing audio files with the digests that a data set publishes, as a stream, and going on where it stopped."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from m2e.common.errors import DataError
from m2e.common.regular import open_regular, read_regular
from m2e.manifests.dataset import DataSet
from m2e.manifests.read.root import Place, is_folder
from m2e.manifests.read.text import MAX_BYTES, read_lines
from m2e.manifests.types import Manifest, Track

STATE_FILE = ".m2e-verified-audio.txt"
_HEADER = "# audio that m2e-manifest verify-audio found good: SHA-256, bytes, time of change, track"
_LINE = re.compile(r"([0-9a-f]{64}) +(\d{2}/\d+(?:\.low)?\.mp3)", re.ASCII)


@dataclass(frozen=True)
class Verdict:
    """What was found of one file: "good", "bad", "missing", "unreadable", or "unlisted": no digest is published."""

    path: Path
    state: str


def published_digests(dataset: DataSet, root: Path) -> dict[str, str]:
    """ "48/948.mp3" -> SHA-256 in hex, of all the lists that are there.

    Raises:
        DataError: the data set publishes none, or none of its lists is there, or a line is of another form or
            contradicts another.
    """
    if not dataset.audio_digests:
        raise DataError(f"{dataset.name}: no digests of its audio are published, so it cannot be verified")
    if not is_folder(root):
        raise DataError(f"{root}: no such folder; `m2e-manifest check {dataset.name}` says how to get it")
    place = Place(root)
    lists = [place.file(Path(name)) for name in dataset.audio_digests]
    there = [path for path in lists if path.is_file()]
    if not there:
        raise DataError(f"{lists[0]}: no such file; the digests come with {dataset.source} (git clone)")
    digests: dict[str, str] = {}
    for path in there:
        for number, line in enumerate(read_lines(path), start=1):
            match = _LINE.fullmatch(line.strip())
            if not match:
                raise DataError(f"{path}: line {number} is not a SHA-256 and a path such as 48/948.mp3")
            if digests.setdefault(match[2], match[1]) != match[1]:
                raise DataError(f"{path}: line {number}: {match[2]} has another digest already")
    return digests


def verify_audio(manifest: Manifest, digests: dict[str, str], state: Path) -> Iterator[Verdict]:
    """Compare every track's audio with its digest, one after the other.

    A good file is written to `state` with its size and time of change, and not read again while these stay.

    Raises:
        DataError: `state` cannot be read or written.
    """
    with noted(state) as (done, note):
        for track in manifest.tracks:
            entry, verdict = _verify(track, digests, done)
            if entry:
                note(entry)
            yield verdict


@contextmanager
def noted(state: Path) -> Iterator[tuple[frozenset[str], Callable[[str], None]]]:
    """The entries in a list of good files, and what adds one to it, at once.

    Raises:
        DataError: `state` cannot be read or written.
    """
    text = _read_state(state)
    try:
        with state.open("a", encoding="utf-8") as log:
            if not text.endswith("\n"):  # new, or cut short by a kill
                log.write("\n" if text else f"{_HEADER}\n")

            def note(entry: str) -> None:
                log.write(f"{entry}\n")
                log.flush()

            yield frozenset(text.split("\n")), note
    except OSError as error:
        raise DataError(
            f"{state}: cannot be written: {error.strerror}; the list of verified files can go elsewhere: --state FILE"
        ) from error


def digest_of(track: Track, digests: dict[str, str]) -> str | None:
    """The published SHA-256 of a track's audio, in hex; None where there is none."""
    path = track.audio_path
    return digests.get(f"{path.parent.name}/{path.name}")


def _verify(track: Track, digests: dict[str, str], done: frozenset[str]) -> tuple[str, Verdict]:
    """A new entry for the state, or "", and the verdict."""
    path = track.audio_path
    digest = digest_of(track, digests)
    try:
        with open_regular(path) as file:
            if digest is None:
                return "", Verdict(path, "unlisted")
            status = os.fstat(file.fileno())
            entry = f"{digest} {status.st_size} {status.st_mtime_ns} {track.track_id}"
            if entry in done:
                return "", Verdict(path, "good")
            good = hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return "", Verdict(path, "missing")
    except (OSError, DataError):
        return "", Verdict(path, "unreadable")
    return (entry, Verdict(path, "good")) if good else ("", Verdict(path, "bad"))


def _read_state(path: Path) -> str:
    """The text of the list, "" where there is none; lines that a kill cut short, and strange ones, match no track.

    Raises:
        DataError: something else than such a list is there, to which nothing may be added.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return ""
        text = read_regular(path, MAX_BYTES).decode(errors="replace")
        if text.startswith(_HEADER) or not (text or path.is_symlink()):  # a link is followed to such a list alone
            return text
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    raise DataError(f"{path}: is there already and is no list of verified audio: give another file with --state")
