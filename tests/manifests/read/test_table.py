"""A user's own CSV, and how `load` tells it from a registered name."""

import csv
import io
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.official import WRITERS

from m2e.common.errors import DataError
from m2e.manifests import Choices, Manifest, Track, ValenceArousal, load
from m2e.manifests.read import table
from m2e.manifests.splits import hash_split

HEADER = "track_id,path,split,tags,valence,arousal,clip_group,artist\n"


def own(folder: Path, text: str) -> str:
    path = folder / "own.csv"
    path.write_bytes(text.encode())
    return str(path)


def test_all_columns(tmp_path: Path) -> None:
    rows = "a,x/a.wav,train,sad; happy;,1,9,mediaeval/2,Beyoncé\nb,b.wav,,,,,,\n"
    manifest = load(own(tmp_path, HEADER + rows))
    assert (manifest.name, manifest.letter, manifest.tag_names) == ("own", "", ("happy", "sad"))
    assert manifest.tracks == (
        Track(
            "a",
            tmp_path / "x/a.wav",
            "train",
            frozenset({"happy", "sad"}),
            ValenceArousal(1, 9),
            "mediaeval/2",
            "Beyoncé",
        ),
        Track("b", tmp_path / "b.wav", None, frozenset(), None, "own/b", ""),
    )
    assert manifest.provenance == "labels from own.csv; splits: column split of own.csv"
    assert manifest.notes == ("1 of 2 tracks have no valence and arousal",)


def test_fewest_columns_in_any_order_with_spaces_and_a_byte_order_mark(tmp_path: Path) -> None:
    manifest = load(own(tmp_path, "\ufeffTitle, tags ,path,track_id\r\n\r\nx, loud ,1.mp3,1\r\n,,,\r\n"))
    (track,) = manifest.tracks
    assert track == Track("1", tmp_path / "1.mp3", hash_split("own/1"), frozenset({"loud"}), None, "own/1")
    assert manifest.notes == ("columns not used: Title",)
    assert "hash" in manifest.provenance


def test_what_spreadsheets_add(tmp_path: Path) -> None:
    """Empty cells at the ends of rows, columns without a name, and spaces that do not break."""
    rows = "track_id,path,tags,,\n1,1.wav,feel\u00a0good;sad\n2,2.wav,sad,,,,\n,,,,,,\n"
    manifest = load(own(tmp_path, rows))
    assert manifest.tag_names == ("feel good", "sad")
    assert [track.track_id for track in manifest.tracks] == ["1", "2"]
    assert not manifest.notes


@pytest.mark.parametrize("explicit", ["3,y.wav,a,g\n4,y.wav,a,\n", "3,y.wav,a,\n4,y.wav,a,g\n"])
def test_tracks_of_one_audio_file_are_one_clip(explicit: str, tmp_path: Path) -> None:
    rows = f"1,x.wav,a,\n2,./x.wav,a,\n{explicit}5,z.wav,a,\n"
    manifest = load(own(tmp_path, f"track_id,path,tags,clip_group\n{rows}"))
    assert [track.clip_group for track in manifest.tracks] == ["own/1", "own/1", "g", "g", "own/5"]
    assert manifest.notes == ("2 tracks have the audio file of another",)
    assert len({track.split for track in manifest.tracks[:2]}) == 1
    (tmp_path / "built.csv").write_bytes(table.write(manifest, tmp_path))
    assert load(str(tmp_path / "built.csv")) == manifest


def test_what_is_built_from_odd_tables_reads_back_the_same(tmp_path: Path) -> None:
    """Whatever text a reader lets through, the writer's file brings it back."""
    odd = "ab \u00a0\u200b\u202e\u2028\x85\x9bé悲,;\"'=#\\|"
    chance = random.Random(0)
    read = 0
    for i in range(300):
        cells = ["".join(chance.choices(odd, k=chance.randint(0, 4))) for _ in range(5)]
        text = io.StringIO()
        rows = [["track_id", "path", "tags", "clip_group", "artist", cells[0]], ["1", *(f"x{cell}" for cell in cells)]]
        csv.writer(text).writerows(rows)
        try:
            manifest = load(own(tmp_path, text.getvalue()))
        except DataError:
            continue
        read += 1
        (tmp_path / "built.csv").write_bytes(table.write(manifest, tmp_path))
        assert load(str(tmp_path / "built.csv")) == manifest, i
    assert read > 30


