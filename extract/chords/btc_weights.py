"""Where BTC's published weights come from, and how a weights file is named in a cache.

The file is test/btc_model_large_voca.pt of jayg996/BTC-ISMIR19 (MIT licence), pinned to one commit. Only git's own
hash of it is known, so that is what a download must match.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from m2e.common.console import say
from m2e.common.errors import DataError
from m2e.common.regular import read_regular

OFFICIAL_URL = (
    "https://raw.githubusercontent.com/jayg996/BTC-ISMIR19/"
    "2682317be668032e6e4b269ded36adaa2ad57df0/test/btc_model_large_voca.pt"
)
OFFICIAL_BLOB = "11c6edbaaaee33737aa7a41dcb9044191630326f"
OFFICIAL_REVISION = f"git-blob:{OFFICIAL_BLOB}"
_LARGEST_FILE = 1 << 30  # the published one has 12 MB


def git_blob_id(content: bytes) -> str:
    """Git's name of a file's content: 40 hex digits."""
    # Git's choice of hash, not ours: it guards against a broken download here.
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def weights_revision(checkpoint: Path | None) -> str:
    """Digest of a weights file: "sha256:<64 hex>", or "git-blob:<40 hex>" for the published one, the default.

    Raises:
        DataError: the file cannot be read.
    """
    if checkpoint is None:
        return OFFICIAL_REVISION
    try:
        content = read_regular(checkpoint, _LARGEST_FILE)
    except OSError as error:
        raise DataError(f"chord checkpoint {checkpoint}: {error.strerror or error}") from error
    # The published file is the same weights wherever it lies, so its caches must mix.
    if git_blob_id(content) == OFFICIAL_BLOB:
        return OFFICIAL_REVISION
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def official_checkpoint(url: str = OFFICIAL_URL, blob: str = OFFICIAL_BLOB, folder: Path | None = None) -> Path:
    """Path of the published weights in `folder` (default: the user's cache), fetched on first use and always verified.

    Raises:
        DataError: it cannot be downloaded, or its content is not git's blob `blob`.
    """
    import pooch

    folder = folder or Path(pooch.os_cache("m2e"))
    path = folder / Path(url).name
    if not path.exists():
        say(f"Fetching BTC's weights (12 MB) from {url}")
        # Only git's hash is known: pooch's own check cannot use it, and it would print a hash to paste.
        pooch.get_logger().setLevel("WARNING")
        try:
            pooch.retrieve(url, known_hash=None, fname=path.name, path=folder)
        except OSError as error:
            raise DataError(
                f"cannot download {path.name} from {url} ({type(error).__name__}): fetch it elsewhere and pass "
                "--chord-checkpoint PATH (to try m2e out without it: --chords cnn)"
            ) from error
    if git_blob_id(read_regular(path, _LARGEST_FILE)) != blob:
        path.unlink()
        raise DataError(
            f"{path.name} from {url} was not the published file and is deleted: run again, or pass "
            "--chord-checkpoint PATH"
        )
    return path
