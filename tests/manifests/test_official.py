"""What is particular to each official set, on small files of its form and on the real ones where they are."""

from collections import Counter
from pathlib import Path

import pytest
from support.official import TAGS, WRITERS, write_emomusic, write_jamendo, write_pmemo, write_pmemo_labels

from m2e.common.errors import DataError
from m2e.manifests import SPLITS, Choices, Manifest, Track, ValenceArousal, load
from m2e.manifests.check.leaks import find_leaks
from m2e.manifests.datasets.mediaeval import clip_group
from m2e.manifests.splits import artist_key


def by_id(manifest: Manifest) -> dict[str, Track]:
    return {track.track_id: track for track in manifest.tracks}


def counts(manifest: Manifest) -> tuple[int, int, int]:
    """Train, validation, test."""
    found = Counter(track.split for track in manifest.tracks)
    return found["train"], found["validation"], found["test"]


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "line"),
    [
        ("mtg-jamendo", 1, "\t48/948.mp3", "\t../../etc/passwd", r"train.tsv: row 2: PATH '../../etc/passwd' is not"),
        ("mtg-jamendo", 1, "\t48/948.mp3", "\t/etc/passwd", r"row 2: PATH '/etc/passwd' is not"),
        ("mtg-jamendo", 1, "track_0000948", "track_948", r"row 2: TRACK_ID 'track_948' is not"),
        ("mtg-jamendo", 1, "---dark", "---sad", r"row 2: tag 'sad' is not in moodtheme_split.txt"),
        ("mtg-jamendo", 1, "\tmood/theme---dark\r", "\r", r"row 2: has 5 cells"),
        ("mtg-jamendo", 3, "PATH", "path", r"test.tsv: its header is"),
        ("mtg-jamendo", 0, "mood/theme---film", "film", r"moodtheme_split.txt: should hold one tag a line"),
        ("mtg-jamendo", 0, "film", "dark", r"moodtheme_split.txt: names a tag twice"),
        ("deam", 0, "2,5.1", "2,9.01", r"1_2000.csv: row 2: valence_mean '9.01' is not a number from 1 to 9"),
        ("deam", 0, "2,5.1", "2,nan", r"row 2: valence_mean 'nan' is not a number"),
        ("deam", 0, "2,5.1", "2,inf", r"row 2: valence_mean 'inf' is not a number"),
        ("deam", 0, "2,5.1", "2,1_0", r"row 2: valence_mean '1_0' is not a number"),
        ("deam", 0, "2,5.1", "2,", r"row 2: valence_mean '' is not a number"),
        ("deam", 0, "arousal_mean", "arousal", r"lacks the columns \['arousal_mean'\]; it needs .* has \['song_id'"),
        ("deam", 0, "arousal_std", "arousal_mean", r"has more than one column \['arousal_mean'\]"),
        ("deam", 0, "\n2,", "\n../2,", r"row 2: song_id '../2' is not a positive whole number"),
        ("deam", 0, "\n2,", "\n02,", r"row 2: song_id '02' is not a positive whole number"),
        ("deam", 0, "\n2,", "\n2001,", r"2000_2058.csv: row 2: song_id '2001' stands already at .*1_2000.csv: row 2"),
        ("deam", 0, ",0.63\r\n3,", "\r\n3,", r"row 2 has 4 cells, the header 5"),
        ("emomusic", 0, "\n2,", "\n9,", r"songs_info.csv: song_id '2' stands there or in static_annotations.csv, but"),
        ("emomusic", 0, "2,5.1", "2,5;1", r"static_annotations.csv: row 2: mean_arousal '5;1' is not a number"),
        ("emomusic", 1, '"evaluation"', '"test"', r"row 3: Mediaeval 2013 set 'test' is neither"),
        ("emomusic", 1, "Artist,", "Art\x1b[2J,", r"row 2: Artist .* holds control characters"),
        ("pmemo", 0, "\n4,0.4", "\n4,1.5", r"row 3: Arousal\(mean\) '1.5' is not a number from 0 to 1"),
        ("pmemo", 0, "\n4,", "\n11,", r"row 3: musicId '11' is not in metadata.csv"),
    ],
)
def test_bad_cell_is_named_with_its_row(name: str, file: int, old: str, new: str, line: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path)[file]
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(DataError, match=line):
        load(name, tmp_path)


def test_jamendo_rows(tmp_path: Path) -> None:
    WRITERS["mtg-jamendo"](tmp_path)
    manifest = load("mtg-jamendo", tmp_path)
    assert manifest.tag_names == TAGS
    assert counts(manifest) == (6, 3, 3)
    assert by_id(manifest)["track_0000949"] == Track(
        track_id="track_0000949",
        audio_path=tmp_path / "49" / "949.mp3",
        split="train",
        tags=frozenset({"dark", "film"}),
        clip_group="mtg-jamendo/track_0000949",
        artist="artist_000000",
    )


