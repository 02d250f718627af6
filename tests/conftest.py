"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with the official metadata and the released code's outputs; skips where it is not set."""
    folder = os.environ.get("M2E_REFERENCE_DATA")
    if not folder:
        pytest.skip("M2E_REFERENCE_DATA is not set: no reference data")
    return Path(folder)
