"""On what networks compute."""

from __future__ import annotations

from m2e.common.errors import RequestError


def usable_device(device: str) -> str:
    """ "cpu" or "cuda"; "auto" takes a GPU where there is one.

    Raises:
        RequestError: there is none.
    """
    if device == "cpu":
        return device
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise RequestError("this machine has no CUDA device; use --device cpu")
    return "cuda" if there else "cpu"
