"""docs/cache-format.md, followed to the letter by a reader that knows nothing of m2e."""

import hashlib
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, ExtractionConfig, FeatureCache
from m2e.cache.care.pack import pack
from m2e.cache.folders import features_folder
from m2e.cache.hdf5 import hdf5_image
from m2e.common.errors import NewerError

ROW = struct.Struct("<64s32sQIIdbb16sQQ")
CHORD = struct.Struct("<ffbb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 20))
    pack(features_folder(folder, CONFIG))
    return folder


def test_a_pack_read_by_its_offsets_alone(folder: Path) -> None:
    (path,) = folder.glob("features-*/pack-*.h5")
    content = path.read_bytes()
    assert path.name == f"pack-{hashlib.blake2b(content, digest_size=6).hexdigest()}.h5"
    with h5py.File(path) as file:
        blocks = {name: (file[name].id.get_offset(), file[name].shape) for name in file}
        attributes = dict(file.attrs)
    assert sorted(blocks) == ["chords", "embeddings", "index"]
    assert blocks["embeddings"][0] < blocks["chords"][0] < blocks["index"][0]
    _, layers, dim = blocks["embeddings"][1]
    next_segment = next_chord = 0
    for i in range(20):
        at = blocks["index"][0] + i * ROW.size
        row = content[at : at + ROW.size]
        name, sha, size, segments, chords, duration, tonic, mode, digest, segment, chord = ROW.unpack(row)
        track = random_track(f"t{i:04d}", seed=i, segments=1 + i % 4)
        assert name.rstrip(b"\0").decode() == track.track_id
        assert (sha, size, duration) == (track.audio_sha256, track.audio_bytes, track.duration)
        assert (tonic, mode) == ((track.key.tonic, track.key.mode == "minor") if track.key else (-1, -1))
        assert (segment, chord) == (next_segment, next_chord)
        width = layers * dim * 2
        values = content[blocks["embeddings"][0] + segment * width :][: segments * width]
        played = content[blocks["chords"][0] + chord * CHORD.size :][: chords * CHORD.size]
        assert digest == xxhash.xxh3_128(row[:122] + values + played, seed=0).digest()
        np.testing.assert_array_equal(
            np.frombuffer(values, "<f2").reshape(segments, layers, dim), track.embeddings.astype(np.float16)
        )
        assert [(root, quality) for _, _, root, quality in CHORD.iter_unpack(played)] == list(
            zip(track.chords.root.tolist(), track.chords.quality.tolist(), strict=True)
        )
        next_segment, next_chord = segment + segments, chord + chords
    assert (next_segment, next_chord) == (blocks["embeddings"][1][0], blocks["chords"][1][0])
    config = (path.parent / "config.json").read_bytes()
    fingerprint = hashlib.blake2b(config, digest_size=8).hexdigest()
    assert path.parent.name == f"features-{fingerprint}"
    assert attributes.pop("fingerprint") == int(fingerprint, 16)
    np.testing.assert_array_equal(attributes.pop("layers"), json.loads(config)["layers"])
    assert attributes == {"schema_version": 1, "sample_rate": 24_000, "segment_seconds": 30.0}


def test_any_hdf5_reader_gets_float32_when_it_asks(folder: Path) -> None:
    (path,) = folder.glob("features-*/pack-*.h5")
    with h5py.File(path) as file:
        values = file["embeddings"].astype("f4")[:]
        assert file["index"].fields("id")[3] == b"t0003"
    np.testing.assert_array_equal(values, FeatureCache.open(folder).load().embeddings.astype(np.float32))


def test_the_digest_of_labels(folder: Path) -> None:
    names = [
        "dataset",
        "letter",
        "provenance",
        "track_ids",
        "splits",
        "tag_names",
        "tags",
        "valence_arousal",
        "clip_group",
        "artist",
        "root",
        "paths",
        "heard",
        "audio",
    ]
    with h5py.File(folder / "labels.h5") as file:
        assert set(file) == set(names)
        digest = xxhash.xxh3_128(b"".join(file[name][()].tobytes() for name in names))
        assert struct.pack(">QQ", *file.attrs["digest"].tolist()) == digest.digest()


def test_a_newer_version_is_refused_by_its_number_and_unknown_attributes_are_not(folder: Path) -> None:
    (path,) = folder.glob("features-*/pack-*.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["something_new"] = 7
    assert len(FeatureCache.open(folder).load().track_ids) == 20
    path.write_bytes(hdf5_image({"quite_different": np.zeros(3)}, 2))
    with pytest.raises(NewerError, match="format version 2; this m2e reads up to 1: update m2e"):
        FeatureCache.open(folder)


@pytest.mark.parametrize(("change", "message"), [({"new": 1}, "newer m2e"), ({"tail": None}, "lacks tail")])
def test_settings_of_another_m2e_are_named(change: dict[str, object], message: str) -> None:
    values = {**json.loads(replace(CONFIG).to_json()), **change}
    text = json.dumps({name: value for name, value in values.items() if value is not None})
    with pytest.raises(DataError, match=message):
        ExtractionConfig.from_json(text)


def test_the_folder_says_which_versions_wrote_it(folder: Path) -> None:
    (path,) = folder.glob("features-*/provenance-*.json")
    assert path.name == f"provenance-{hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()}.json"
    versions = json.loads(path.read_text())
    assert versions["h5py"] == h5py.__version__
    assert {"m2e", "python", "hdf5", "machine", "numpy"} <= set(versions)


def test_threads_make_files_side_by_side() -> None:
    values = {f"d{i}": np.full(50, i) for i in range(20)}
    expected = hdf5_image(values, 1)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: hdf5_image(values, 1), range(200))) == {expected}