@pytest.mark.parametrize("number", range(5))
def test_jamendo_splits(number: int, tmp_path: Path) -> None:
    write_jamendo(tmp_path, range(100 + number, 120), split_number=number)
    manifest = load("mtg-jamendo", tmp_path, choices=Choices(jamendo_split=number))
    assert len(manifest.tracks) == 20 - number
    assert manifest.provenance.endswith(f"; splits: official split-{number}")
    with pytest.raises(DataError, match=f"split-{(number + 1) % 5}"):
        load("mtg-jamendo", tmp_path, choices=Choices(jamendo_split=(number + 1) % 5))


def test_jamendo_of_two_qualities_is_noted(tmp_path: Path) -> None:
    WRITERS["mtg-jamendo"](tmp_path)
    for place in ("48/948.low.mp3", "49/949.mp3"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).touch()
    assert load("mtg-jamendo", tmp_path).notes == ("1 files are of full quality and 1 of low: use one of the two",)


@pytest.mark.parametrize(
    "place", ["48/948.mp3", "48/948.low.mp3", "audio/48/948.mp3", "audio/48/948.low.mp3", "low/48/948.low.mp3"]
)
def test_jamendo_audio_is_found_where_it_is(place: str, tmp_path: Path) -> None:
    WRITERS["mtg-jamendo"](tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    tracks = by_id(load("mtg-jamendo", tmp_path))
    assert tracks["track_0000948"].audio_path == tmp_path / place
    assert tracks["track_0000949"].audio_path == tmp_path / "49/949.mp3"


def test_jamendo_tracks_of_one_path_and_blank_lines(tmp_path: Path) -> None:
    files = WRITERS["mtg-jamendo"](tmp_path)
    file = files[-1]
    whole = file.read_bytes()
    file.write_bytes(whole + b"\r\n\n")
    assert len(load("mtg-jamendo", tmp_path).tracks) == 12
    last = whole.splitlines()[-1]
    file.write_bytes(whole + last.replace(b"track_0000", b"track_0001") + b"\r\n")
    with pytest.raises(DataError, match=r"row 5: PATH '.*' is that of track_0000"):
        load("mtg-jamendo", tmp_path)


def test_deam_rows(tmp_path: Path) -> None:
    WRITERS["deam"](tmp_path)
    manifest = load("deam", tmp_path)
    tracks = by_id(manifest)
    assert tracks["2"].valence_arousal == ValenceArousal(5.1, 5)
    assert tracks["2001"].valence_arousal == ValenceArousal(3.2, 6.6)
    assert tracks["2"].audio_path == tmp_path / "MEMD_audio" / "2.mp3"
    assert tracks["2000"].clip_group == "mediaeval/2000"
    assert tracks["2001"].clip_group == "deam/2001"
    assert tracks["536"].clip_group == tracks["175"].clip_group == "mediaeval/175"
    assert tracks["536"].split == tracks["175"].split
    note, alone = manifest.notes
    assert alone.startswith("the splits do not follow emomusic (not there)")
    assert note.startswith("4 songs (ids 2-1000) carry valence and arousal exchanged, going by their ids")


def test_deam_headers_without_spaces(tmp_path: Path) -> None:
    files = WRITERS["deam"](tmp_path)
    before = load("deam", tmp_path)
    for file in files:
        file.write_bytes(file.read_bytes().replace(b", ", b",").replace(b"\r\n", b"\n"))
    assert load("deam", tmp_path) == before


def test_known_duplicates_share_their_group() -> None:
    for pair in (("175", "536"), ("390", "758"), ("296", "706"), ("631", "893")):
        assert len({clip_group(song_id) for song_id in pair}) == 1
    assert len({clip_group(str(i)) for i in range(2, 2001)}) == 1999 - 4


def test_emomusic_rows(tmp_path: Path) -> None:
    WRITERS["emomusic"](tmp_path)
    tracks = by_id(load("emomusic", tmp_path))
    assert tracks["2"].valence_arousal == ValenceArousal(valence=5, arousal=5.1)
    assert tracks["2"].audio_path == tmp_path / "clips_45sec" / "2.mp3"
    assert tracks["2"].artist == "Artist, 2"
    assert tracks["536"].clip_group == "mediaeval/175"
    assert [track_id for track_id, track in tracks.items() if track.split == "test"] == ["3", "8"]


@pytest.mark.parametrize("place", ["clips_45sec", "clips_45seconds", "clips_45sec/clips_45seconds"])
def test_emomusic_audio_is_found_where_archives_put_it(place: str, tmp_path: Path) -> None:
    WRITERS["emomusic"](tmp_path)
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "3.mp3").touch()
    assert by_id(load("emomusic", tmp_path))["3"].audio_path == tmp_path / place / "3.mp3"


def test_emomusic_clip_that_repeats_a_test_clip_is_in_no_split(tmp_path: Path) -> None:
    write_emomusic(tmp_path, (4, 893, 5, 7, 631, 10))  # every fourth, 893 among them, is of the evaluation set
    manifest = load("emomusic", tmp_path)
    tracks = by_id(manifest)
    assert (tracks["893"].split, tracks["631"].split) == ("test", None)
    assert manifest.provenance.endswith("without 631, which repeats a test clip")


