"""All audio of a data set decoded, and nothing else done: what is cut, damaged, silent, or no audio at all.

Files are decoded in worker processes, as `m2e-extract` does it: one that crashes its decoder costs no other.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m2e.common.errors import DataError
from m2e.extract.audio.reader import survey
from m2e.extract.workers import limits
from m2e.extract.workers.attempts import twice_dead
from m2e.extract.workers.local import LocalWorkers
from m2e.extract.workers.schedule import Lost, run_tasks
from m2e.manifests.check.digests import digest_of, noted
from m2e.manifests.types import Manifest, Track

# What keeps a track from being extracted as it is.
FAILURES = ("bad", "unreadable", "cut", "damaged", "crashed")
# What a worker returns has to fit into a pipe.
_LARGEST_BATCH = 16
_LONGEST_TEXT = 400


@dataclass(frozen=True)
class Finding:
    """One thing to say of a track's audio.

    Attributes:
        track_id: of the track.
        path: the file.
        kind: "bad" (another digest than the published one), "unreadable", "crashed", or the kind of a note.
        text: one line.
    """

    track_id: str
    path: str
    kind: str
    text: str


@dataclass
class Tally:
    """What was found so far.

    Attributes:
        good: files of which there is nothing to say.
        known: of these, how many were noted as good before.
        seconds: of audio that was decoded.
        missing: tracks whose file is not there.
        findings: all others.
    """

    good: int = 0
    known: int = 0
    seconds: float = 0.0
    missing: list[Track] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Files by kind of finding; a file may have several."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def failed(self) -> int:
        """Files that cannot be extracted as they are."""
        return len({finding.path for finding in self.findings if finding.kind in FAILURES})


@dataclass(frozen=True)
class _Item:
    """A file to decode; `sha256` in hex is the published digest, "" for none."""

    number: int
    path: Path
    sha256: str


@dataclass(frozen=True)
class _Outcome:
    number: int
    seconds: float
    findings: tuple[tuple[str, str], ...]


def _survey_all(items: Iterator[_Item]) -> list[_Outcome]:
    """What a worker does."""
    return [_survey(item) for item in items]


def _survey(item: _Item) -> _Outcome:
    limits.allow_decoding(item.path)
    try:
        heard, digest = survey(item.path, digest=bool(item.sha256))
    except DataError as error:
        return _Outcome(item.number, 0, (("unreadable", str(error)[:_LONGEST_TEXT]),))
    except Exception as error:  # whatever a codec does with a hostile file
        return _Outcome(item.number, 0, (("unreadable", f"{type(error).__name__}: {error}"[:_LONGEST_TEXT]),))
    findings: list[tuple[str, str]] = [
        (note.kind, str(note).partition(": ")[2]) for note in (*heard.faults, *heard.notes)
    ]
    if item.sha256 and digest.hex() != item.sha256:
        findings.append(("bad", "its digest is not the published one"))
    return _Outcome(item.number, heard.seconds, tuple(findings))


def hear_all(
    manifest: Manifest,
    digests: dict[str, str],
    state: Path,
    jobs: int,
    advance: Callable[[int], None] = lambda files: None,
    tally: Tally | None = None,
) -> Iterator[Finding]:
    """Decode every track's audio, and compare it with its digest where one is published.

    A file of which there is nothing to say is noted in `state` with its size and time of change, and not decoded
    again while these stay.

    Args:
        manifest: the data set.
        digests: see `m2e.manifests.check.digests.published_digests`; may be empty.
        state: the list of good files.
        jobs: processes.
        advance: told how many files are newly done.
        tally: is filled in.

    Yields:
        What there is to say, as it is found; missing files are in the tally alone.

    Raises:
        DataError: `state` cannot be read or written, or processes cannot live.
    """
    tally = Tally() if tally is None else tally
    items: list[_Item] = []
    entries: dict[int, str] = {}
    with noted(state) as (done, note), LocalWorkers(jobs) as workers:
        for number, track in enumerate(manifest.tracks):
            try:
                status = os.stat(track.audio_path)  # noqa: PTH116
            except OSError:
                tally.missing.append(track)
                advance(1)
                continue
            digest = digest_of(track, digests) or ""
            entry = f"heard{digest and ':'}{digest} {status.st_size} {status.st_mtime_ns} {track.track_id}"
            if entry in done:
                tally.good += 1
                tally.known += 1
                advance(1)
            else:
                entries[number] = entry
                items.append(_Item(number, track.audio_path.absolute(), digest))
        for outcome in run_tasks(_survey_all, items, workers, _LARGEST_BATCH):
            if isinstance(outcome, Lost):
                if not outcome.final:
                    continue
                outcome = _Outcome(outcome.item.number, 0, (("crashed", twice_dead(outcome.death)),))
            track = manifest.tracks[outcome.number]
            tally.seconds += outcome.seconds
            if not outcome.findings:
                tally.good += 1
                note(entries[outcome.number])
            for kind, text in outcome.findings:
                finding = Finding(track.track_id, str(track.audio_path), kind, text)
                tally.findings.append(finding)
                yield finding
            advance(1)
