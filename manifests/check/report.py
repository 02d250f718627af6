"""What is known of a data set: counts beside the paper's, missing audio, duplicates, label ranges, leaks, issues."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from m2e.manifests.check.leaks import find_leaks
from m2e.manifests.dataset import DataSet
from m2e.manifests.read.missing import name_missing
from m2e.manifests.types import SPLITS, Manifest, Track

_MOST_NAMED = 10


def examine(manifest: Manifest, dataset: DataSet | None) -> dict[str, Any]:
    """The facts, as plain values for JSON.

    Args:
        dataset: the registered data set that the manifest is of; None for a user's own.
    """
    missing = [track for track in manifest.tracks if not track.has_audio]
    counts: Counter[str] = Counter(track.split or "none" for track in manifest.tracks)
    paper = dataset.paper_counts if dataset else None
    return {
        "dataset": manifest.name,
        "letter": manifest.letter,
        "tracks": len(manifest.tracks),
        "audio_found": len(manifest.tracks) - len(missing),
        "audio_missing": len(missing),
        "first_missing": str(missing[0].audio_path) if missing else None,
        "missing": {track.track_id: str(track.audio_path) for track in missing},
        "missing_named": list(name_missing(missing, _MOST_NAMED)),
        "splits": {split: counts[split] for split in (*SPLITS, "none")},
        "splits_in_paper": dict(zip(SPLITS, paper, strict=True)) if paper else None,
        "labels": _labels(manifest),
        "unlabelled": list(manifest.unlabelled),
        "duplicates": _duplicates(manifest),
        "artists": len({track.artist for track in manifest.tracks} - {""}),
        "test_tracks_seen": [
            {"in": leak.split, "clips": leak.same + leak.duplicates, "artists": leak.artists}
            for leak in find_leaks([manifest])
        ],
        "evidence": {tracks: dict(figures) for tracks, figures in manifest.evidence},
        "provenance": manifest.provenance,
        "notes": list(manifest.notes),
        "known_issues": list(dataset.issues) if dataset else [],
        "licence": dataset.licence if dataset else None,
    }


def _labels(manifest: Manifest) -> dict[str, Any]:
    """Of valence and arousal: range, mean and standard deviation; of tags: how many, and the rarest and commonest."""
    labels: dict[str, Any] = {}
    points = [track.valence_arousal for track in manifest.tracks if track.valence_arousal]
    for name in ("valence", "arousal") if points else ():
        values = np.array([getattr(point, name) for point in points])
        labels[name] = {
            "tracks": len(points),
            "min": float(values.min()),
            "max": float(values.max()),
            "mean": round(float(values.mean()), 3),
            "sd": round(float(values.std()), 3),
        }
    if manifest.tag_names:
        of_track = Counter(tag for track in manifest.tracks for tag in track.tags or ())
        ranked = sorted(manifest.tag_names, key=lambda tag: (of_track[tag], tag))
        labels["tags"] = {
            "number": len(manifest.tag_names),
            "per_track": round(of_track.total() / len(manifest.tracks), 3),
            "untagged_tracks": sum(not track.tags for track in manifest.tracks),
            "rarest": {ranked[0]: of_track[ranked[0]]},
            "commonest": {ranked[-1]: of_track[ranked[-1]]},
        }
    return labels


def _duplicates(manifest: Manifest) -> list[dict[str, str]]:
    """Groups of tracks that hold one clip: track id -> split."""
    groups: dict[str, list[Track]] = defaultdict(list)
    for track in manifest.tracks:
        groups[track.clip_group].append(track)
    return [
        {track.track_id: track.split or "none" for track in tracks} for tracks in groups.values() if len(tracks) > 1
    ]


def describe(facts: dict[str, Any]) -> list[str]:
    """The facts of `examine` as lines for people."""
    lines = [_line("tracks", facts["tracks"])]
    lines.append(_line("audio", f"{facts['audio_found']} of {facts['tracks']} files found"))
    lines += [_line("no file", line) for line in facts["missing_named"][: None if facts["audio_found"] else 1]]
    paper = facts["splits_in_paper"]
    for split, count in facts["splits"].items():
        beside = "" if not paper or split == "none" else f"  paper {paper[split]:>6,}{_differs(count, paper[split])}"
        if count or split != "none":
            lines.append(_line(split, f"{count:>6,}{beside}"))
    for name, values in facts["labels"].items():
        lines.append(_line(name, _label_line(name, values)))
    if facts["unlabelled"]:
        ids = ", ".join([*facts["unlabelled"][:5], *(["..."] if len(facts["unlabelled"]) > 5 else [])])
        lines.append(_line("unlabelled", f"{len(facts['unlabelled'])} songs, left out ({ids})"))
    for group in facts["duplicates"][:10]:
        lines.append(_line("same clip", ", ".join(f"{track_id} ({split})" for track_id, split in group.items())))
    if len(facts["duplicates"]) > 10:
        lines.append(_line("", f"... {len(facts['duplicates']) - 10} more such groups"))
    for seen in facts["test_tracks_seen"]:
        known = f"{seen['artists']} are by its artists" if seen["artists"] is not None else "artists unknown"
        lines.append(_line(f"test in {seen['in']}", f"{seen['clips']} tracks hold a clip of it, {known}"))
    for tracks, figures in facts["evidence"].items():
        for name, value in figures.items():
            number = f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
            lines.append(_line("swap check", f"{tracks}: {name} {number}"))
    lines.append(_line("provenance", facts["provenance"]))
    lines += [_line("note", note) for note in facts["notes"]]
    lines += [_line("known issue", issue) for issue in facts["known_issues"]]
    if facts["licence"]:
        lines.append(_line("licence", facts["licence"]))
    return lines


def _line(name: str, text: object) -> str:
    return f"{name:18}  {text}"


def _differs(ours: int, paper: int) -> str:
    return "  equal" if ours == paper else f"  {ours - paper:+,}"


def _label_line(name: str, values: dict[str, Any]) -> str:
    if name == "tags":
        extremes = " to ".join(
            f"{tag} {n:,} times" for key in ("rarest", "commonest") for tag, n in values[key].items()
        )
        return f"{values['number']}, {values['per_track']} a track, {extremes}" + (
            f"; {values['untagged_tracks']} tracks have none" if values["untagged_tracks"] else ""
        )
    return (
        f"{values['min']:g} to {values['max']:g} on 1-9, mean {values['mean']}, sd {values['sd']}, "
        f"{values['tracks']} tracks"
    )
