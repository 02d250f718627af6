"""HDF5 as m2e writes it, and the checks that a file passes before any of its data is read.

A file may come from anywhere, so HDF5 is asked only where the data lies: contiguous blocks of known types, at known
names. The data itself is read from those places as plain bytes, never through HDF5's filters, links or conversions.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# A filter named in a file makes HDF5 load native code from HDF5_PLUGIN_PATH; "::" forbids that. It has to be set
# before HDF5 starts, and leaves the choice to a user who has made one.
os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")

import h5py
import numpy as np
from numpy.typing import NDArray

from m2e.common.errors import DamagedError, NewerError, UnreadableError, first_line
from m2e.common.regular import open_regular

MAX_FILE_BYTES = 8 << 30
_SUPERBLOCK = struct.Struct("<8s4B4QI")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNDEFINED = 2**64 - 1
_MAX_ATTRIBUTE_VALUES = 1024
_IMAGES = itertools.count()
# How h5py reports a file that HDF5 cannot make sense of.
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)

# name -> (dtype or, for byte strings of any width, "S"; rank)
Schema = Mapping[str, tuple[np.dtype[Any] | str, int]]
# Format version -> its schema; the last is what is written.
Schemas = Mapping[int, Schema]


def hdf5_image(
    datasets: Mapping[str, NDArray[Any]], version: int, attributes: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes of an HDF5 file with these contiguous, uncompressed datasets at its root, in this order.

    Equal input gives equal bytes: nothing in the file depends on time, host or process. `version` becomes the attribute
    ``schema_version``.
    """
    # HDF5 takes files in memory that have one name for one file, and another thread may have one open.
    name = f"image-{next(_IMAGES)}.h5"
    with h5py.File(name, "w", driver="core", backing_store=False, libver="v108") as file:
        for key, values in datasets.items():
            file.create_dataset(key, data=values)
        for key, value in {"schema_version": version, **(attributes or {})}.items():
            file.attrs[key] = value
        file.flush()
        return file.id.get_file_image()


@dataclass(frozen=True)
class Block:
    """Where in a file a dataset lies: `offset` in bytes, and what the bytes are."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Contents:
    """What an open HDF5 file of a `version` holds, once checked: `blocks` of data, and numeric root `attributes`."""

    path: Path
    version: int
    blocks: Mapping[str, Block]
    attributes: Mapping[str, NDArray[Any]]
    _file: io.FileIO

    def read(self, name: str) -> NDArray[Any]:
        """All values of a dataset, of the very file that was checked, whatever has its name by now."""
        block = self.blocks[name]
        values = np.empty(block.shape, block.dtype)
        try:
            self._file.seek(block.offset)
            read = self._file.readinto(values.reshape(-1).view(np.uint8).data) if block.size else 0
        except OSError as error:
            raise UnreadableError(f"cannot read {self.path}: {error.strerror}") from error
        if read != block.size:
            raise DamagedError(f"{self.path} became shorter while it was read")
        return values


@contextlib.contextmanager
def inspect(
    path: Path, schemas: Schemas, attributes: tuple[str, ...] = (), most_bytes: int = MAX_FILE_BYTES
) -> Iterator[Contents]:
    """Check that an HDF5 file holds exactly the datasets of its version's schema, stored plainly, and where they lie.

    HDF5's own links, external storage, virtual datasets, filters, attributes of datasets, foreign types and overlapping
    or dangling blocks are refused before any data is touched. The file is open for the length of the block.

    Args:
        path: the file.
        schemas: the datasets of each version.
        attributes: numbers that are read where the root has them.
        most_bytes: a longer file is refused.

    Raises:
        FileNotFoundError: the file is gone, as when a packer has just replaced it.
        UnreadableError, NewerError, DamagedError: see there; the last also where it is a file of another form.
        DataError: it is no regular file, or too large.
    """
    while True:
        with contextlib.ExitStack() as stack:
            try:
                contents = _checked(stack, path, schemas, attributes, most_bytes)
            except _Replaced:
                continue
            yield contents
            return


class _Replaced(Exception):
    """Between two openings another file came under the name."""


def _checked(
    stack: contextlib.ExitStack, path: Path, schemas: Schemas, attributes: tuple[str, ...], most_bytes: int
) -> Contents:
    """What the file holds; it stays open until the stack is left."""
    try:
        raw = stack.enter_context(open_regular(path, most_bytes))
        size = _check_envelope(path, raw)
        with _opened(path, raw) as file:
            numbers = _attributes(file, ("schema_version", *attributes))
            version = _version(path, numbers, schemas)
            blocks = _blocks(path, file, schemas[version], size)
    except FileNotFoundError:
        raise
    except _HDF5_ERRORS as error:
        if not os.path.lexists(path):  # HDF5 says "can't retrieve stat info" of a file that vanishes meanwhile
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        if isinstance(error, OSError) and error.errno:  # the system's, not HDF5's
            raise UnreadableError(f"cannot read {path}: {os.strerror(error.errno)}") from error
        reason = first_line(error)
        raise DamagedError(f"{path} is no HDF5 that can be read: {reason}") from error
    return Contents(path, version, blocks, numbers, raw)


def _check_envelope(path: Path, raw: io.FileIO) -> int:
    """The size of the file, which is an HDF5 file of that size by its head."""
    size = os.fstat(raw.fileno()).st_size
    head = raw.read(_SUPERBLOCK.size)
    if head[:8] != _SIGNATURE or len(head) < _SUPERBLOCK.size or head[8] not in (2, 3):
        raise DamagedError(f"{path} is not a cache file of m2e (no HDF5 signature of version 2 or 3)")
    _, _, offsets, lengths, _, base, extension, end, _, _ = _SUPERBLOCK.unpack(head)
    if (offsets, lengths, base, extension) != (8, 8, 0, _UNDEFINED):
        raise DamagedError(f"{path} has an HDF5 superblock unlike those of m2e")
    if end != size:
        raise DamagedError(f"{path} has {size} bytes and should have {end}: it is truncated or was added to")
    return size


@contextlib.contextmanager
def _opened(path: Path, raw: io.FileIO) -> Iterator[Any]:
    """HDF5's view of the file that is open as `raw`, and of no other that has come under its name since."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)
    file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, access)
    try:
        if not os.path.sameopenfile(file.get_vfd_handle(), raw.fileno()):
            raise _Replaced
        yield file
    finally:
        file.close()


