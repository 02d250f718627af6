"""A disk that is full again and again under one process, which goes on whenever there is room."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

from support.caches import CONFIG, random_track
from support.crash.forks import track_id

from m2e.cache import DataError, FeatureWriter
from m2e.cache.care import pack as packing
from m2e.cache.care.verify import verify
from m2e.cache.catalogue import scan
from m2e.cache.folders import features_folder

ROOM = 1 << 20


def fill(folder: Path, left: int) -> None:
    """A ballast file that leaves `left` bytes of the small disk."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    used = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    ballast.write_bytes(bytes(max(0, ROOM - used - left)))


def limit(left: int) -> None:
    """No file may be longer than this."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))


def main(folder: Path, how: str, failures: int) -> dict[str, int]:
    """Fail `failures` times to seal or to pack, in one process; after each, with room, all that waited is written."""
    packing.PACK_TRACKS = 8
    folder.mkdir(exist_ok=True)
    if how == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=True)
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng = random.Random(failures)
    features = features_folder(folder, CONFIG)
    failed = written = lost = bad = rounds = 0
    with FeatureWriter(folder, CONFIG) as writer:
        while failed < failures:
            rounds += 1
            for _ in range(4):
                writer.add(random_track(track_id(written), seed=written))
                written += 1
            left = rng.randrange(0, 12_000, 500)
            fill(folder, left) if how == "tmpfs" else limit(left)
            for action in (writer.seal, lambda: packing.pack(features)):
                if features.is_dir():
                    failed += _fails(action)
            (folder / "ballast").unlink(missing_ok=True)
            limit(resource.RLIM_INFINITY)
            writer.seal()
            lost += written - len(scan(features, CONFIG).index)
            bad += len(verify(features, deep=True))
            if rounds % 20 == 0:  # the disk is small
                packing.pack(features)
                for path in features.glob("*.h5"):
                    path.unlink()
                written = 0
    return {"failed": failed, "rounds": rounds, "lost": lost, "bad": bad}


def _fails(action: object) -> int:
    try:
        action()  # type: ignore[operator]
    except DataError:
        return 1
    return 0


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
