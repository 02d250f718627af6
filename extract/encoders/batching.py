"""Segments of many tracks through an encoder's network in large batches, without waiting for a GPU in between."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from m2e.common.errors import DataError, first_line
from m2e.extract.audio.sound import SizedWaves, Wave

if TYPE_CHECKING:
    from m2e.extract.encoders.registry import Encoder

T = TypeVar("T")

# Passes that a GPU has been given and not finished: one that it works on, and the next.
_ON_THE_WAY = 2
# Beyond this a larger batch of 30 s segments gains nothing: each matrix product has 36,000 rows.
_LARGEST_BATCH = 16
# Of the GPU's free memory; a neighbour may want some, and the allocator cannot use all.
_SHARE_OF_MEMORY = 0.4
# After so many passes of a smaller batch it grows again: a neighbour may have given memory back.
_PASSES_TO_GROW = 8
_TOO_LITTLE = "the GPU has too little free memory for one segment: {}"


class DeviceLostError(DataError):
    """The GPU failed under this process, in which nothing runs on it any more."""


def embed_tracks(
    encoder: Encoder,
    tracks: Iterable[tuple[T, SizedWaves]],
    busy: Callable[[float, float], None] = lambda start, end: None,
) -> Iterator[tuple[T, NDArray[np.float32] | Exception]]:
    """Time means of the hidden states of each track's segments.

    Segments of one length share a pass, whichever tracks they are of; none is padded, which would change what the
    network hears. On a GPU the next passes are prepared while one runs. A pass that fails is tried again with half of
    its segments, down to the one that is to blame: that one's track has failed.

    Args:
        encoder: its `batch` is how many segments share a pass.
        tracks: anything that names the track, and its segments [shape=(n,) each]; taken one by one.
        busy: told when each pass began and ended, in seconds of time.monotonic.

    Yields:
        The name and [shape=(segments, layers, dim)], or what the network raised at one of its segments, in the order in
        which tracks are done; a track without segments is done at once, with an empty array.

    Raises:
        DataError: the GPU's memory does not suffice for one segment.
        DeviceLostError: see there.
    """
    import torch

    waiting: dict[int, list[_Segment[T]]] = defaultdict(list)
    passes: deque[_Pass[T]] = deque()
    failed: list[_Track[T]] = []
    on_the_way = 0 if encoder.device == "cpu" else _ON_THE_WAY
    zero = None if encoder.device == "cpu" else _Zero()
    size: _Size | None = None

    def begin(length: int) -> None:
        nonlocal size
        if encoder.batch is None:
            encoder.batch = _fitting_batch(encoder, length)
        size = size or _Size(encoder.batch)
        together = waiting[length][: size.now]
        try:
            passes.append(_Pass(encoder, together, zero))
        except Exception as error:
            if zero:
                _wait_for(torch.cuda)
            if len(together) > 1:
                size.failed(len(together))  # these wait for the next pass
                return
            if _for_want_of_memory(error):
                raise DataError(_TOO_LITTLE.format(error)) from error
            track = together[0].track
            track.error = error
            failed.append(track)
            for group in waiting.values():
                group[:] = [segment for segment in group if segment.track is not track]
        else:
            size.succeeded()
            del waiting[length][: len(together)]

    def finished(most: int) -> Iterator[tuple[T, NDArray[np.float32] | Exception]]:
        while len(passes) > most:
            for track in passes.popleft().finish(busy):
                yield track.name, track.embeddings
        for track in failed:
            yield track.name, track.error or AssertionError(track.name)
        failed.clear()

    for name, segments in tracks:
        if not len(segments):
            yield name, np.empty((0, 0, 0), np.float32)
        track = _Track(name, len(segments))
        for i, wave in enumerate(segments):
            if track.error:
                break
            group = waiting[len(wave)]
            group.append(_Segment(track, i, wave))
            if len(group) >= (size.now if size else encoder.batch or 1):
                begin(len(wave))
                yield from finished(on_the_way)
    for length, group in waiting.items():
        while group:
            begin(length)
            yield from finished(on_the_way)
    yield from finished(0)


class _Size:
    """How many segments share a pass: half as many after a pass that failed, more again after some that did not."""

    def __init__(self, most: int) -> None:
        self.now = self._most = most
        self._good = 0

    def failed(self, tried: int) -> None:
        self.now, self._good = max(1, tried // 2), 0

    def succeeded(self) -> None:
        self._good += 1
        if self._good >= _PASSES_TO_GROW and self.now < self._most:
            self.now, self._good = min(self._most, 2 * self.now), 0


def _for_want_of_memory(error: Exception) -> bool:
    """Not every library that torch calls raises what torch raises."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("out of memory", "ALLOC_FAILED")
    )


def _wait_for(device: Any) -> None:
    """Wait for a GPU, or an event of one. Raises DeviceLostError when it has failed."""
    try:
        device.synchronize()
    except RuntimeError as error:
        raise DeviceLostError(f"the GPU failed: {first_line(error)}") from error


class _Track(Generic[T]):
    """A track whose segments are on their way."""

    def __init__(self, name: T, segments: int) -> None:
        self.name, self.segments, self.left = name, segments, segments
        self.embeddings = np.empty((0, 0, 0), np.float32)
        self.error: Exception | None = None

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
            means = encoder(waves.to(encoder.device, non_blocking=True))
            self._means = torch.empty(means.shape, pin_memory=pinned).copy_(means, non_blocking=True)
        self._ended = self._mark()

    def finish(self, busy: Callable[[float, float], None]) -> Iterator[_Track[T]]:
        """Wait for the end; the tracks whose last segments these were."""
        began, ended = self._began, self._ended
        if self._zero:
            _wait_for(ended)
            began, ended = self._zero.seconds(began), self._zero.seconds(ended)
        busy(began, ended)
        for segment, means in zip(self._segments, self._means.numpy(), strict=True):
            segment.track.take(segment.number, means)
            if not segment.track.left and not segment.track.error:
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
            encoder(torch.zeros(1, length, device=encoder.device))
    except Exception as error:
        if _for_want_of_memory(error):
            raise DataError(_TOO_LITTLE.format(error)) from error
        raise
    free, _ = torch.cuda.mem_get_info()
    one = torch.cuda.max_memory_allocated() - before
    return max(1, min(_LARGEST_BATCH, int(_SHARE_OF_MEMORY * free / max(one, 1))))
