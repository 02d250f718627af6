"""How many processes this machine has cores for."""

from __future__ import annotations

import warnings


def cpu_count() -> int:
    """Cores that this process may use, as joblib counts them, which knows of containers' limits."""
    with warnings.catch_warnings():
        # Where nothing can be shared between processes: who starts some says so (`m2e.extract.workers.local`).
        warnings.filterwarnings("ignore", "(?s).*joblib will operate in serial mode", UserWarning)
        import joblib

    return int(joblib.cpu_count())
