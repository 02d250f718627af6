"""Sound as a wave in memory, or as a recording that is read block by block; and cut into segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]


class Recording:
    """A mono wave that is decoded anew whenever it is iterated over: blocks one after the other [shape=(n,) each]."""

    def __init__(self, blocks: Callable[[], Iterator[Wave]], samples: int) -> None:
        self._blocks, self._samples = blocks, samples

    def __len__(self) -> int:
        """Samples."""
        return self._samples

    def __iter__(self) -> Iterator[Wave]:
        """Raises DataError when the file can no longer be read, or is another one by now."""
        return self._blocks()


Sound = Wave | Recording


def blocks_of(sound: Sound) -> Iterator[Wave]:
    """The samples of a sound, in blocks; a wave is one."""
    return iter([sound]) if isinstance(sound, np.ndarray) else iter(sound)


def rechunked(sound: Sound, size: int) -> Iterator[Wave]:
    """The samples of a sound in blocks of `size`, the last of which may be shorter."""
    held: list[Wave] = []
    n = 0
    for block in blocks_of(sound):
        start = 0
        while n + len(block) - start >= size:
            end = start + size - n
            yield np.concatenate([*held, block[start:end]]) if held else block[start:end]
            held, n, start = [], 0, end
        if start < len(block):
            held.append(block[start:])
            n += len(block) - start
    if held:
        yield np.concatenate(held) if len(held) > 1 else held[0]


class SizedWaves(Protocol):
    """So many waves, one after the other."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Wave]: ...


def segment_lengths(samples: int, segment: int, tail: str, min_tail: int) -> list[int]:
    """Samples of the consecutive segments of a wave of so many (paper III-A1).

    The remainder is dropped, or with ``tail = "keep"`` kept when it has `min_tail` samples; a wave shorter than one
    segment is one segment.
    """
    full, rest = divmod(samples, segment)
    if not full:
        return [samples]
    return [segment] * full + ([rest] if tail == "keep" and rest >= min_tail and rest else [])


def split_segments(wave: Wave, segment: int, tail: str, min_tail: int) -> list[Wave]:
    """Cut a wave into consecutive segments, as `segment_lengths` has them."""
    ends = np.cumsum(segment_lengths(len(wave), segment, tail, min_tail)).tolist()
    return [wave[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class Segments:
    """The segments of a sound, one after the other; cut out whenever they are iterated over [shape=(n,) each]."""

    def __init__(self, sound: Sound, segment: int, tail: str, min_tail: int) -> None:
        """Arguments as of `segment_lengths`."""
        self._sound, self._segment = sound, segment
        self.lengths = segment_lengths(len(sound), segment, tail, min_tail)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Wave]:
        """Raises DataError when a long file can no longer be decoded."""
        return (wave for wave, _ in zip(rechunked(self._sound, self._segment), self.lengths, strict=False))