def _attributes(file: Any, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    found = {}
    for name in names:
        if h5py.h5a.exists(file, name.encode()):
            attribute = h5py.h5a.open(file, name.encode())
            kind = attribute.get_type()
            numeric = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) and kind.get_size() <= 8
            if not numeric or math.prod(attribute.shape) > _MAX_ATTRIBUTE_VALUES:
                raise ValueError(f"its attribute {name} is no number")
            found[name] = np.empty(attribute.shape, attribute.dtype)
            attribute.read(found[name])
    return found


def _version(path: Path, attributes: Mapping[str, NDArray[Any]], schemas: Schemas) -> int:
    version = attributes.get("schema_version")
    if version is None or version.shape or version.dtype.kind not in "iu":
        raise DamagedError(f"{path} is not a cache file of m2e: it has no schema_version")
    if version > max(schemas):
        raise NewerError(f"{path} has format version {version}; this m2e reads up to {max(schemas)}: update m2e")
    if int(version) not in schemas:
        raise DamagedError(f"{path} has format version {version}, which no m2e has written")
    return int(version)


def _blocks(path: Path, file: Any, schema: Schema, size: int) -> dict[str, Block]:
    root = h5py.h5g.open(file, b"/")
    if root.get_num_objs() != len(schema):
        raise DamagedError(f"{path} holds {root.get_num_objs()} objects, not {sorted(schema)}: not a cache file of m2e")
    blocks = {}
    for name, (dtype, rank) in schema.items():
        if not root.links.exists(name.encode()):
            raise DamagedError(f"{path} has no dataset {name!r}: not a cache file of m2e")
        if root.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise DamagedError(f"{path}: {name} is a link to elsewhere, which no cache file has")
        dataset = h5py.h5o.open(root, name.encode())
        if not isinstance(dataset, h5py.h5d.DatasetID):
            raise DamagedError(f"{path}: {name} is not a dataset")
        block = _block(dataset, dtype, rank)
        if block is None:
            raise DamagedError(f"{path}: {name} is not stored as m2e stores it ({dtype}, {rank} axes, contiguous)")
        if block.size and (block.offset < _SUPERBLOCK.size or block.offset + block.size > size):
            raise DamagedError(f"{path}: {name} lies outside the file; it is truncated or forged")
        blocks[name] = block
    inside = sorted((block.offset, block.offset + block.size) for block in blocks.values() if block.size)
    if any(end > start for (_, end), (start, _) in pairwise(inside)):
        raise DamagedError(f"{path}: its datasets overlap; it is damaged or forged")
    return blocks


def _block(dataset: Any, dtype: np.dtype[Any] | str, rank: int) -> Block | None:
    """Where a dataset lies, or None where it is not stored plainly, as `dtype` and with `rank` axes."""
    creation, kind, space = dataset.get_create_plist(), dataset.get_type(), dataset.get_space()
    plain = (
        creation.get_layout() == h5py.h5d.CONTIGUOUS
        and creation.get_external_count() == 0
        and creation.get_nfilters() == 0
        and h5py.h5a.get_num_attrs(dataset) == 0
        and space.get_simple_extent_type() == h5py.h5s.SIMPLE
        and space.get_simple_extent_ndims() == rank
    )
    if isinstance(dtype, str):
        right = kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()
        dtype = np.dtype(f"S{kind.get_size()}")
    else:
        right = kind.equal(h5py.h5t.py_create(dtype, logical=True))
    if not plain or not right:
        return None
    block = Block(dataset.get_offset() or 0, tuple(int(n) for n in space.get_simple_extent_dims()), dtype)
    return block if dataset.get_storage_size() == block.size else None
