"""Two writers and a packer on one cache, killed at random moments, resumed on the same cache."""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from support.caches import CONFIG, make_labels, random_track
from support.crash.forks import COMMITTED, PACKED, STARTED, fork, pack_endlessly, track_id, write

from m2e.cache import FeatureCache, write_labels
from m2e.cache.care.verify import verify
from m2e.cache.catalogue import scan
from m2e.cache.folders import feature_files, features_folder
from m2e.cache.layout import to_record

BATCH = 16


ROUNDS_A_CACHE = 25


def main(folder: Path, rounds: int) -> dict[str, int]:
    """So many rounds; a new cache after some, since each round reads all of it."""
    rng = random.Random(rounds)
    write(folder / "before", range(4), 4, lambda kind, number: None)  # loads what is loaded late
    found: Counter[str] = Counter()
    for start in range(0, rounds, ROUNDS_A_CACHE):
        found.update(campaign(folder / str(start), min(ROUNDS_A_CACHE, rounds - start), rng))
    return dict(found)


def campaign(folder: Path, rounds: int, rng: random.Random) -> dict[str, int]:
    """What was killed, committed and packed; what was lost or bad; how often more than a batch was begun in vain."""
    features = features_folder(folder, CONFIG)
    write_labels(folder, make_labels("deam", "D", 3))
    committed: set[int] = set()
    present: set[int] = set()
    lost = bad = too_many_again = kills = packs = 0
    for _ in range(rounds):
        # As a resumed run does: what the scan finds is not done again.
        todo = [itertools.filterfalse(present.__contains__, itertools.count(half, 2)) for half in range(2)]
        children = [fork(lambda tell, its=its: write(folder, its, BATCH, tell, pause=0.1)) for its in todo]
        packer = fork(lambda tell: pack_endlessly(folder, tell))
        notes = [[child.first()] for child in children]
        if present and rng.random() < 0.5:  # in the middle of packing, more likely than not
            packs += (packer.first(seconds=1.0) or (PACKED, 0))[1]
        time.sleep(rng.uniform(0.0, 0.3))
        for child in rng.sample([*children, packer], 3):
            child.kill()
            kills += 1
        for told, child in zip(notes, children, strict=True):
            told += child.told()
        packs += sum(n for kind, n in packer.told() if kind == PACKED)
        for child in (*children, packer):
            child.close()
        committed |= {number for told in notes for kind, number in told if kind == COMMITTED}
        if not feature_files(features):
            continue
        try:
            cache = FeatureCache.open(folder)
            cache.load()
        except Exception as error:
            print(error, file=sys.stderr)
            bad += 1
            continue
        present = {int(name[1:]) for name in cache.track_ids}
        lost += len(committed - present)
        for told in notes:
            begun = {number for kind, number in told if kind == STARTED}
            too_many_again += len(begun - present) > BATCH
    bad += len(verify(features, deep=True))
    index = scan(features, CONFIG).index
    for row in index:
        number = int(row["id"][1:])
        written = to_record(random_track(track_id(number), seed=number, segments=1 + number % 3))
        bad += int((written.index["digest"][0] != row["digest"]).any())
    return {
        "kills": kills,
        "committed": len(committed),
        "packs": packs,
        "lost": lost,
        "bad": bad,
        "too_many_again": too_many_again,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
