"""Some writers at once, each with its share of the same tracks in an order of its own; then a packer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path

from support.caches import CONFIG
from support.crash.forks import fork, write

from m2e.cache.care import pack as packing
from m2e.cache.folders import feature_files, features_folder

TRACKS = 150


def main(folder: Path, writers: int, seed: int) -> str:
    """A digest of the names and bytes of all packs."""
    packing.PACK_TRACKS = 32
    rng = random.Random(seed)
    numbers = rng.sample(range(TRACKS), TRACKS)
    shares = [numbers[i::writers] for i in range(writers)]
    # Some tracks are done twice, as when two machines overlap.
    shares[0] += rng.sample(numbers, rng.randrange(20))
    shares[0] = list(dict.fromkeys(shares[0]))
    batch = rng.randrange(1, 40)
    children = [fork(lambda tell, share=share: write(folder, share, batch, tell)) for share in shares]
    for child in children:
        assert os.waitpid(child.process, 0)[1] == 0
        child.close()
    features = features_folder(folder, CONFIG)
    packing.pack(features)
    digest = hashlib.blake2b()
    for path in feature_files(features):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
