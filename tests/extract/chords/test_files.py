"""Chords as .lab and MIDI files, against the released code's own and read back by other programs."""

import dataclasses
from pathlib import Path

import mir_eval
import numpy as np
import pretty_midi
import pytest
from support.caches import make_cache, make_labels, random_chords

from m2e.cache import DataError, FeatureCache
from m2e.cache.harmony import N_CHORD_CLASSES, ChordSequence, chord_from_class, chord_label, pitch_classes
from m2e.extract.chords.files import export_chords, write_lab, write_midi

EVERY_LABEL = [chord_label(*chord_from_class(number)) for number in range(N_CHORD_CLASSES)]

Notes = list[tuple[float, float, int, int]]


def notes(path: Path) -> Notes:
    midi = pretty_midi.PrettyMIDI(str(path))
    played = [note for instrument in midi.instruments for note in instrument.notes]
    return sorted((round(n.start, 4), round(n.end, 4), n.pitch, n.velocity) for n in played)


def read_lab(path: Path) -> ChordSequence:
    intervals, labels = mir_eval.io.load_labeled_intervals(str(path))
    return ChordSequence.from_labels(intervals, labels)


def test_reference_midi(reference: Path, tmp_path: Path) -> None:
    compared = 0
    for lab in sorted((reference / "golden/key/lab").glob("*.lab")):
        chords = read_lab(lab)
        if "X" in chords.labels:  # which the released code plays as all twelve notes
            continue
        write_midi(chords, tmp_path / "chords.mid")
        assert notes(tmp_path / "chords.mid") == notes(reference / "golden/key/midi" / f"{lab.stem}.midi"), lab.stem
        compared += 1
    assert compared > 10


def test_reference_lab(reference: Path, tmp_path: Path) -> None:
    theirs = reference / "golden/e2e/clip47/clip47.lab"
    write_lab(read_lab(theirs), tmp_path / "chords.lab")
    assert (tmp_path / "chords.lab").read_text() == theirs.read_text()


def test_every_label_is_written(tmp_path: Path) -> None:
    times = np.arange(len(EVERY_LABEL))
    chords = ChordSequence.from_labels(np.stack([times, times + 1], axis=1), EVERY_LABEL)
    write_lab(chords, tmp_path / "chords.lab")
    assert read_lab(tmp_path / "chords.lab").labels == EVERY_LABEL
    write_midi(chords, tmp_path / "chords.mid")
    played = notes(tmp_path / "chords.mid")
    for i, (root, quality) in enumerate(zip(chords.root.tolist(), chords.quality.tolist(), strict=True)):
        sounding = {pitch - 48 for start, end, pitch, _ in played if start <= i + 0.5 < end}
        assert sounding == set(pitch_classes(root, quality))


def test_a_shared_note_is_held(tmp_path: Path) -> None:
    chords = ChordSequence.from_labels([[0, 1], [1, 2], [2, 3], [3, 4]], ["C", "A:min", "N", "C"])
    write_midi(chords, tmp_path / "chords.mid")
    assert notes(tmp_path / "chords.mid") == [
        (0, 1, 55, 120), (0, 2, 48, 120), (0, 2, 52, 120), (1, 2, 57, 120),
        (3, 4, 48, 120), (3, 4, 52, 120), (3, 4, 55, 120),
    ]  # fmt: skip


def test_no_chord_is_a_file_without_notes(tmp_path: Path) -> None:
    write_midi(ChordSequence.from_labels([[0, 3]], ["N"]), tmp_path / "chords.mid")
    assert notes(tmp_path / "chords.mid") == []


def test_a_cache_is_exported_whole(tmp_path: Path) -> None:
    labels = make_labels("songs", "", 3)
    awkward = ("../up", "a b/ü", "plain")
    labels = dataclasses.replace(labels, track_ids=awkward)
    with FeatureCache.open(make_cache(tmp_path / "songs", labels)) as cache:
        assert export_chords(cache, tmp_path / "out") == 3
        stems = ["..%2Fup", "a b%2F%C3%BC", "plain"]
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
            [".m2e-export", *(stem + suffix for stem in stems for suffix in (".lab", ".mid"))]
        )
        for track_id, stem in zip(awkward, stems, strict=True):
            assert read_lab(tmp_path / "out" / f"{stem}.lab").labels == cache.chords(track_id).labels


def test_what_no_export_wrote_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "t0001.lab").write_text("by hand")
    with FeatureCache.open(make_cache(tmp_path / "songs", make_labels("songs", "", 3))) as cache:
        with pytest.raises(DataError, match=r"t0001\.lab is there already.*choose another folder"):
            export_chords(cache, out)
        assert [path.name for path in out.iterdir()] == ["t0001.lab"]
        assert (out / "t0001.lab").read_text() == "by hand"
        (out / "t0001.lab").rename(out / "mine.lab")
        assert export_chords(cache, out) == export_chords(cache, out) == 3
        assert (out / "mine.lab").read_text() == "by hand"
        assert read_lab(out / "t0001.lab").labels == cache.chords("t0001").labels


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with (
        FeatureCache.open(make_cache(tmp_path / "songs", make_labels("songs", "", 1))) as cache,
        pytest.raises(DataError, match=r"cannot write chords to .*out: "),
    ):
        export_chords(cache, tmp_path / "out")


def test_times_of_an_hour_keep_their_milliseconds(tmp_path: Path) -> None:
    chords = random_chords(np.random.default_rng(0), 3_000)
    write_lab(chords, tmp_path / "chords.lab")
    np.testing.assert_allclose(read_lab(tmp_path / "chords.lab").intervals, chords.intervals, atol=6e-4)
