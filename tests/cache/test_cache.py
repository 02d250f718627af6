"""What goes into a cache comes out; what is damaged or foreign does not."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.caches import CONFIG, make_cache, make_labels, random_track

from m2e.cache import DataError, FeatureCache, FeatureWriter
from m2e.cache.catalogue import scan
from m2e.cache.labels import read_labels
from m2e.cache.layout import bytes_of, feature_image, feature_name, join, record_digest, to_record
from m2e.common.files import is_intact, write_atomically


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache.open(make_cache(tmp_path / "deam", make_labels("deam", "D", 70)))


def shards(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("features-*/shard-*.h5"))


def test_round_trip(cache: FeatureCache) -> None:
    assert cache.track_ids == cache.labels.track_ids
    assert cache.layers == (5, 6, 7)
    for i, track_id in enumerate(cache.track_ids):
        written = random_track(track_id, seed=i, segments=1 + i % 4)
        np.testing.assert_allclose(cache.embeddings(track_id), written.embeddings, rtol=5e-4, atol=1e-6)
        assert cache.embeddings(track_id).dtype == np.float32
        assert cache.chords(track_id).labels == written.chords.labels
        np.testing.assert_array_equal(cache.chords(track_id).intervals, written.chords.intervals)
        assert cache.key(track_id) == written.key
    assert cache.n_segments == sum(1 + i % 4 for i in range(70))


def test_bulk_load_equals_single_reads_in_any_order(cache: FeatureCache) -> None:
    ids = cache.track_ids[::-3]
    table = cache.load(ids)
    assert table.track_ids == ids
    for i, track_id in enumerate(ids):
        np.testing.assert_array_equal(
            table.embeddings[table.first[i] : table.first[i + 1]].astype(np.float32), cache.embeddings(track_id)
        )
        assert table.chords[i].labels == cache.chords(track_id).labels
        assert table.keys[i] == cache.key(track_id)
    assert len(cache.load().track_ids) == 70
    assert len(cache.load([]).track_ids) == 0


def test_labels_round_trip(cache: FeatureCache, tmp_path: Path) -> None:
    tagged = replace(
        make_labels("mine", "", 7, ("happy", "sad")), artist=("Björk", *[""] * 6), splits=("", *["train"] * 6)
    )
    make_cache(tmp_path / "mine", tagged)
    read = read_labels(tmp_path / "mine")
    assert read.artist == tagged.artist
    assert read.splits == tagged.splits
    assert read.tag_names == ("happy", "sad")
    np.testing.assert_array_equal(read.tags, tagged.tags)
    assert np.isnan(read.valence_arousal).all()
    assert cache.labels.tags.shape == (70, 0)


def test_same_tracks_give_the_same_bytes_in_any_order() -> None:
    tracks = [to_record(random_track(f"t{i}", i)) for i in range(5)]
    image = feature_image(join(tracks), CONFIG)
    assert image == feature_image(join(tracks[::-1]), CONFIG)
    assert feature_name("shard", image) != feature_name("shard", feature_image(join(tracks[:4]), CONFIG))


def test_shards_seal_at_64_and_names_are_digests(cache: FeatureCache) -> None:
    assert len(shards(cache)) == 2
    assert all(is_intact(path) for path in shards(cache))


def test_waiting_tracks_are_kept_when_the_block_ends_in_an_error(tmp_path: Path) -> None:
    def interrupted() -> None:
        with FeatureWriter(tmp_path, CONFIG) as writer:
            writer.add(random_track("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(list(tmp_path.glob("features-*/shard-*.h5"))) == 1


def test_killed_writer_leaves_whole_files_only(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from support.caches import CONFIG, make_labels, random_track\n"
        "from m2e.cache import FeatureWriter, write_labels\n"
        "write_labels(Path(sys.argv[1]), make_labels('deam', 'D', 100))\n"
        "with FeatureWriter(Path(sys.argv[1]), CONFIG) as writer:\n"
        "    for i in range(100): writer.add(random_track(f't{i:04d}', i))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    tests = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(tests)], check=False)
    assert result.returncode == -9
    assert len(FeatureCache.open(tmp_path).track_ids) == 64


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_atomically(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_writer_goes_on_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster live longer than a run, and keep their writer; the next run brings the same tracks."""
    writer = FeatureWriter(tmp_path, CONFIG)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(DataError, match="No space left on device"), writer:
            writer.add(random_track("t1", 1))
    with writer:
        writer.add(random_track("t1", 1))
        writer.add(random_track("t2", 2))
    assert scan(writer.folder, CONFIG).index["id"].tolist() == [b"t1", b"t2"]


def test_the_cache_survives_pickling(cache: FeatureCache) -> None:
    copy = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(copy.embeddings("t0003"), cache.embeddings("t0003"))


def test_a_flipped_byte_in_a_record_is_found(cache: FeatureCache) -> None:
    path = shards(cache)[0]
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        content[file["embeddings"].id.get_offset() + 5] ^= 0x40
    path.write_bytes(content)
    assert not is_intact(path)
    with pytest.raises(DataError, match="damaged"):
        cache.load()


@pytest.mark.parametrize("size", [0, 5, 100, 3000])
def test_truncated_shards_are_refused(cache: FeatureCache, size: int) -> None:
    path = shards(cache)[0]
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=path.name):
        FeatureCache.open(cache.folder)


