"""A run that has nothing to do ends at once: it loads no model and nothing heavy."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from support.caches import random_track

from m2e.cache import ExtractionConfig, FeatureWriter
from m2e.cache.care.pack import pack
from m2e.cache.folders import features_folder
from m2e.extract.encoders.registry import find_encoder
from m2e.manifests import load
from m2e.manifests.store import save_labels

CODE = """
import json, resource, sys
from m2e.extract.cli import main
main(sys.argv[1:], standalone_mode=False)
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = {"torch", "transformers", "librosa", "music21", "joblib", "scipy", "sklearn", "numba"} & set(sys.modules)
print(json.dumps({"seconds": used.ru_utime + used.ru_stime, "heavy": sorted(heavy), "kilobytes": used.ru_maxrss}))
"""


def test_nothing_to_do(tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    n = rounds(500, 18_000)
    config = ExtractionConfig(encoder="tiny", encoder_revision=find_encoder("tiny").revision, chords="template")
    (tmp_path / "audio").mkdir()
    rows = ["track_id,path,valence,arousal"]
    with FeatureWriter(tmp_path / "cache" / "songs", config) as writer:
        for i in range(n):
            track = random_track(f"t{i:05d}", i)
            (tmp_path / "audio" / f"{i}.mp3").write_bytes(bytes(track.audio_bytes))
            writer.add(track)
            rows.append(f"t{i:05d},audio/{i}.mp3,5,5")
    pack(features_folder(tmp_path / "cache" / "songs", config))
    table = tmp_path / "songs.csv"
    table.write_text("\n".join(rows) + "\n")
    save_labels(load(str(table)), tmp_path / "cache" / "songs", lambda known: replace(known, heard=known.here))
    options = ["--encoder", "tiny", "--chords", "template", "--json"]
    command = [sys.executable, "-c", CODE, "--dataset", str(table), "--cache", str(tmp_path / "cache"), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    summary, used = map(json.loads, result.stdout.splitlines())
    assert (summary["kept"], summary["new"]) == (n, 0)
    assert used["heavy"] == []
    print(f"{n} tracks, nothing to do: {used['seconds']:.2f} process seconds, {used['kilobytes'] / 1024:.0f} MiB")
    if n == 18_000:
        assert used["seconds"] < 2