def test_paths_are_relative_to_the_root(tmp_path: Path) -> None:
    file = own(tmp_path, "track_id,path,tags\n1,sub/1.wav,x\n")
    root = tmp_path / "audio"
    root.mkdir()
    assert load(file, root).tracks[0].audio_path == root / "sub/1.wav"
    with pytest.raises(DataError, match=r"none: no such folder; the paths in own.csv are relative to it"):
        load(file, tmp_path / "none")


@pytest.mark.parametrize(
    "path",
    [
        "../1.wav",
        "/etc/passwd",
        "sub/../../1.wav",
        "sub/../1.wav",
        "../../etc/passwd",
        "..",
        "",
        ".",
        "/1.wav",
        "//1.wav",
        "sub//../1.wav",
    ],
)
def test_paths_that_leave_the_root(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "sub").mkdir()
    with pytest.raises(DataError, match=r"own.csv: row 4: path .* is not a path inside"):
        load(own(root, f"track_id,path,tags\n1,1.wav,x\n2,sub/1.wav,x\n3,{path},x\n"))


@pytest.mark.parametrize("root", [None, ".", "songs", "/"])
def test_absolute_paths_inside_the_root(root: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "1.wav").touch()
    file = own(tmp_path, f"track_id,path,tags\n1,{tmp_path}/songs/1.wav,x\n")
    monkeypatch.chdir(tmp_path)
    manifest = load(file, Path(root) if root else None)
    assert manifest.tracks[0].has_audio
    built = tmp_path / "built.csv"
    built.write_bytes(table.write(manifest, Path(root or tmp_path)))
    assert load(str(built), Path(root or tmp_path)) == manifest


def test_absolute_paths_elsewhere_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2: path '/mnt/1.wav' is not a path inside .*--root / takes every"):
        load(own(tmp_path, "track_id,path,tags\n1,/mnt/1.wav,x\n"))
    assert load(own(tmp_path, "track_id,path,tags\n1,/mnt/1.wav,x\n"), Path("/")).tracks[0].audio_path == Path(
        "/mnt/1.wav"
    )


