"""Every test here has two sizes: short in the suite, long in `make torture` (docs/reliability.md has its figures)."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def rounds() -> Callable[[int, int], int]:
    """`rounds(short, long)`: how often to try."""
    long_form = os.environ.get("M2E_TORTURE") == "1"
    return lambda short, long: long if long_form else short
