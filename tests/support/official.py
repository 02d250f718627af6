"""Small data sets in the exact form of the official files, quirks included; no audio.

`WRITERS[name](root)` writes the registered data set `name` into the folder `root` and returns its annotation files.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

TAGS = ("dark", "film", "happy")


def write(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 with its line ends as they are; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def write_jamendo(root: Path, numbers: Iterable[int] = range(948, 960), split_number: int = 0) -> list[Path]:
    """Tracks `numbers`, a quarter each for validation and test, one to three tags: ragged rows that end in CRLF."""
    rows: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for i, number in enumerate(numbers):
        split = ("train", "train", "validation", "test")[i % 4]
        tags = "\t".join(f"mood/theme---{tag}" for tag in TAGS[: 1 + i % 3])
        path = f"{number % 100:02d}/{number}.mp3"
        rows[split].append(f"track_{number:07d}\tartist_{i // 4:06d}\talbum_000149\t{path}\t212.7\t{tags}\r\n")
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\r\n"
    folder = root / "data" / "splits" / f"split-{split_number}"
    return [
        write(root / "data" / "tags" / "moodtheme_split.txt", "".join(f"mood/theme---{tag}\n" for tag in TAGS)),
        *(write(folder / f"autotagging_moodtheme-{s}.tsv", header + "".join(lines)) for s, lines in rows.items()),
    ]


def write_deam(
    root: Path, ids: Iterable[int] = (2, 3, 175, 536, 1001, 2000), full: Iterable[int] = (2001, 2058)
) -> list[Path]:
    """Clips `ids` in the first file and songs `full` in the second, whose columns are others in another order."""
    folder = root / "annotations" / "annotations averaged per song" / "song_level"
    first = "song_id, valence_mean, valence_std, arousal_mean, arousal_std\r\n"
    second = (
        "song_id, valence_mean, valence_std, valence_ max_mean, valence_max_std, valence_min_mean, valence_min_std, "
        "arousal_mean, arousal_std, arousal_max_mean, arousal_max_std, arousal_min_mean, arousal_min_std\r\n"
    )
    return [
        write(
            folder / "static_annotations_averaged_songs_1_2000.csv",
            first + "".join(f"{i},{3.1 + i % 5:.1f},0.94,{3 + i % 3},0.63\r\n" for i in ids),
        ),
        write(
            folder / "static_annotations_averaged_songs_2000_2058.csv",
            second + "".join(f"{i},3.2,0.98,5.0,1.41,2.2,0.98,6.6,0.8,8.6,0.49,3.4,1.02\r\n" for i in full),
        ),
    ]


def write_deam_dynamic(root: Path, ids: Iterable[int], exchanged: bool) -> list[Path]:
    """Dynamic annotations of songs `ids` that go with `write_deam`'s static ones, or with these exchanged.

    Rows end in empty cells, as the published ones do: songs have unequal numbers of samples.
    """
    folder = root / "annotations" / "annotations averaged per song" / "dynamic (per second annotations)"
    header = "song_id," + ",".join(f"sample_{15000 + 500 * i}ms" for i in range(6)) + "\n"
    columns = {"valence": lambda i: 3.1 + i % 5, "arousal": lambda i: 3 + i % 3}
    names = ("arousal", "valence") if exchanged else ("valence", "arousal")
    return [
        write(
            folder / f"{name}.csv",
            header
            + "".join(
                f"{i},{(columns[like](i) - 5) / 4 - 0.1:.3f},{(columns[like](i) - 5) / 4 + 0.1:.3f},,,,\n" for i in ids
            ),
        )
        for name, like in zip(("valence", "arousal"), names, strict=True)
    ]


def write_emomusic(root: Path, ids: Iterable[int] = (2, 3, 4, 5, 7, 8, 175, 536)) -> list[Path]:
    """Clips `ids`, every fourth of the evaluation set; arousal stands before valence, and tabs stand inside quotes."""
    ids = list(ids)
    sets = ["evaluation" if i % 4 == 1 else "development" for i in range(len(ids))]
    columns = ("file_name", "Artist", "Song title", "start of the segment (min.sec)", "end of the segment (min.sec)")
    header = ",".join(f'"{name}"' for name in ("song_id", *columns, "Genre", "Mediaeval 2013 set"))
    infos = "".join(
        f'{i},"\t{i}.mp3","Artist, {i % 3}\t","\tTonight  A Song\t","\t0.48\t","\t1.33\t","\tBlues\t","{s}"\n'
        for i, s in zip(ids, sets, strict=True)
    )
    labels = "".join(f"{i},{3.1 + i % 5:.1f},0.99443,{3 + i % 3},0.66667\n" for i in ids)
    return [
        write(
            root / "annotations" / "static_annotations.csv",
            f"song_id,mean_arousal,std_arousal,mean_valence,std_valence\n{labels}",
        ),
        write(root / "annotations" / "songs_info.csv", f"{header}\n{infos}"),
    ]


def write_pmemo_labels(root: Path, ids: Iterable[int]) -> Path:
    """Labels on 0-1 for songs `ids`; arousal stands before valence."""
    labels = "".join(f"{i},{i % 11 / 10},{i % 5 / 4}\n" for i in ids)
    return write(root / "annotations" / "static_annotations.csv", f"musicId,Arousal(mean),Valence(mean)\n{labels}")


def write_pmemo(
    root: Path, ids: Iterable[int] = (1, 4, 5, 6, 7, 10), unlabelled: Iterable[int] = (9, 1000)
) -> list[Path]:
    """Songs `ids` with labels and `unlabelled` without."""
    ids = list(ids)
    header = "musicId,fileName,title,artist,album,duration,chorus_start_time,chorus_end_time\n"
    songs = "".join(f'{i},{i}.mp3,Señorita,Beyoncé\x93,"Album, Vol. 2",32.1,02:35,03:05\n' for i in [*ids, *unlabelled])
    return [write_pmemo_labels(root, ids), write(root / "metadata.csv", header + songs)]


def write_tagged_table(root: Path) -> list[Path]:
    """manifest.csv with tags and official splits, as the demo writes it."""
    splits = ("train", "train", "validation", "test")
    rows = "".join(
        f"track_{i},audio/{i}.wav,{splits[i % 4]},{';'.join(TAGS[: 1 + i % 3])},artist {i // 4}\n" for i in range(12)
    )
    return [write(root / "manifest.csv", f"track_id,path,split,tags,artist\n{rows}")]


def write_rated_table(root: Path) -> list[Path]:
    """manifest.csv with valence and arousal and official splits, as the demo writes it."""
    splits = ("train", "train", "validation", "test")
    rows = "".join(f"{i},audio/{i}.wav,{splits[i % 4]},{1 + i % 9},{9 - i % 9}\n" for i in range(1, 13))
    return [write(root / "manifest.csv", f"track_id,path,split,valence,arousal\n{rows}")]


WRITERS: dict[str, Callable[[Path], list[Path]]] = {
    "mtg-jamendo": write_jamendo,
    "deam": write_deam,
    "emomusic": write_emomusic,
    "pmemo": write_pmemo,
    "demo-jamendo": write_tagged_table,
    "demo-deam": write_rated_table,
    "demo-emomusic": write_rated_table,
    "demo-pmemo": write_rated_table,
}
