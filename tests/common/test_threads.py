"""Numerical libraries compute in one thread for the length of a block, and the process keeps its numbers of threads."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from m2e.common.threads import one_thread


def blas() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_all_is_as_it_was(two_threads: None) -> None:
    assert torch.get_num_threads() == 2
    before = blas()
    with one_thread():
        assert torch.get_num_threads() == 1
        assert set(blas()) == {1}
        with one_thread():
            pass
        assert torch.get_num_threads() == 1
        assert set(blas()) == {1}
    assert torch.get_num_threads() == 2
    assert blas() == before
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


def test_threads_come_and_go_as_they_like() -> None:
    started, may_end = threading.Event(), threading.Event()
    before = blas()
    assert max(before) > 1 or os.cpu_count() == 1
    seen: list[int] = []

    def longer() -> None:
        with one_thread():
            started.set()
            may_end.wait(30)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    def shorter() -> None:
        with one_thread():
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    outer = threading.Thread(target=longer)
    outer.start()
    started.wait(30)
    inner = threading.Thread(target=shorter)
    inner.start()
    inner.join(30)
    assert set(blas()) == {1}  # one is still inside
    may_end.set()
    outer.join(30)
    assert seen == [1, 2, 1, 2]
    assert torch.get_num_threads() == 2
    assert blas() == before


def test_importing_the_packages_changes_nothing() -> None:
    code = (
        "import os, signal, sys, warnings\n"
        "def state():\n"
        "    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)\n"
        "    return os.environ.copy(), handlers, sys.excepthook, list(warnings.filters), os.fstat(2)[:3]\n"
        "import torch, numpy\n"
        "before, threads = state(), torch.get_num_threads()\n"
        "import m2e.cache, m2e.extract.extractor, m2e.predict, m2e.predict.predictor, m2e.train.learning.loop\n"
        "after = state()\n"
        "changed = {name: value for name, value in after[0].items() if before[0].get(name) != value}\n"
        "assert set(changed) <= {'HDF5_PLUGIN_PRELOAD'}, changed\n"
        "assert after[1:3] == before[1:3] and after[4] == before[4]\n"
        "assert torch.get_num_threads() == threads\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
