"""Training in several processes under torchrun: each holds all data and the whole model, and takes its share of a step.

All processes draw the same batches and spans. A set's loss is weighted by the share of its batch that a process has, so
that the sum of the gradients over processes is the gradient of the whole batch, however unevenly it was shared. Without
torchrun everything here does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from m2e.common.console import console
from m2e.common.errors import DataError, first_line


def under_torchrun() -> bool:
    """This process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def local_rank() -> int:
    """Number of this process on its machine: its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def job_rank() -> int:
    """Number of this process among those that torchrun started, within `process_group` or not."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def rank() -> int:
    """Number of this process in the job; 0 is the one that writes and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join torchrun's other processes for the length of the block; all but the first are silent.

    Raises:
        DataError: another process ended.
    """
    if not under_torchrun():
        yield
        return
    on_gpu = device.type == "cuda"
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    console.quiet = rank() > 0
    try:
        yield
    except RuntimeError as error:
        # gloo and nccl have no exception of their own for a peer that is gone.
        if not any(word in str(error).lower() for word in ("connection", "gloo", "nccl", "peer")):
            raise
        raise DataError(
            f"process {rank()} of {size()} lost another process of this job ({first_line(error)[:120]}); "
            "the same command goes on from the last epoch that was kept"
        ) from error
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Until all processes have come so far."""
    if size() > 1:
        dist.barrier()


def share(rows: Tensor) -> Tensor:
    """What this process takes of the tracks `rows`; the shares of all processes are all of them, none twice."""
    return rows[rank() :: size()]


def sum_gradients(model: nn.Module) -> None:
    """Add up the gradients of all processes; parameters without a gradient have none anywhere."""
    if size() > 1:
        gradients = [value.grad for value in model.parameters() if value.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):  # type: ignore[no-untyped-call]
            gradient.copy_(total.view_as(gradient))


def sum_of(value: Tensor) -> Tensor:
    """The sum of `value` over all processes."""
    if size() > 1:
        dist.all_reduce(value)
    return value


def gather(outputs: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """``outputs(rows)`` [shape=(N, ...)], each process computing its share: every track once, put where it belongs."""
    if size() == 1:
        return outputs(rows)
    places = share(torch.arange(len(rows)))
    # A share may be empty: take a track more, so that the shape is known.
    own = outputs(rows[places] if len(places) else rows[:1])[: len(places)]
    everything = own.new_zeros(len(rows), *own.shape[1:])
    everything[places.to(own.device)] = own
    return sum_of(everything)
