"""Feature files that somebody made to hurt: built one by one, then opened by the reader in this process."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from support.caches import CONFIG, random_track

from m2e.cache import DataError
from m2e.cache.feature_file import read_file
from m2e.cache.layout import Records, feature_image, join, to_record

GOOD = join(to_record(random_track(f"t{i}", i, segments=40)) for i in range(4))
Make = Callable[[Path], None]


def sound(path: Path) -> None:
    path.write_bytes(feature_image(GOOD, CONFIG))


def with_embeddings(change: Callable[[h5py.File, np.ndarray[Any, Any]], None], **how: Any) -> Make:
    """A file whose embeddings `change` puts there; all else is as it should be."""

    def make(path: Path) -> None:
        sound(path)
        with h5py.File(path) as file:
            values, chords, index = (file[name][()] for name in ("embeddings", "chords", "index"))
            attributes = dict(file.attrs)
        with h5py.File(path, "w", **{"libver": "v108", **how}) as file:
            change(file, values)
            file["chords"], file["index"] = chords, index
            file.attrs.update(attributes)

    return make


def edited(name: str, edit: Callable[[h5py.File], None]) -> Make:
    """A sound file, opened for writing and changed."""

    def make(path: Path) -> None:
        sound(path)
        with h5py.File(path, "r+", libver="v108") as file:
            edit(file)

    return make


def indexed(field: str, value: Any) -> Make:
    """A file whose first track says something else in the index."""

    def edit(file: h5py.File) -> None:
        index = file["index"][()]
        index[0][field] = value
        file["index"][...] = index

    return edited(field, edit)


def _bomb(file: h5py.File, values: Any) -> None:
    file.create_dataset(
        "embeddings", (1 << 20, 3, 256), "f2", compression="gzip", fillvalue=0, chunks=(1 << 10, 3, 256)
    )
    file["embeddings"][:4096] = 0


def _virtual(file: h5py.File, values: Any) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=values.shape)
    file.create_virtual_dataset("embeddings", layout)


def _variable(file: h5py.File, values: Any) -> None:
    file.create_dataset("embeddings", (2, 3, 4), h5py.vlen_dtype("f2"))


def _references(file: h5py.File, values: Any) -> None:
    file.create_dataset("embeddings", (2, 3, 4), h5py.ref_dtype)


def _attribute(file: h5py.File) -> None:
    file["embeddings"].attrs["x"] = 1


def _text_version(file: h5py.File) -> None:
    del file.attrs["schema_version"]
    file.attrs["schema_version"] = "1" * 60_000


def _plugin(file: h5py.File, values: Any) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1, 3, 8))
    creation.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple(values.shape)
    dataset = h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F16LE, space, creation)
    dataset.write_direct_chunk((0, 0, 0), bytes(48))


def _overlapping(path: Path) -> None:
    from support.crash.mutations import repaired, spans

    sound(path)
    content = path.read_bytes()
    with h5py.File(path) as file:
        offsets = [struct.pack("<Q", file[name].id.get_offset()) for name in ("embeddings", "chords")]
        size = struct.pack("<Q", file["chords"].id.get_storage_size())
    assert content.count(offsets[1] + size) == 1
    where = spans(content)
    path.write_bytes(repaired(content.replace(offsets[1] + size, offsets[0] + size), where))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _late(path: Path) -> None:
    """A claim of a terabyte that was never allocated."""
    with h5py.File(path, "w", libver="v108") as file:
        file.create_dataset("embeddings", (1 << 26, 3, 768), "<f2")
        file["chords"], file["index"] = GOOD.chords, GOOD.index
        file.attrs["schema_version"] = 1


HOSTILE: dict[str, Make] = {
    "external link": with_embeddings(
        lambda file, _: file.__setitem__("embeddings", h5py.ExternalLink("/etc/passwd", "x"))
    ),
    "soft link": with_embeddings(lambda file, _: file.__setitem__("embeddings", h5py.SoftLink("/chords"))),
    "soft link to itself": with_embeddings(
        lambda file, _: file.__setitem__("embeddings", h5py.SoftLink("/embeddings"))
    ),
    "external storage": with_embeddings(
        lambda file, values: file.create_dataset(
            "embeddings", values.shape, "<f2", external=[("/etc/passwd", 0, values.nbytes)]
        )
    ),
    "virtual dataset": with_embeddings(_virtual),
    "gzip bomb": with_embeddings(_bomb),
    "foreign filter": with_embeddings(_plugin),
    "chunks": with_embeddings(lambda file, values: file.create_dataset("embeddings", data=values, chunks=(1, 3, 8))),
    "claim without storage": _late,
    "float64": with_embeddings(lambda file, values: file.__setitem__("embeddings", values.astype("f8"))),
    "big-endian": with_embeddings(lambda file, values: file.__setitem__("embeddings", values.astype(">f2"))),
    "another rank": with_embeddings(lambda file, values: file.__setitem__("embeddings", values[0])),
    "variable length": with_embeddings(_variable),
    "object references": with_embeddings(_references),
    "group": with_embeddings(lambda file, _: file.create_group("embeddings")),
    "named type": with_embeddings(lambda file, _: file.__setitem__("embeddings", np.dtype("<f2"))),
    "old format": with_embeddings(lambda file, values: file.__setitem__("embeddings", values), libver="earliest"),
    "user block": with_embeddings(lambda file, values: file.__setitem__("embeddings", values), userblock_size=512),
    "an object more": edited("more", lambda file: file.__setitem__("more", 1)),
    "attribute on a dataset": edited("attribute", _attribute),
    "text as version": edited("version", _text_version),
    "newer version": edited("newer", lambda file: file.attrs.__setitem__("schema_version", 2)),
    "other settings": edited("fingerprint", lambda file: file.attrs.__setitem__("fingerprint", np.uint64(1))),
    "offsets that do not add up": indexed("first_segment", 7),
    "counts that wrap around": indexed("segments", 2**32 - 1),
    "control characters": indexed("id", b"\x1b[2J"),
    "no UTF-8": indexed("id", b"\xff\xfe"),
    "overlapping datasets": _overlapping,
    "terabyte of holes": _sparse,
    "symbolic link": lambda path: path.symlink_to("/etc/passwd"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
}


def peak() -> int:
    """Highest memory of this process so far, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def read(path: Path) -> Records | None:
    """All that a reader reads, or None where it refuses or finds damage; anything else it raises is a fault."""
    try:
        records, intact = read_file(path, CONFIG)
        return records if intact.all() else None
    except DataError as error:
        if "\n" in str(error):
            raise ValueError("more than a line") from error
        return None


def main(folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    paths = {}
    for number, (name, make) in enumerate(HOSTILE.items()):
        paths[name] = folder / f"shard-{number:012x}.h5"
        make(paths[name])
    sound(folder / "sound.h5")
    assert read(folder / "sound.h5") is not None
    pid = os.fork()  # a new process: what building the files took does not count
    if pid:
        return {"files": len(paths), "status": os.waitpid(pid, 0)[1]}
    before = peak()
    accepted = [name for name, path in paths.items() if read(path) is not None]
    (folder / "result").write_text(json.dumps({"accepted": accepted, "megabytes": (peak() - before) / 1024}))
    os._exit(0)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
