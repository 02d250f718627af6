"""Getting a data set's metadata: few small files from pinned addresses, each checked against its SHA-256. No audio."""

from __future__ import annotations

import hashlib
from pathlib import Path

from m2e.common.console import say
from m2e.common.errors import DataError
from m2e.common.regular import open_regular
from m2e.manifests.dataset import DataSet, RemoteFile
from m2e.manifests.read.root import Place

_SECONDS = 30


def fetch(dataset: DataSet, root: Path, base_url: str | None = None) -> list[Path]:
    """Bring the metadata of a data set below `root`; files that are there already are kept.

    Args:
        base_url: in place of the data set's, for a mirror.

    Returns:
        The files, there and whole.

    Raises:
        DataError: no digests are known for this data set; a file is there with other content; the download fails or
            brings other content.
    """
    if not dataset.files:
        raise DataError(
            f"{dataset.name}: no pinned files with known digests, so nothing can be fetched safely: get it by hand, "
            f"as `m2e-manifest check {dataset.name}` explains"
        )
    return [_fetch(file, root, (base_url or dataset.base_url).rstrip("/")) for file in dataset.files]


def _fetch(file: RemoteFile, root: Path, base_url: str) -> Path:
    path = Place(root).to_write(file.path)
    if path.exists() or path.is_symlink():
        if not _is(path, file.sha256):
            raise DataError(f"{path}: is there already and is not the published file: move it away to fetch it")
        return path
    import pooch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent}: cannot be written: {error.strerror}") from error
    url = f"{base_url}/{file.address}"
    say(f"fetching {url}")
    pooch.get_logger().setLevel("ERROR")
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{file.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=_SECONDS),
        )
    except ValueError as error:
        raise DataError(
            f"{url} is not the published file (its SHA-256 differs, or the address is malformed); nothing was kept"
        ) from error
    except OSError as error:
        if error.filename:
            raise DataError(f"{error.filename}: cannot be written: {error.strerror}") from error
        raise DataError(
            f"cannot fetch {url} ({type(error).__name__}): try again, give a mirror with --base-url, "
            f"or bring {file.path} by hand"
        ) from error
    return path


def _is(path: Path, sha256: str) -> bool:
    try:
        with open_regular(path) as there:
            return hashlib.file_digest(there, "sha256").hexdigest() == sha256
    except (OSError, DataError):
        return False
