"""Files made to break a reader: one clear line each, in bounded memory, and nothing outside the root is read."""

import io
import os
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from support.official import WRITERS

from m2e.common.errors import DataError
from m2e.manifests import load
from m2e.manifests.read.text import read_lines
from m2e.manifests.store import manifest_labels

OFFICIAL = ("mtg-jamendo", "deam", "emomusic", "pmemo")
HEADER = "track_id,path,tags\n"


def refused(dataset: str, root: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(dataset, root)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1_500
    return line


def own(folder: Path, content: bytes) -> str:
    (folder / "own.csv").write_bytes(content)
    return str(folder / "own.csv")


ATTACKS = {
    "million columns": (",".join(f"c{i}" for i in range(1_000_000)) + "\n").encode(),
    "million commas below a header": HEADER.encode() + b"1,1.wav,x" + b"," * 1_000_000 + b"\n",
    "million commas in quoted lines": HEADER.encode() + b'"\n",' * 1_000_000,
    "one endless cell": HEADER.encode() + b'1,1.wav,"' + b"x" * 2_000_000,
    "one endless cell of many lines": HEADER.encode() + b'1,1.wav,"' + b"x\n" * 200_000,
    "rows without end": HEADER.encode() + b"1,1.wav,x\n" * 5_000_000,
    "blank rows without end": HEADER.encode() + b"\r" * 5_000_000,
    "UTF-16": "track_id,path,tags\n1,1.wav,x\n".encode("utf-16"),
    "Latin-1": "track_id,path,tags\n1,é.wav,x\n".encode("latin-1"),
    "Shift JIS": "track_id,path,tags\n1,1.wav,悲しい\n".encode("shift-jis"),
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + HEADER.encode() + b"1,1.wav,x\n",
    "NUL": HEADER.encode() + b"1,1.wav,x\0\n",
    "unbalanced quotes": HEADER.encode() + b'1,"1.wav,x\n',
    "text after a quote": HEADER.encode() + b'1,"1.wav"y,x\n',
    "escape sequence": HEADER.encode() + b'1,"\x1b]0;title\x07.wav",x\n',
    "binary": random.Random(0).randbytes(4096),
    "gzip": b"\x1f\x8b\x08\x00" + random.Random(1).randbytes(512),
    "nothing": b"",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_own_table(attack: str, tmp_path: Path) -> None:
    file = own(tmp_path, ATTACKS[attack])
    tracemalloc.start()
    line = refused(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file in line
    assert peak < 40e6


def test_files_are_checked_in_blocks_as_if_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block ends, in a character or between CR and LF."""
    monkeypatch.setattr("m2e.manifests.read.text._BLOCK", 3)
    monkeypatch.setattr("m2e.manifests.read.text.MAX_LINES", 4)
    chance = random.Random(0)
    path = tmp_path / "x.csv"
    found: Counter[str] = Counter()
    for _ in range(2_000):
        parts = (
            b"a",
            b"\r",
            b"\n",
            b"\r\n",
            "é".encode(),
            "悲".encode(),
            "\U0001f600".encode(),
            b"\xff",
            b"\xe6",
            b"\0",
        )
        raw = b"".join(chance.choices(parts, (9, 2, 2, 4, 3, 3, 3, 0.3, 0.3, 0.3), k=chance.randint(1, 14)))
        path.write_bytes(raw)
        try:
            text = raw.decode()
            expected = "" if text.strip() else "is empty"
            if len(io.StringIO(text, newline=None).read().split("\n")) - 1 > 4:
                expected = "has over 4 lines"
        except UnicodeDecodeError as error:
            expected = f"byte {error.start} is not UTF-8"
        found[expected.partition(" ")[0]] += 1
        if b"\0" in raw:
            with pytest.raises(DataError):
                list(read_lines(path))
        elif expected:
            with pytest.raises(DataError) as caught:
                list(read_lines(path))
            many = raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n") > 4
            assert expected in str(caught.value) or (many and "has over 4 lines" in str(caught.value)), raw
        else:
            assert "".join(read_lines(path)) == text
    assert min(found.values()) > 20


def test_byte_order_mark_alone_is_no_attack(tmp_path: Path) -> None:
    assert load(own(tmp_path, b"\xef\xbb\xbf" + HEADER.encode() + b"1,1.wav,x\n")).tracks


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(name: str, tmp_path: Path) -> None:
    files = WRITERS[name](tmp_path)
    for file in files:
        whole = file.read_bytes()
        header = whole.splitlines()[0]
        separator = b"\t" if file.suffix == ".tsv" else b","
        for content in (
            header + separator * 1_000_000 + b"\n" + whole,
            header + b"\n" + separator * 1_000_000,
            whole + b"\0",
            whole + b"\xff",
            whole.decode().encode("utf-16"),
            whole.replace(b"\n", b'\n"', 1),
        ):
            file.write_bytes(content)
            assert file.name in refused(name, tmp_path)
        file.write_bytes(whole)
    assert load(name, tmp_path).tracks


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("evil", ["../../etc/passwd", "/etc/passwd", "..", "2;rm", "-1", "２", "1e3"])
def test_ids_and_paths_of_official_files_cannot_climb(name: str, evil: str, tmp_path: Path) -> None:
    """Every cell of the first row in turn: refused, or no part of any path."""
    refusals = []
    for i, file in enumerate(WRITERS[name](tmp_path)):
        if file.suffix == ".txt":
            continue
        whole = file.read_bytes().decode()
        head, row, *rest = whole.splitlines(keepends=True)
        separator = "\t" if file.suffix == ".tsv" else ","
        cells = row.rstrip().split(separator)
        for j in range(len(cells)):
            damaged = separator.join([*cells[:j], evil, *cells[j + 1 :]])
            file.write_bytes("".join([head, damaged + "\n", *rest]).encode())
            try:
                manifest = load(name, tmp_path)
            except DataError as error:
                refusals.append(str(error))
                continue
            assert all(evil not in track.audio_path.relative_to(tmp_path).parts for track in manifest.tracks), (i, j)
            assert all(tmp_path in Path(os.path.normpath(track.audio_path)).parents for track in manifest.tracks)
        file.write_bytes(whole.encode())
    assert refusals
    assert all(line.isprintable() for line in refusals)


def test_a_file_larger_than_any_table_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "own.csv").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    tracemalloc.start()
    assert "is larger than 512 MiB" in refused(str(tmp_path / "own.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "own.csv")
    assert "own.csv is a pipe, not a regular file" in refused(str(tmp_path / "own.csv"))


def test_split_lists(tmp_path: Path) -> None:
    WRITERS["deam"](tmp_path / "deam")
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("train", "validation", "test"):
        (lists / f"{name}.txt").write_bytes(b"x" * 3_000_000)
    with pytest.raises(DataError) as caught:
        load("deam", tmp_path / "deam", lists)
    assert "train.txt: line 1 has over 262,144 characters" in str(caught.value)


def test_what_lies_beside_the_data_set_may_be_closed(tmp_path: Path) -> None:
    """A folder that nobody may look into, such as a disk's lost+found, is passed over."""
    WRITERS["deam"](tmp_path)
    closed = tmp_path / "lost+found"
    closed.mkdir()
    (closed / "annotations").symlink_to("annotations")  # a loop: to look into it is an error for root, too
    assert load("deam", tmp_path).tracks


def test_audio_that_is_a_link_in_a_loop(tmp_path: Path) -> None:
    WRITERS["deam"](tmp_path)
    (tmp_path / "MEMD_audio").mkdir()
    (tmp_path / "MEMD_audio" / "2.mp3").symlink_to("2.mp3")
    assert not load("deam", tmp_path).tracks[0].has_audio


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("".join(f"{i},{i}.wav,x,{'y' * 1_000 if i else ''}\n" for i in range(9)), "characters"),
        ("".join(f"{i},{i}.wav,tag {i},\n" for i in range(2_000)), "has 2,000 tags, over 1,000"),
    ],
)
def test_labels_too_large_to_keep(rows: str, line: str, tmp_path: Path) -> None:
    manifest = load(own(tmp_path, f"track_id,path,tags,artist\n{rows}".encode()))
    with pytest.raises(DataError, match=line):
        manifest_labels(manifest)
