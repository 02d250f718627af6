"""The page's server, for all tests that talk to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import Server
from support.workspace import STUDENT


@pytest.fixture(scope="session")
def server(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ("--max-upload", "3", "--time-limit", "100", "--memory-limit", "700")
    running = Server(workspace / STUDENT, tmp_path_factory.mktemp("uploads"), *limits)
    yield running
    assert running.stop() == 0
