"""What torch makes of products of float32 matrices, for the length of a block.

A process may have told torch to round them, and on GPUs some are rounded unless it is told not to: features and models
must not depend on that.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

Float32Products = Literal["ieee", "tf32"]


class _Blocks(threading.local):
    """Whether this thread is in a block."""

    inside = False


class _Process:
    """The threads that are in blocks: all of one kind, since torch has one setting for all of them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.kind: Float32Products = "ieee"
        self.count = 0
        self.restore: Callable[[], None] = lambda: None


_BLOCKS, _PROCESS = _Blocks(), _Process()


@contextlib.contextmanager
def float32_products(kind: Float32Products) -> Iterator[None]:
    """Products and convolutions of float32: as they are ("ieee"), or rounded to TF32 on a GPU that can.

    Torch's settings are as they were when the last thread has left. A thread waits while others are in blocks of the
    other kind; a block within a block of the same thread is of the outer one's kind.
    """
    if _BLOCKS.inside:
        yield
        return
    with _PROCESS.changed:
        _PROCESS.changed.wait_for(lambda: not _PROCESS.count or _PROCESS.kind == kind)
        if not _PROCESS.count:
            _PROCESS.kind, _PROCESS.restore = kind, _set(kind)
        _PROCESS.count += 1
    _BLOCKS.inside = True
    try:
        yield
    finally:
        _BLOCKS.inside = False
        with _PROCESS.changed:
            _PROCESS.count -= 1
            if not _PROCESS.count:
                _PROCESS.restore()
                _PROCESS.changed.notify_all()


def _set(kind: Float32Products) -> Callable[[], None]:
    """Returns what undoes it. Through torch's older switches, which set its newer ones too: whoever reads an older one
    that contradicts a newer one gets an exception."""
    from torch import backends, get_float32_matmul_precision, set_float32_matmul_precision

    gpu: Any = backends.cudnn
    cpu: Any = backends.mkldnn
    places: list[Any] = []
    if hasattr(backends.cuda.matmul, "fp32_precision"):  # since torch 2.9
        places += [backends.cuda.matmul, gpu.conv, gpu.rnn, cpu.matmul, cpu.conv, cpu.rnn]
    before = [(place, place.fp32_precision) for place in places]
    products = convolutions = None
    with contextlib.suppress(RuntimeError):  # a mixture of both, which is not ours
        products = get_float32_matmul_precision()
        convolutions = backends.cudnn.allow_tf32
    set_float32_matmul_precision("highest" if kind == "ieee" else "high")
    backends.cudnn.allow_tf32 = kind == "tf32"
    for place in places[4:]:
        place.fp32_precision = "ieee"

    def restore() -> None:
        if products is not None:
            set_float32_matmul_precision(products)
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        for place, precision in before:
            if place.fp32_precision != precision:
                place.fp32_precision = precision

    return restore
