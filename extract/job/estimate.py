"""What an extraction would take, before it is begun: hours of audio, time on this machine, size of the cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from m2e.cache.layout import CHORD, INDEX
from m2e.cache.settings import ExtractionConfig
from m2e.common.console import say
from m2e.common.cores import cpu_count
from m2e.common.devices import usable_device
from m2e.common.temporary import folder_for_temporaries
from m2e.extract.extractor import Extractor
from m2e.extract.job.report import announce
from m2e.extract.job.session import Session
from m2e.extract.models import Models

# Measured on a piece of noise, twice: the first time compiles and allocates.
_PROBES = 2
# A chord lasts some two seconds of music.
_CHORDS_A_SECOND = 0.5


@dataclass(frozen=True)
class Estimate:
    """What is to be expected of the tracks that are to do.

    Attributes:
        tracks: how many have a length in their headers.
        unreadable: how many have none; they count for nothing.
        hours: of audio.
        seconds: of computing, with `jobs` processes that do not slow each other down.
        cache_bytes: what the cache will grow by.
        jobs: processes.
    """

    tracks: int
    unreadable: int
    hours: float
    seconds: float
    cache_bytes: int
    jobs: int


def say_estimate(session: Session, jobs: int | None) -> Estimate:
    """Say what one data set would take; nothing is written but downloaded weights.

    Args:
        session: what m2e-extract would run; it is told an event "estimate".
        jobs: processes; None: one a core.

    Raises:
        DataError: a model cannot be fetched or loaded.
    """
    manifest = session.manifest
    plan = session.plan(session.standing())
    announce(manifest, session.selection.part, plan)
    models = session.sources.fetch(usable_device(session.device))
    result = estimate([task.path for task in plan.tasks], models, jobs or cpu_count())
    session.tell("estimate", manifest.name, asdict(result))
    unread = f"; {result.unreadable} more files do not say how long they are" if result.unreadable else ""
    time_needed, megabytes = timedelta(seconds=round(result.seconds)), result.cache_bytes / 1e6
    say(
        f"{manifest.name}: {result.tracks} tracks of {result.hours:.1f} hours to do{unread}. On this machine with "
        f"{result.jobs} processes about {time_needed}, and {megabytes:.1f} MB of cache. Nothing was extracted."
    )
    return result


def estimate(paths: Sequence[Path], models: Models, jobs: int) -> Estimate:
    """Read the headers of all files, and time the real encoder and chord recogniser on one segment of noise.

    Raises:
        DataError: a model cannot be loaded.
    """
    with ThreadPoolExecutor() as pool:
        lengths = [seconds for seconds in pool.map(header_seconds, paths) if seconds]
    config = models.config
    preparing, embedding, width = _probe(models)
    # A GPU embeds while the processes prepare; on a CPU they do both.
    rate = max(preparing / jobs, embedding) if models.device == "cuda" else (preparing + embedding) / jobs
    total = sum(lengths)
    segments = sum(count_segments(seconds, config) for seconds in lengths)
    stored = segments * len(config.layers) * width * np.dtype(np.float16).itemsize
    stored += len(lengths) * INDEX.itemsize + round(total * _CHORDS_A_SECOND * CHORD.itemsize)
    return Estimate(
        tracks=len(lengths),
        unreadable=len(paths) - len(lengths),
        hours=total / 3600,
        seconds=total * rate,
        cache_bytes=stored,
        jobs=jobs,
    )


def header_seconds(path: Path) -> float | None:
    """Length of an audio file as its container states it, without decoding; None where it says nothing."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                return None
            if stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            return container.duration / 1e6 if container.duration else None
    except (av.FFmpegError, OSError, ValueError):
        return None


def count_segments(seconds: float, config: ExtractionConfig) -> int:
    """How many segments a track of this length gives."""
    full, rest = divmod(seconds, config.segment_seconds)
    kept = config.tail == "keep" and rest >= config.min_tail_seconds
    return max(1, int(full) + kept)


def _probe(models: Models) -> tuple[float, float, int]:
    """Seconds of one process to prepare, and to embed, a second of audio; and the width of a layer."""
    import soundfile

    extractor = Extractor.of(models)
    encoder = extractor.encoder
    length = models.config.segment_seconds
    with tempfile.TemporaryDirectory(prefix="m2e-", dir=folder_for_temporaries()) as folder:
        path = Path(folder, "probe.flac")
        noise = np.random.default_rng(0).standard_normal(round(length * 44_100)) * 0.1
        soundfile.write(path, noise, 44_100)
        for _ in range(_PROBES):
            started = time.perf_counter()
            track = extractor.prepare(path)
            track = replace(track, segments=list(track.segments) * (encoder.batch or 1))
            prepared = time.perf_counter()
            embeddings = extractor.embed(track)
            embedded = (time.perf_counter() - prepared) / len(embeddings)
    return (prepared - started) / length, embedded / length, embeddings.shape[2]
