"""The i-th of n parts of a data set, so that n processes or machines share the work without speaking to each other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from m2e.common.checks import is_whole


@dataclass(frozen=True)
class Part:
    """Part `index` of `count`, counted from 0. Which part a track is in depends on its id and on `count` alone."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not (is_whole(self.count, 1) and is_whole(self.index, 0, self.count - 1)):
            raise ValueError(f"part {self.index!r} of {self.count!r}: N parts are counted from 0 to N - 1")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def __contains__(self, track_id: str) -> bool:
        if self.count == 1:
            return True
        digest = hashlib.blake2b(track_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "i/n". Raises ValueError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"{text!r} is not i/n, such as 0/4, the first of four")
        return cls(int(index), int(count))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> tuple[Self, str] | None:
        """The part that a SLURM job array or torchrun gives this process, and by which variables; None outside both.

        Raises:
            ValueError: the variables do not make parts, as in an array of odd indices such as 1,2,7.
        """
        if "SLURM_ARRAY_TASK_ID" in environment:
            return cls._of_array(environment), "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT"
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return cls(_number(environment, "RANK"), _number(environment, "WORLD_SIZE")), "RANK and WORLD_SIZE"
        return None

    @classmethod
    def _of_array(cls, environment: Mapping[str, str]) -> Self:
        task, count = (_number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT"))
        first, step = (_number(environment, f"SLURM_ARRAY_TASK_{name}", "1") for name in ("MIN", "STEP"))
        if step < 1:
            raise ValueError(f"SLURM_ARRAY_TASK_STEP is {step}")
        last = _number(environment, "SLURM_ARRAY_TASK_MAX", str(first + (count - 1) * step))
        index, rest = divmod(task - first, step)
        if rest or (last - first) // step + 1 != count:
            raise ValueError(f"the SLURM array's {count} tasks are not evenly spaced from {first} in steps of {step}")
        return cls(index, count)


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name, default)
    if not text:
        raise ValueError(f"{name} is not set")
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise ValueError(f"{name} is {text[:80]!r}, no whole number")
    return int(text)
