"""Files that appear whole or not at all, and HDF5 that is checked before it is read.

A cache file is never opened for append: its HDF5 image is built in memory, written under a temporary name, synced
and renamed. h5py on a full disk can crash the process; this way cannot.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError

_TEMPORARY = ".tmp-"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_STALE_SECONDS = 24 * 3600.0

# name -> (dtype or, for byte strings of any width, "S"; rank)
Schema = Mapping[str, tuple[np.dtype[Any] | str, int]]


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader, a kill or a power cut sees the old file or the new, never a part.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    temporary = path.parent / f"{_TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if content and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, len(content))
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. What was committed before is safe; "
            "make room or permit writing there, then run the same command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what killed writers left: temporaries of dead processes on this host, and any that are a day old."""
    host = socket.gethostname()
    for path in folder.glob(f"{_TEMPORARY}*"):
        owner, _, rest = path.name.removeprefix(_TEMPORARY).rpartition("-")[0].rpartition("-")
        with contextlib.suppress(OSError, ValueError):
            dead = owner == host and not _is_alive(int(rest))
            if dead or time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def hdf5_image(datasets: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of an HDF5 file with these contiguous, uncompressed datasets at its root, in this order.

    Equal input gives equal bytes: nothing in the file depends on time, host or process.
    """
    with h5py.File("image.h5", "w", driver="core", backing_store=False, libver="v108") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
        file.flush()
        return file.id.get_file_image()


@contextlib.contextmanager
def open_checked(path: Path, schema: Schema) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading after checking that it holds exactly the datasets of `schema`, stored plainly.

    Links, external storage, virtual datasets, filters and foreign types are refused before any data is touched.

    Raises:
        DataError: the file is missing, damaged, or not of this form.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DataError(f"{path} is not a regular file; a cache holds no links")
        with path.open("rb") as raw:
            head = raw.read(9)
        if head[:8] != _SIGNATURE or head[8:] not in (b"\x02", b"\x03"):
            raise DataError(f"{path} is not a cache file of m2e (no HDF5 signature of version 2 or 3)")
        with h5py.File(path, "r", locking=False) as file:
            _check(path, file, schema)
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(f"cannot read {path}: {error}. `m2e-cache verify` finds every damaged file") from error


def _check(path: Path, file: h5py.File, schema: Schema) -> None:
    if set(file) != set(schema):
        raise DataError(f"{path} holds {sorted(file)[:20]}, not {sorted(schema)}: not a cache file of this version")
    size = path.stat().st_size
    for name, (dtype, rank) in schema.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{path}: {name} is a link to elsewhere, which no cache file has")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"{path}: {name} is not a dataset")
        plist = dataset.id.get_create_plist()
        plain = (
            plist.get_layout() == h5py.h5d.CONTIGUOUS
            and plist.get_external_count() == 0
            and plist.get_nfilters() == 0
            and len(dataset.attrs) == 0
        )
        right_type = dataset.dtype.kind == "S" if isinstance(dtype, str) else dataset.dtype == dtype
        if not plain or not right_type or dataset.ndim != rank:
            raise DataError(f"{path}: {name} is not stored as m2e stores it ({dtype}, {rank} axes, contiguous)")
        stored = dataset.id.get_storage_size()
        if stored and (stored != dataset.size * dataset.dtype.itemsize or dataset.id.get_offset() + stored > size):
            raise DataError(f"{path}: {name} lies outside the file; it is truncated or forged")
        if dataset.size and not stored:
            raise DataError(f"{path}: {name} claims {dataset.size} values and stores none")
