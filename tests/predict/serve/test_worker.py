"""The process that decodes strangers' files: given up in time, replaced when it dies."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.workspace import STUDENT

from m2e.cache import DataError
from m2e.predict.serve.worker import Limits, Worker
from m2e.predict.setup import prepare


@pytest.mark.parametrize("limits", [(0, 1, 1), (1.5, 1, 1), (1, 0, 1), (1, float("nan"), 1), (1, 1, True)])
def test_limits_check_themselves(limits: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ValueError, match="it must be"):
        Limits(*limits)


@pytest.mark.long  # each process loads everything anew
def test_a_process_that_hangs_or_dies_is_replaced(workspace: Path, tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 22_050, 1) as file:
        for i in range(180):  # half an hour
            file.write(np.sin(np.arange(10 * 22_050) * (0.03 + 0.001 * (i % 7))) * 0.5)
    with Worker(prepare(workspace / STUDENT, device="cpu"), Limits(10**9, 3, 10**10)) as worker:
        first = worker.process_id
        with pytest.raises(DataError, match="longer than the 3 s"):
            worker.predict(tmp_path / "long.flac")
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        with pytest.raises(DataError, match="the file is no audio file"):
            worker.predict(workspace / "music/broken.mp3")

        os.kill(worker.process_id, signal.SIGKILL)
        with pytest.raises(DataError, match="broke the decoder"):
            worker.predict(workspace / "music/broken.mp3")
        with pytest.raises(DataError, match="the file is no audio file"):
            worker.predict(workspace / "music/broken.mp3")
