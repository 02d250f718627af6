"""Random damage to a feature file with all of HDF5's checksums made to fit, so that it reaches the parser.

Checksums of superblocks and object headers are Jenkins' lookup3 (HDF5 File Format Specification 3.0, III.A; hashlittle
of Bob Jenkins' lookup3.c with initial value 0).
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

from support.crash.hostile import read, sound

from m2e.cache.layout import feature_name

_M = 0xFFFFFFFF


def lookup3(key: bytes) -> int:
    """32 bits."""

    def rot(x: int, k: int) -> int:
        return (x << k | x >> (32 - k)) & _M

    a = b = c = (0xDEADBEEF + len(key)) & _M
    if not key:
        return c
    while len(key) > 12:
        x, y, z = struct.unpack("<3I", key[:12])
        a, b, c = (a + x) & _M, (b + y) & _M, (c + z) & _M
        a = (a - c & _M) ^ rot(c, 4)
        c = c + b & _M
        b = (b - a & _M) ^ rot(a, 6)
        a = a + c & _M
        c = (c - b & _M) ^ rot(b, 8)
        b = b + a & _M
        a = (a - c & _M) ^ rot(c, 16)
        c = c + b & _M
        b = (b - a & _M) ^ rot(a, 19)
        a = a + c & _M
        c = (c - b & _M) ^ rot(b, 4)
        b = b + a & _M
        key = key[12:]
    x, y, z = struct.unpack("<3I", key.ljust(12, b"\0"))
    a, b, c = (a + x) & _M, (b + y) & _M, (c + z) & _M
    for shift, (p, q) in zip((14, 11, 25, 16, 4, 14, 24), ("cb", "ac", "ba", "cb", "ac", "ba", "cb"), strict=True):
        value = {"a": a, "b": b, "c": c}
        new = (value[p] ^ value[q]) - rot(value[q], shift) & _M
        a, b, c = (new if name == p else value[name] for name in "abc")
    return c


def spans(content: bytes) -> list[tuple[int, int]]:
    """Where the checksummed parts of a sound file are: start, and the place of the checksum."""
    found = [(0, 44)]
    start = content.find(b"OHDR")
    while start >= 0:
        flags = content[start + 5]
        at = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        end = at + width + int.from_bytes(content[at : at + width], "little")
        if end + 4 <= len(content) and lookup3(content[start:end]) == int.from_bytes(content[end : end + 4], "little"):
            found.append((start, end))
        start = content.find(b"OHDR", start + 4)
    assert all(lookup3(content[a:b]) == int.from_bytes(content[b : b + 4], "little") for a, b in found)
    return found


def repaired(content: bytes, where: list[tuple[int, int]]) -> bytes:
    """The same with checksums that fit."""
    fixed = bytearray(content)
    for start, end in where:
        fixed[end : end + 4] = struct.pack("<I", lookup3(bytes(fixed[start:end])))
    return bytes(fixed)


def main(folder: Path, first: int, number: int) -> dict[str, int]:
    """Read mutants `first` to `first + number`; only a death or another error than `DataError` is a fault."""
    folder.mkdir(exist_ok=True)
    path = folder / "sound.h5"
    sound(path)
    content, good = path.read_bytes(), read(path)
    assert good
    path.unlink()
    where = spans(content)
    assert len(where) == 5  # superblock, root and three datasets
    refused = silent = 0
    for seed in range(first, first + number):
        rng = random.Random(seed)
        mutant = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 4))):
            start, end = rng.choice(where)
            at = rng.randrange(start, end)
            mutant[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256), mutant[at] ^ 1 << rng.randrange(8)))
        image = repaired(bytes(mutant), where)
        path = folder / feature_name("shard", image)
        path.write_bytes(image)
        records = read(path)
        refused += records is None
        silent += records is not None and records.index.tobytes() != good.index.tobytes()
        path.unlink()
    return {"mutants": number, "refused": refused, "silent": silent}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
