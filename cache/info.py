"""What a cache holds, as facts for people and scripts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m2e.cache.folders import features_folders, read_config
from m2e.cache.labels import read_labels
from m2e.cache.provenance import read_provenance
from m2e.cache.reader import FeatureCache
from m2e.cache.settings import ExtractionConfig
from m2e.common.files import unsure_temporaries


def cache_facts(folder: Path, features: str | None = None) -> dict[str, Any]:
    """What a data set's folder holds, ready for JSON: labels, then each group of settings, then in what these differ.

    Args:
        folder: the data set's folder, such as ``features/deam``.
        features: only settings whose fingerprint begins so.

    Raises:
        DataError: it is no cache, or is damaged.
    """
    chosen = features_folders(folder, features)
    labels = read_labels(folder)
    configs = [read_config(path) for path in chosen]
    return {
        "dataset": labels.dataset,
        "letter": labels.letter,
        "tracks_in_manifest": len(labels.track_ids),
        "tags": len(labels.tag_names),
        "labels": labels.provenance,
        "table_in": labels.source.root if labels.source else "",
        "left_alone": sorted(str(path) for place in (folder, *chosen) for path in unsure_temporaries(place)),
        "features": [
            _feature_facts(FeatureCache(folder, path, config, labels), path)
            for path, config in zip(chosen, configs, strict=True)
        ],
        "differ": _differing(configs),
    }


def _feature_facts(cache: FeatureCache, features: Path) -> dict[str, Any]:
    failures = cache.failures
    notes = cache.notes
    files = [path for path in features.iterdir() if path.suffix == ".h5"]
    return {
        "fingerprint": cache.config.fingerprint,
        "tracks": len(cache.track_ids),
        "segments": cache.n_segments,
        "hours": round(cache.hours, 3),
        "splits": dict(Counter(split or "none" for split in cache.splits)),
        "failures": dict(Counter(failure.stage for failure in failures.values())),
        "failed": [asdict(failure) for failure in failures.values()],
        "notes": dict(Counter(note.kind for found in notes.values() for note in found)),
        "noted": [{"track_id": track_id, "notes": [n.as_json() for n in found]} for track_id, found in notes.items()],
        "packs": sum(path.name.startswith("pack-") for path in files),
        "shards": sum(path.name.startswith("shard-") for path in files),
        "bytes": sum(path.stat().st_size for path in files),
        "several": cache.several,
        "config": json.loads(cache.config.to_json()),
        "environments": read_provenance(features),
    }


def _differing(configs: list[ExtractionConfig]) -> dict[str, list[Any]]:
    """Settings that are not the same in all, with their value in each."""
    values = [json.loads(config.to_json()) for config in configs]
    return {
        name: [each[name] for each in values]
        for name in (values[0] if values else ())
        if any(each[name] != values[0][name] for each in values)
    }
