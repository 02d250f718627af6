"""Fixtures that all tests share."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

# Started in a script's background, a process ignores Ctrl-C, and so do all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=["cpu", "cuda"], default="cpu", help="where tests of networks compute")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Where the networks under test compute."""
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with the official metadata and the released code's outputs; skips where it is not set."""
    folder = os.environ.get("M2E_REFERENCE_DATA")
    if not folder:
        pytest.skip("M2E_REFERENCE_DATA is not set: no reference data")
    return Path(folder)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once for all processes of a run: read it, or copy it to write."""
    from filelock import FileLock

    # Under pytest-xdist every process has a folder of its own in the one that they share.
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (folder / "made").exists():
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project (see `support.workspace`); see `made_once`."""
    from support.workspace import make_workspace

    return made_once(tmp_path_factory, "workspace", make_workspace)


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four synthetic data sets at their smallest, 12 tracks each; see `made_once`."""
    from m2e.synthetic.sets import make_demo

    return made_once(tmp_path_factory, "demo-data", lambda folder: make_demo(folder, scale=0.01, jobs=1))
