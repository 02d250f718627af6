"""Signals end a block, whatever they find it at."""

import signal
import subprocess
import sys

import pytest

# An object whose end takes a signal: Python drops what is raised there.
LOST = """
import os, sys, time
from m2e.common.interrupts import interruptible

class Ends:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(1000):
            pass

with interruptible(lambda: print("farewell", flush=True)):
    Ends()
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_whose_exception_is_lost_ends_the_block_all_the_same(number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-c", LOST, str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "farewell\n", "")