def test_paths_through_links(tmp_path: Path) -> None:
    """To another disk, to a file there, and to nowhere, which is a track without audio."""
    root, disk = tmp_path / "root", tmp_path / "disk"
    for folder in (root, disk):
        folder.mkdir()
    for name in ("1.wav", "2.wav"):
        (disk / name).touch()
    (root / "songs").symlink_to(disk)
    (root / "two.wav").symlink_to(disk / "2.wav")
    (root / "loop").symlink_to("loop")
    manifest = load(own(root, "track_id,path,tags\n1,songs/1.wav,x\n2,two.wav,x\n3,loop/3.wav,x\n4,loop,x\n"))
    assert [track.has_audio for track in manifest.tracks] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("track_id,tags\n1,x\n", r"lacks the columns \['path'\]; it needs \['track_id', 'path'\] and has"),
        ("track_id,path\n1,1.wav\n", "needs the columns track_id, path, and tags, or .*; it has track_id, path"),
        ("track_id,path,valence\n1,1.wav,3\n", "or valence and arousal, or all three; it has track_id, path, valence"),
        ("track_id,path,tags\n1,1.wav,x\n1,2.wav,x\n", "row 3: track_id '1' stands already at .*row 2"),
        ("track_id,path,tags\n1,1.wav,;\n", "no track has a tag, or valence and arousal"),
        ("track_id,path,valence,arousal\n1,1.wav,3,\n", "row 2: arousal '' is not a number from 1 to 9"),
        ("track_id,path,valence,arousal\n1,1.wav,0,5\n", "row 2: valence '0' is not a number from 1 to 9"),
        ("track_id,path,tags,split\n1,1.wav,x,dev\n", "row 2: split 'dev' is not one of train, validation, test"),
        ("track_id,path,tags\n,1.wav,x\n", "row 2: track id '' must be"),
        (f"track_id,path,tags\n{'é' * 40},1.wav,x\n", "row 2: track id .* must be"),
        ('track_id,path,tags\n"a\tb",1.wav,x\n', "row 2: track_id .* holds control characters"),
        ('track_id,path,tags\na,"1\x1b.wav",x\n', "row 2: path .* holds control characters"),
        ("track_id,path,tags,tags\n1,1.wav,x,y\n", r"more than one column \['tags'\]"),
        ("track_id,path,tags\n1,1.wav\n", "row 2 has 2 cells, the header 3"),
        ("track_id;path;tags\n1;1.wav;x\n", "columns are separated by commas"),
        ("track_id\tpath\ttags\n1\t1.wav\tx\n", "control characters"),
        ("track_id,path,tags,Split\n1,1.wav,x,test\n", "its column 'Split' should be called 'split'"),
        ("Track_ID,path,tags\n1,1.wav,x\n", "its column 'Track_ID' should be called 'track_id'"),
        ('track_id,path,valence,arousal\n1,1.wav,"5,5",5\n', "decimals are written with a point"),
        (
            'track_id,path,tags\n1,1.wav,"happy,sad"\n',
            "tag 'happy,sad': tags are separated by semicolons",
        ),
        ("track_id,path,tags\n1,1.wav,a\u200bb\n", "row 2: tag .* printable"),
        (f"track_id,path,tags\n1,1.wav,{'x' * 65}\n", "row 2: tag .* at most 64 characters"),
        ("track_id,path,tags\n1,C:\\Music\\1.wav,x\n", "folders are separated by /"),
        ("track_id,path,tags\n1," + "x/" * 900 + "1.wav,x\n", "is not a path inside"),
        ('track_id,path,tags,"a\nb"\n1,1.wav,x,y\n', "the name of a column, .* holds control characters"),
        ("#m2e-manifest,name=a,tag=x,tag=x\ntrack_id,path,tags\n1,1.wav,x\n", "row 1: names a tag twice"),
        ("#m2e-manifest,name=a,tag=\ntrack_id,path,tags\n1,1.wav,x\n", "row 1: names a tag twice, or one without"),
        ("track_id,path,tags\n1,1.wav,x,y\n", "row 2 has 4 cells, the header 3"),
        ('track_id,path,tags\n1,"1".wav,x\n', "is no CSV file: line 2"),
        ("track_id,path,valence,arousal\n1,1.wav,nan,5\n", "row 2: valence 'nan' is not a number from 1 to 9"),
        ('track_id,path,tags\n1,1.wav,"x\n', "is no CSV file"),
        (f'track_id,path,tags\n1,1.wav,"{"x" * 200_000}"\n', "is no CSV file"),
        ("track_id,path,tags\n1,1\0.wav,x\n", "holds a NUL byte"),
        ("", "own.csv: is empty"),
    ],
)
def test_bad_tables(text: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line) as caught:
        load(own(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 1


def test_file_that_is_missing_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own.csv: no such file"):
        load(str(tmp_path / "none" / "own.csv"))
    (tmp_path / "own.csv").write_bytes("track_id,path,tags\n1,é.wav,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"own.csv: byte 21 is not UTF-8"):
        load(str(tmp_path / "own.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv is a folder, not a regular file"):
        load(str(tmp_path / "folder.csv"))


@pytest.mark.parametrize("name", ["deam.csv", "DEAM.csv", "..csv"])
def test_file_names_that_cannot_name_a_data_set(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("track_id,path,tags\n1,1.wav,x\n")
    with pytest.raises(DataError, match="rename the file"):
        load(str(tmp_path / name))


@pytest.mark.parametrize(("name", "near"), [("jamendo", "mtg-jamendo"), ("DEAM", "deam"), ("emo-music", "emomusic")])
def test_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(DataError, match=f"did you mean {near}.*there are mtg-jamendo, deam, emomusic, pmemo, .*\\.csv"):
        load(name)


def test_unknown_name_that_is_near_to_none() -> None:
    with pytest.raises(DataError, match="no data set is called 'xyz': there are"):
        load("xyz")


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2E_DATA", str(tmp_path))
    WRITERS["deam"](tmp_path / "deam")
    assert load("deam") == load("deam", tmp_path / "deam")
    monkeypatch.delenv("M2E_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^data.deam: no such folder"):
        load("deam")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 5.0), (0.0, 100.0)])
def test_other_scales_become_1_to_9(low: float, high: float, tmp_path: Path) -> None:
    middle = (low + high) / 2
    file = own(tmp_path, f"track_id,path,valence,arousal\na,a.wav,{low},{high}\nb,b.wav,{middle},{middle}\n")
    manifest = load(file, choices=Choices(scale=(low, high)))
    assert [track.valence_arousal for track in manifest.tracks] == [ValenceArousal(1, 9), ValenceArousal(5, 5)]
    assert f"mapped from [{low:g}, {high:g}] to 1-9; splits" in manifest.provenance
    own(tmp_path, f"track_id,path,valence,arousal\na,a.wav,{high + 1},{low}\n")
    with pytest.raises(DataError, match=f"is not a number from {low:g} to {high:g}"):
        load(file, choices=Choices(scale=(low, high)))


BUILT = "#m2e-manifest,name=songs,letter=S,tag=sad,tag=happy,provenance=mine; splits: mine,note=a,unlabelled=9,\n"


def test_line_above_the_header(tmp_path: Path) -> None:
    manifest = load(own(tmp_path, BUILT + "track_id,path,tags\n1,1.wav,happy\n2,2.wav,\n"))
    assert (manifest.name, manifest.letter, manifest.tag_names) == ("songs", "S", ("sad", "happy"))
    assert (manifest.provenance, manifest.notes, manifest.unlabelled) == ("mine; splits: mine", ("a",), ("9",))
    assert manifest.tracks[1].tags == frozenset()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("name=songs", "name=../songs", "'../songs' cannot name a data set: change its first line"),
        ("name=songs", "name=/etc", "'/etc' cannot name a data set"),
        ("name=songs", "name=.hidden", "'.hidden' cannot name a data set"),
        ("name=songs", "name=a/b", "'a/b' cannot name a data set"),
        ("name=songs", '"name=a,b"', "'a,b' cannot name a data set"),
        ("letter=S", '"letter=,"', "',' is not a letter"),
        ("letter=S", "letter=ST", "'ST' is not a letter"),
        ("tag=happy", "tag=merry", "tag 'happy' is not among the tags of its first line"),
        ("note=a", '"note=a\x1b[2J"', "row 1: holds control characters"),
        ("track_id", "id", r"lacks the columns \['track_id'\]"),
    ],
)
def test_line_above_the_header_is_checked(old: str, new: str, line: str, tmp_path: Path) -> None:
    text = BUILT + "track_id,path,tags\n1,1.wav,happy\n"
    with pytest.raises(DataError, match=line):
        load(own(tmp_path, text.replace(old, new, 1)))


