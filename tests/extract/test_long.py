"""A recording of ten hours: an audio book, a day's radio, a night in a club."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.encoded import encode
from support.memory import PEAK

TEN_HOURS = f"""{PEAK}
import sys
from pathlib import Path
from m2e.cache import ExtractionConfig
from m2e.extract.encoders.registry import find_encoder
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models

source = find_encoder("tiny")
config = ExtractionConfig(source.name, source.revision, chords=sys.argv[2], layers=(6,))
extractor = Extractor.of(Models(config, source.folder, None, "cpu"))
extractor(Path(sys.argv[3]))
before = peak_megabytes()
features = extractor(Path(sys.argv[1]))
print(len(features.embeddings), round(features.duration, 1), len(features.chords.root), peak_megabytes() - before)
"""


@pytest.mark.long
@pytest.mark.timeout(3600)  # four minutes on a quiet machine
@pytest.mark.parametrize("chords", ["cnn", "template"])
def test_ten_hours_take_less_than_a_gigabyte_beside_the_models(tmp_path: Path, chords: str) -> None:
    """At the two rates of the encoder and the chords alone ten hours would be 6.6 GB."""
    rate = 44_100
    t = np.arange(60 * rate) / rate
    steps = np.floor(t * 2) % 12  # another chord every half second
    wave = sum(0.1 * np.sin(2 * np.pi * np.cumsum(220 * 2 ** ((steps + third) / 12)) / rate) for third in (0, 4, 7))
    minute = encode(
        tmp_path / "minute.mp3",
        np.stack([wave]).astype(np.float32),
        rate,
        "libmp3lame",
        "mp3",
        {"b": "32000"},
        {"write_xing": "0", "id3v2_version": "0"},
    )
    content = minute.read_bytes()
    with (tmp_path / "day.mp3").open("wb") as file:
        for _ in range(600):
            file.write(content)
    command = [sys.executable, "-c", TEN_HOURS, str(tmp_path / "day.mp3"), chords, str(minute)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    segments, seconds, changes, megabytes = map(float, said.stdout.split())
    assert seconds == pytest.approx(36_000, abs=600 * 0.08)  # what the coder adds to each minute
    assert segments == seconds // 30
    assert changes > 50_000
    assert megabytes < 1000