def test_pmemo_rows(tmp_path: Path) -> None:
    WRITERS["pmemo"](tmp_path)
    manifest = load("pmemo", tmp_path)
    track = by_id(manifest)["4"]
    assert track.valence_arousal == ValenceArousal(valence=9, arousal=1 + 8 * 0.4)
    assert (track.artist, track.clip_group) == ("Beyoncé\x93", "pmemo/4")
    assert track.audio_path == tmp_path / "chorus" / "4.mp3"
    assert manifest.notes == ("2 of 8 songs have no label and are left out",)
    assert manifest.unlabelled == ("9", "1000")


def test_one_artist_is_on_one_side(tmp_path: Path) -> None:
    write_pmemo(tmp_path, range(1, 200), unlabelled=())  # all by one artist
    assert len({track.split for track in load("pmemo", tmp_path).tracks}) == 1


def test_demo_says_that_it_is_synthetic(tmp_path: Path) -> None:
    WRITERS["demo-deam"](tmp_path)
    manifest = load("demo-deam", tmp_path)
    assert "synthetic" in manifest.provenance
    assert manifest.tracks[0].clip_group == "demo-deam/1"


def test_real_jamendo(reference: Path) -> None:
    manifest = load("mtg-jamendo", reference / "data" / "mtg-jamendo")
    assert counts(manifest) == (9949, 3802, 4231)
    assert len(manifest.tag_names) == 56
    assert (manifest.tag_names[0], manifest.tag_names[-1]) == ("action", "uplifting")
    assert by_id(manifest)["track_0000948"].tags == {"background"}
    artists = {s: {track.artist for track in manifest.tracks if track.split == s} for s in ("train", "test")}
    assert not artists["train"] & artists["test"]


def test_real_deam(reference: Path) -> None:
    data = reference / "data"
    manifest = load("deam", data / "deam")
    assert len(manifest.tracks) == 1802
    assert manifest.notes[0].startswith("744 songs")
    tracks = by_id(manifest)
    assert tracks["2"].valence_arousal == ValenceArousal(3.1, 3)
    assert tracks["2001"].valence_arousal == ValenceArousal(3.2, 6.6)
    assert tracks["2"].audio_path.is_file()
    train, validation, test = (count / 1802 for count in counts(manifest))
    assert train == pytest.approx(0.7, abs=0.03)
    assert validation == pytest.approx(0.15, abs=0.03)
    assert test == pytest.approx(0.15, abs=0.03)
    paper = load("deam", data / "deam", data / "splits" / "deam")
    assert counts(paper) == (1261, 271, 270)
    assert len(paper.notes) == 1


def test_real_emomusic(reference: Path) -> None:
    data = reference / "data"
    manifest = load("emomusic", data / "emomusic")
    assert len(manifest.tracks) == 744
    train, _, test = counts(manifest)
    assert test == 125
    assert train / 618 == pytest.approx(0.8, abs=0.05)
    tracks = by_id(manifest)
    artists = {split: {t.artist for t in manifest.tracks if t.split == split} for split in ("train", "validation")}
    assert not artists["train"] & artists["validation"]
    assert [track_id for track_id, track in tracks.items() if track.split is None] == ["631"]
    assert tracks["2"].valence_arousal == ValenceArousal(valence=3, arousal=3.1)
    assert tracks["2"].artist == "The New Mystikal Troubadours"
    assert tracks["2"].audio_path.is_file()
    paper = load("emomusic", data / "emomusic", data / "splits" / "emomusic")
    assert counts(paper) == (495, 124, 125)
    assert all(tracks[track.track_id].split == "test" for track in paper.tracks if track.split == "test")


def test_real_emomusic_and_deam_share_their_clips(reference: Path) -> None:
    deam = by_id(load("deam", reference / "data" / "deam"))
    emomusic = by_id(load("emomusic", reference / "data" / "emomusic"))
    assert sum(deam[track_id].clip_group == track.clip_group for track_id, track in emomusic.items()) == 744


def test_real_pmemo_ids(reference: Path, tmp_path: Path) -> None:
    data = reference / "data"
    ids = sorted(int(line) for file in (data / "splits" / "pmemo").iterdir() for line in file.read_text().split())
    write_pmemo_labels(tmp_path, ids)
    (tmp_path / "metadata.csv").write_bytes((data / "pmemo" / "metadata.csv").read_bytes())
    manifest = load("pmemo", tmp_path, data / "splits" / "pmemo")
    assert counts(manifest) == (536, 116, 115)
    assert manifest.notes == ("27 of 794 songs have no label and are left out",)
    assert [leak.artists for leak in find_leaks([manifest])] == [61, 35]
    own = load("pmemo", tmp_path)
    assert counts(own)[0] / 767 == pytest.approx(0.7, abs=0.05)
    artists = {split: {artist_key(t.artist) for t in own.tracks if t.split == split} - {""} for split in SPLITS}
    assert not artists["train"] & artists["test"]
    assert not artists["train"] & artists["validation"]
    assert not artists["validation"] & artists["test"]
