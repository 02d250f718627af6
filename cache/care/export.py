"""A cache as .npz and CSV, for programs that do not read HDF5."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from m2e.cache.harmony import PITCH_CLASSES
from m2e.cache.reader import FeatureCache
from m2e.common.errors import DataError
from m2e.common.files import check_export, mark_export

FILES = ("embeddings.npz", "tracks.csv", "chords.csv")


def export(cache: FeatureCache, out: Path) -> int:
    """Write embeddings.npz (arrays embeddings, first, layers, track_ids), tracks.csv and chords.csv into `out`.

    Returns:
        How many tracks.

    Raises:
        DataError: a record is damaged, or `out` cannot be written, or holds such files that no export wrote.
    """
    check_export(out, FILES)
    table = cache.load()
    labels = cache.labels
    row = {track_id: i for i, track_id in enumerate(labels.track_ids)}
    try:
        mark_export(out, FILES)
        np.savez(
            out / "embeddings.npz",
            embeddings=table.embeddings,
            first=table.first,
            layers=np.array(cache.layers),
            track_ids=np.array(table.track_ids, np.str_),
        )
        with (out / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["track_id", "split", "key_tonic", "key_mode", "valence", "arousal", *labels.tag_names])
            for track_id, key in zip(table.track_ids, table.keys, strict=True):
                i = row.get(track_id)
                harmony = [PITCH_CLASSES[key.tonic], key.mode] if key else ["", ""]
                if i is None:  # the manifest changed after this track was extracted
                    writer.writerow([track_id, "", *harmony, "", "", *[""] * len(labels.tag_names)])
                    continue
                values = ["" if np.isnan(value) else f"{value:g}" for value in labels.valence_arousal[i]]
                writer.writerow([track_id, labels.splits[i], *harmony, *values, *labels.tags[i].tolist()])
        with (out / "chords.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["track_id", "start", "end", "chord"])
            for track_id, chords in zip(table.track_ids, table.chords, strict=True):
                for (start, end), label in zip(chords.intervals.tolist(), chords.labels, strict=True):
                    writer.writerow([track_id, f"{start:.3f}", f"{end:.3f}", label])
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}") from error
    return len(table.track_ids)