@pytest.mark.parametrize("attack", ["gzip", "external link", "extra", "float64", "virtual", "raw external"])
def test_foreign_layouts_are_refused(cache: FeatureCache, attack: str, tmp_path: Path) -> None:
    path = shards(cache)[0]
    with h5py.File(path, "r") as file:
        attributes, data = dict(file.attrs), {name: file[name][()] for name in file}
    path.unlink()
    with h5py.File(path, "w", libver="v108") as file:
        file.attrs.update(attributes)
        file["chords"] = data["chords"]
        file["index"] = data["index"]
        values = data["embeddings"]
        if attack == "gzip":
            file.create_dataset("embeddings", data=values, compression="gzip")
        elif attack == "external link":
            file["embeddings"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif attack == "float64":
            file["embeddings"] = values.astype("f8")
        elif attack == "virtual":
            file.create_virtual_dataset("embeddings", h5py.VirtualLayout(values.shape, values.dtype))
        elif attack == "raw external":
            file.create_dataset(
                "embeddings", values.shape, values.dtype, external=[(str(tmp_path / "x"), 0, values.nbytes)]
            )
        else:
            file["embeddings"] = values
            file["more"] = 1
    with pytest.raises(DataError, match=path.name):
        FeatureCache.open(cache.folder)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("key_tonic", 99, "a key"),
        ("key_mode", 7, "a key"),
        ("duration", np.nan, "a duration"),
        ("root", 50, "'t0000' has chords"),
        ("end", -1.0, "'t0000' has chords"),
    ],
)
def test_forged_values_under_a_fitting_digest_are_one_line(
    cache: FeatureCache, field: str, value: float, match: str
) -> None:
    """The digest is recomputed, as a forger would."""
    path = next(path for path in shards(cache) if b"t0000" in path.read_bytes())
    with h5py.File(path, "r+") as file:
        index, chords, embeddings = (file[name][()] for name in ("index", "chords", "embeddings"))
        row = index[0]
        (row if field in index.dtype.names else chords[:1])[field] = value
        n, segments = int(row["chords"]), int(row["segments"])
        digest = record_digest(row.tobytes(), bytes_of(embeddings[:segments]), bytes_of(chords[:n]))
        row["digest"] = np.frombuffer(digest, "u1")
        file["index"][...], file["chords"][...] = index, chords
    with pytest.raises(DataError, match=match) as error:
        FeatureCache.open(cache.folder).load()
    assert "\n" not in str(error.value)


def test_two_settings_in_one_folder_must_be_chosen_from(cache: FeatureCache) -> None:
    other = replace(CONFIG, tail="keep")
    make_cache(cache.folder, cache.labels, other)
    with pytest.raises(DataError, match=r"tail: .*--features"):
        FeatureCache.open(cache.folder)
    chosen = FeatureCache.open(cache.folder, features=other.fingerprint[:6])
    assert chosen.config == other
    with pytest.raises(DataError, match="begin with 'zzz'"):
        FeatureCache.open(cache.folder, features="zzz")


def test_several_records_of_a_track_are_one_track(cache: FeatureCache) -> None:
    for i, track_id in enumerate(cache.track_ids[:2]):
        with FeatureWriter(cache.folder, CONFIG) as writer:
            writer.add(random_track(track_id, seed=i, segments=1 + i % 4))
    assert len(FeatureCache.open(cache.folder).track_ids) == 70
    assert FeatureCache.open(cache.folder).several == []
    with FeatureWriter(cache.folder, CONFIG) as writer:
        writer.add(random_track("t0000", seed=99))
    opened = FeatureCache.open(cache.folder)
    assert len(opened.track_ids) == 70
    assert ["of different audio" in note for note in opened.several] == [True]


def test_no_cache_and_no_features_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="m2e-extract"):
        FeatureCache.open(tmp_path / "none")
    with pytest.raises(DataError, match="m2e-extract"):
        FeatureCache.open(tmp_path)
    make_cache(tmp_path / "deam", make_labels("deam", "D", 5))
    for path in (tmp_path / "deam").glob("features-*/config.json"):
        path.unlink()
    with pytest.raises(DataError, match=r"has lost its config.json: the m2e-extract"):
        FeatureCache.open(tmp_path / "deam")
    for path in (tmp_path / "deam").glob("features-*/*.h5"):
        path.unlink()
    with pytest.raises(DataError, match="no features"):
        FeatureCache.open(tmp_path / "deam")


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_values_that_float16_cannot_hold_are_refused(value: float) -> None:
    track = random_track("a")
    with pytest.raises(ValueError, match="float16"):
        replace(track, embeddings=np.full((1, 3, 8), value, np.float32))


@pytest.mark.parametrize("track_id", ["", "x" * 65, "a\nb", "ü" * 33])
def test_ids_that_cannot_be_stored_are_refused(track_id: str) -> None:
    with pytest.raises(ValueError, match="track id"):
        random_track(track_id)


def test_a_table_of_tracks_and_labels(cache: FeatureCache, tmp_path: Path) -> None:
    frame = cache.to_frame()
    assert tuple(frame.index) == cache.track_ids
    assert tuple(frame["split"]) == cache.splits
    assert frame["duration"].sum() / 3600 == cache.hours
    assert frame["segments"].sum() == cache.n_segments
    for track_id, row in frame.iterrows():
        key = cache.key(str(track_id))
        if key is None:
            assert row[["mode", "tonic"]].isna().all()
        else:
            assert (row["mode"], row["tonic"]) == (key.mode, key.tonic)
    labels = cache.labels
    rows = [labels.track_ids.index(track_id) for track_id in cache.track_ids]
    np.testing.assert_array_equal(frame[["valence", "arousal"]].to_numpy(), labels.valence_arousal[rows])
    tagged = make_cache(tmp_path / "tagged", make_labels("tagged", "", 5, ("calm", "sad")))
    frame = FeatureCache.open(tagged).to_frame()
    np.testing.assert_array_equal(frame[["calm", "sad"]].to_numpy(), FeatureCache.open(tagged).labels.tags != 0)