@pytest.mark.parametrize("name", [" songs", "songs ", "a,b", "a/b", ".a", "a\tb", "a" * 101])
def test_a_name_that_is_given_is_checked(name: str, tmp_path: Path) -> None:
    file = own(tmp_path, "track_id,path,tags\n1,1.wav,happy\n")
    with pytest.raises(DataError, match=r"cannot name a data set: give another \(1-100 printable characters without"):
        load(file, name=name)
    assert load(file, name="My songs, really".replace(",", "")).name == "My songs really"


def test_line_above_the_header_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the columns"):
        load(own(tmp_path, BUILT))


@pytest.mark.parametrize(("text", "scale"), [("abc", 1e17), ("nan", 1e17), ("1e17", 8e307), ("8e307", 8e307)])
def test_scales_at_the_ends_of_numbers(text: str, scale: float, tmp_path: Path) -> None:
    file = own(tmp_path, f"track_id,path,valence,arousal\n1,1.wav,{text},0\n")
    if text.isalpha():
        with pytest.raises(DataError, match="is not a number"):
            load(file, choices=Choices(scale=(-scale, scale)))
    else:
        (track,) = load(file, choices=Choices(scale=(-scale, scale))).tracks
        assert track.valence_arousal
        assert track.valence_arousal.arousal == 5


def test_tables_on_one_scale_align(tmp_path: Path) -> None:
    rows = "track_id,path,split,valence,arousal,clip_group\n"
    file = own(tmp_path, f"{rows}1,1.wav,train,-1,0,g\n")
    other = tmp_path / "other.csv"
    other.write_text(f"{rows}7,7.wav,test,0,1,g\n")
    choices = Choices(scale=(-1, 1), align=str(other))
    aligned = load(file, choices=choices)
    assert aligned.tracks[0].split == "test"
    built = tmp_path / "built.csv"
    built.write_bytes(table.write(aligned, tmp_path))
    assert load(str(built), choices=replace(choices, scale=(1, 9), align="none")) == aligned
    with pytest.raises(DataError, match="own cannot be aligned with itself"):
        load(file, choices=replace(choices, align=file))


def test_built_manifest_takes_no_scale(tmp_path: Path) -> None:
    file = own(tmp_path, BUILT + "track_id,path,tags\n1,1.wav,happy\n")
    with pytest.raises(DataError, match="takes no --scale"):
        load(file, choices=Choices(scale=(0, 1)))


def test_tag_that_the_table_cannot_hold() -> None:
    manifest = Manifest("x", "", (Track("1", Path("1.wav"), tags=frozenset({"a;b"})),), ("a;b",))
    with pytest.raises(DataError, match="holds a semicolon"):
        table.write(manifest, Path())


def test_reading_needs_no_library_beyond_the_base_install(tmp_path: Path) -> None:
    WRITERS["deam"](tmp_path)
    code = (
        f"import sys; from pathlib import Path; import m2e.manifests as m; m.load('deam', Path({str(tmp_path)!r}))\n"
        "assert not {'pandas', 'pooch', 'torch', 'scipy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
