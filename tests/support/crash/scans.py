"""A reader that scans while others write and pack: it must see every track that was committed before it began."""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

from support.caches import CONFIG, make_labels
from support.crash.forks import COMMITTED, PACKED, fork, pack_endlessly, track_id, write

from m2e.cache import FeatureCache, write_labels
from m2e.cache.folders import feature_files, features_folder


def main(folder: Path, scans: int) -> dict[str, int]:
    rng = random.Random(scans)
    write_labels(folder, make_labels("deam", "D", 3))
    children = [
        fork(lambda tell, half=half: write(folder, itertools.count(half, 2), 4, tell, pause=0.2)) for half in range(2)
    ]
    packer = fork(lambda tell: pack_endlessly(folder, tell))
    committed: list[str] = []
    missing = read = 0
    try:
        while not feature_files(features_folder(folder, CONFIG)):
            pass
        old = FeatureCache.open(folder)
        for _ in range(scans):
            committed += [track_id(n) for child in children for kind, n in child.told() if kind == COMMITTED]
            new = FeatureCache.open(folder)
            missing += len(set(committed) - set(new.track_ids))
            # The tables of the one before are old by now, and files of it are gone.
            read += len(old.load(rng.sample(old.track_ids, min(20, len(old.track_ids)))).track_ids)
            old = new
        packs = sum(n for kind, n in packer.told() if kind == PACKED)
    finally:
        for child in (*children, packer):
            child.kill()
            child.close()
    return {"scans": scans, "committed": len(committed), "packs": packs, "missing": missing, "read": read}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
