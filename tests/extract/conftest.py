"""librosa is the oracle of our transform; nothing but tests uses it."""

import os
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def librosa() -> ModuleType:
    """librosa, its functions compiled.

    numba keeps what it compiles on disk, in pairs of files that it does not replace together: two processes that
    compile at once can leave halves that crash every later one (numba issue 10128). Hence our own folder and lock.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m2e"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    with FileLock(folder / "numba.lock"):
        import librosa
        import numpy as np

        librosa.cqt(np.zeros(220_500, np.float32), sr=22_050, hop_length=2_048, n_bins=144, bins_per_octave=24)
    return librosa
