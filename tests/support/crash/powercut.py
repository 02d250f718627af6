"""Power cuts: an ext4 file system in a file, shut down under a writer and a packer without flushing its journal.

Needs root and loop devices; run it in a mount namespace of its own (unshare -m).
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

from support.caches import CONFIG
from support.crash.forks import COMMITTED, PACKED, fork, pack_endlessly, write

from m2e.cache.care.verify import verify
from m2e.cache.catalogue import scan
from m2e.cache.folders import feature_files, features_folder

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h)


def main(folder: Path, cuts: int) -> dict[str, int]:
    rng = random.Random(cuts)
    image, mount = folder / "disk.img", folder / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    cache = mount / "deam"
    committed: set[int] = set()
    present: set[int] = set()
    lost = bad = packs = 0
    for _ in range(cuts):
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        numbers = itertools.filterfalse(present.__contains__, itertools.count())
        writer = fork(lambda tell, its=numbers: write(cache, its, 16, tell))
        packer = fork(lambda tell: pack_endlessly(cache, tell))
        writer.first()
        time.sleep(rng.uniform(0.0, 1.0))
        descriptor = os.open(mount, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        os.close(descriptor)
        packs += sum(n for kind, n in packer.told() if kind == PACKED)
        committed |= {number for kind, number in writer.told() if kind == COMMITTED}
        for child in (writer, packer):
            child.kill()
            child.close()
        subprocess.run(["umount", str(mount)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        features = features_folder(cache, CONFIG)
        if feature_files(features):
            present = {int(name[1:]) for name in scan(features, CONFIG).index["id"].tolist()}
            bad += len(verify(features, deep=True))
        lost += len(committed - present)
        subprocess.run(["umount", str(mount)], check=True)
    return {"cuts": cuts, "committed": len(committed), "packs": packs, "lost": lost, "bad": bad}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
