"""Segments of many tracks through an encoder's network in large batches, without waiting for a GPU in between."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError

if TYPE_CHECKING:
    from m2e.extract.encoders import Encoder

T = TypeVar("T")
Wave = NDArray[np.float32]

# Passes that a GPU has been given and not finished: one that it works on, and the next.
_ON_THE_WAY = 2
# Beyond this a larger batch of 30 s segments gains nothing: each matrix product has 36,000 rows.
_LARGEST_BATCH = 16
# Of the GPU's free memory; a neighbour may want some, and the allocator cannot use all.
_SHARE_OF_MEMORY = 0.4
_TOO_LITTLE = "the GPU has too little free memory for one segment: {}"


def embed_tracks(
    encoder: Encoder,
    tracks: Iterable[tuple[T, Sequence[Wave]]],
    busy: Callable[[float, float], None] = lambda start, end: None,
) -> Iterator[tuple[T, NDArray[np.float32]]]:
    """Time means of the hidden states of each track's segments.

    Segments of one length share a pass, whichever tracks they are of; none is padded, which would change what the
    network hears. On a GPU the next passes are prepared while one runs.

    Args:
        encoder: its `batch` is how many segments share a pass.
        tracks: anything that names the track, and its segments [shape=(n,) each]; taken one by one.
        busy: told when each pass began and ended, in seconds of time.monotonic.

    Yields:
        The name and [shape=(segments, layers, dim)], in the order in which tracks are done; a track without segments
        is done at once, with an empty array.

    Raises:
        DataError: the GPU's memory does not suffice for one segment.
    """
    import torch

    waiting: dict[int, list[_Segment[T]]] = defaultdict(list)
    passes: deque[_Pass[T]] = deque()
    on_the_way = 0 if encoder.device == "cpu" else _ON_THE_WAY
    zero = None if encoder.device == "cpu" else _Zero()

    def begin(length: int) -> None:
        if encoder.batch is None:
            encoder.batch = _fitting_batch(encoder, length)
        together = waiting[length][: encoder.batch]
        try:
            passes.append(_Pass(encoder, together, zero))
        except torch.OutOfMemoryError as error:
            if len(together) == 1:
                raise DataError(_TOO_LITTLE.format(error)) from error
            encoder.batch = len(together) // 2  # a neighbour has taken some: these wait for the next pass
        else:
            del waiting[length][: len(together)]

    def finished(most: int) -> Iterator[tuple[T, NDArray[np.float32]]]:
        while len(passes) > most:
            for track in passes.popleft().finish(busy):
                yield track.name, track.embeddings

    for name, segments in tracks:
        if not segments:
            yield name, np.empty((0, 0, 0), np.float32)
        track = _Track(name, len(segments))
        for i, wave in enumerate(segments):
            group = waiting[len(wave)]
            group.append(_Segment(track, i, wave))
            if len(group) >= (encoder.batch or 1):
                begin(len(wave))
                yield from finished(on_the_way)
    for length, group in waiting.items():
        while group:
            begin(length)
            yield from finished(on_the_way)
    yield from finished(0)


class _Track(Generic[T]):
    """A track whose segments are on their way."""

    def __init__(self, name: T, segments: int) -> None:
        self.name, self.segments, self.left = name, segments, segments
        self.embeddings = np.empty((0, 0, 0), np.float32)

    def take(self, number: int, means: NDArray[np.float32]) -> None:
        """One segment's. In one piece of memory: small ones, kept for long, would break up what passes need again."""
        if self.left == self.segments:
            self.embeddings = np.empty((self.segments, *means.shape), np.float32)
        self.embeddings[number] = means
        self.left -= 1


@dataclass(frozen=True, eq=False)
class _Segment(Generic[T]):
    track: _Track[T]
    number: int
    wave: Wave


class _Pass(Generic[T]):
    """Segments of one length that the network has been given; on a GPU it may still be at them."""

    def __init__(self, encoder: Encoder, segments: Sequence[_Segment[T]], zero: _Zero | None) -> None:
        """`zero`: of a GPU."""
        import torch

        self._segments, self._zero = segments, zero
        pinned = zero is not None  # what a GPU copies from and to by itself
        waves = torch.empty(len(segments), len(segments[0].wave), pin_memory=pinned)
        for row, segment in zip(waves.numpy(), segments, strict=True):
            row[:] = segment.wave
        self._began = self._mark()
        with torch.inference_mode():
            means = encoder.network(waves.to(encoder.device, non_blocking=True))
            self._means = torch.empty(means.shape, pin_memory=pinned).copy_(means, non_blocking=True)
        self._ended = self._mark()

    def finish(self, busy: Callable[[float, float], None]) -> Iterator[_Track[T]]:
        """Wait for the end; the tracks whose last segments these were."""
        began, ended = self._began, self._ended
        if self._zero:
            ended.synchronize()
            began, ended = self._zero.seconds(began), self._zero.seconds(ended)
        busy(began, ended)
        for segment, means in zip(self._segments, self._means.numpy(), strict=True):
            segment.track.take(segment.number, means)
            if not segment.track.left:
                yield segment.track

    def _mark(self) -> Any:
        """Now; on a GPU when it gets there."""
        return _event() if self._zero else time.monotonic()


class _Zero:
    """A moment by the GPU's clock and by ours; a new one now and then, since its clock counts in float32."""

    def __init__(self) -> None:
        self._event = _event()
        self._event.synchronize()
        self._then = time.monotonic()

    def seconds(self, event: Any) -> float:
        """When an event that is past was, in seconds of time.monotonic."""
        return self._then + float(self._event.elapsed_time(event)) / 1e3


def _event() -> Any:
    import torch

    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _fitting_batch(encoder: Encoder, length: int) -> int:
    """How many segments of this length one pass has memory for, as one shows.

    Raises:
        DataError: not even one fits.
    """
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        with torch.inference_mode():
            encoder.network(torch.zeros(1, length, device=encoder.device))
    except torch.OutOfMemoryError as error:
        raise DataError(_TOO_LITTLE.format(error)) from error
    free, _ = torch.cuda.mem_get_info()
    one = torch.cuda.max_memory_allocated() - before
    return max(1, min(_LARGEST_BATCH, int(_SHARE_OF_MEMORY * free / max(one, 1))))
