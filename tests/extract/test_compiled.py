"""Several processes may be the first to use librosa."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIRST_USE = "from m2e.extract.chords import load_recogniser; load_recogniser('template')"


@pytest.mark.long
def test_processes_that_compile_at_once_do_not_crash_each_other(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    processes = [subprocess.Popen([sys.executable, "-c", FIRST_USE], env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert list(tmp_path.glob("m2e/numba/**/guf-*.nbi")), "librosa's functions were compiled elsewhere"
    subprocess.run([sys.executable, "-c", FIRST_USE], env=environment, check=True)


def test_a_cache_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m2e").write_text("in the way")
    code = (
        "from m2e.cache import DataError\n"
        "try:\n"
        f"    {FIRST_USE}\n"
        "except DataError as error:\n"
        "    assert 'XDG_CACHE_HOME' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, check=True)
