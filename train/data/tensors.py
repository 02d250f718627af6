"""Caches to tensors on the device: everything that training touches, loaded once."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2e.cache import DataError, FeatureCache, FeatureTable, Labels, read_labels
from m2e.cache.folders import MOST_MISSING
from m2e.cache.harmony import MODES
from m2e.cache.settings import ExtractionConfig
from m2e.cache.types import SPLITS, Split
from m2e.train.config import Task, TrainConfig
from m2e.train.data.encoding import encode_chords
from m2e.train.learning.spans import prefix_sums, span_means
from m2e.train.model.network import Inputs, padding_id
from m2e.train.report.paper import DATASETS


@dataclass(frozen=True, eq=False)
class EmotionData:
    """One data set on the device; row i of every table is one track.

    Attributes:
        name, letter, provenance: of the data set, as its labels say.
        extraction: the settings behind the features.
        tag_names: the T tags, empty where the set has none.
        sums, base: prefix sums of segment features and each track's first row there, see `m2e.train.learning.spans`.
        n_segments: of each track.
        root, quality: ids of the first chords of each track, padded [shape=(N, L)].
        n_chords: how many of them are the track's.
        mode: 0 major, 1 minor.
        targets: labels a task, tags [shape=(N, T)], valence and arousal [shape=(N, 2)]; its keys are the set's tasks.
        tag_rate: share of positives in the train split [shape=(T,)].
        splits: rows of each split.
        notes: a line each on tracks that were left out, on those with several records, and on splits that are empty.
        clip_group, audio_sha256: of each track, what tells that two sets hold the same clip; ids do not.
        without_features: how many labelled tracks of the splits in use have no features, and how many there are.
    """

    name: str
    letter: str
    provenance: str
    extraction: ExtractionConfig
    tag_names: tuple[str, ...]
    sums: Tensor
    base: Tensor
    n_segments: Tensor
    root: Tensor
    quality: Tensor
    n_chords: Tensor
    mode: Tensor
    targets: dict[Task, Tensor]
    tag_rate: Tensor
    splits: dict[Split, Tensor]
    notes: tuple[str, ...]
    clip_group: tuple[str, ...] = ()
    audio_sha256: tuple[bytes, ...] = ()
    without_features: tuple[int, int] = (0, 0)

    @property
    def lack(self) -> str:
        """A sentence on the labelled tracks without features; "" where all have them."""
        missing, of = self.without_features
        return (
            f"{self.name}: {missing} of {of} labelled tracks ({missing / of:.1%}) have no features" if missing else ""
        )

    @property
    def is_partial(self) -> bool:
        """More than a tenth of its labelled tracks have no features: it is not the data set that its name says."""
        missing, of = self.without_features
        return missing > MOST_MISSING * of

    @property
    def label(self) -> str:
        """Letter, or name where there is no letter."""
        return self.letter or self.name

    @cached_property
    def digest(self) -> str:
        """64 hex digits of a hash over all that training reads; what is only tested does not count."""
        hashed = hashlib.blake2b(digest_size=32)
        used = (self.sums, self.base, self.n_segments, self.root, self.quality, self.n_chords, self.mode, self.tag_rate)
        splits = (self.splits["train"], self.splits["validation"])
        for values in (*used, *self.targets.values(), *splits):
            hashed.update(f"{values.dtype}{tuple(values.shape)}".encode())
            hashed.update(values.contiguous().cpu().numpy().data)
        hashed.update(json.dumps([*self.targets, *self.tag_names]).encode())
        return hashed.hexdigest()

    @property
    def width(self) -> int:
        """Of a feature."""
        return self.sums.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are; `n_segments`, `n_chords` and `splits`, which decide on shapes, stay on the CPU."""
        return self.sums.device

    def inputs(self, rows: Tensor, start: Tensor, stop: Tensor, longest: int | None = None) -> Inputs:
        """Model inputs of the tracks `rows`, features averaged over segments `start` to `stop` of each.

        Args:
            longest: chords of each track; None: as many as the longest of them has.
        """
        if longest is None:
            longest = max(self.n_chords[rows].tolist(), default=0)
        rows, start, stop = (each.to(self.device, non_blocking=True) for each in (rows, start, stop))
        return Inputs(
            span_means(self.sums, self.base[rows], start, stop),
            self.root[rows, :longest].long(),
            self.quality[rows, :longest].long(),
            self.mode[rows],
        )

    def whole(self, rows: Tensor) -> Inputs:
        """Model inputs of the tracks `rows`, features averaged over all segments."""
        return self.inputs(rows, torch.zeros_like(rows), self.n_segments[rows])


class MissingCacheError(DataError):
    """There is no cache of a data set yet."""


def open_caches(folder: Path, names: Sequence[str], features: str | None = None) -> list[FeatureCache]:
    """The caches of the data sets `names` (letters or names, in any case where none is spelt just so) in `folder`.

    Args:
        features: the beginning of a fingerprint, where a data set has features of several settings.

    Raises:
        DataError: no such folder or data set, a letter that two caches have, a data set given twice, or caches made
            with different settings.
    """
    if (folder / "labels.h5").exists():
        raise DataError(f"{folder} is the cache of one data set: give the folder it is in, --cache {folder.parent}")
    there = {path.parent: read_labels(path.parent) for path in sorted(folder.glob("*/labels.h5"))}
    if not there:
        raise DataError(
            f"there are no caches in {folder}: `m2e-extract --dataset NAME --cache {folder}` makes one, "
            "--cache points elsewhere"
        )
    for path, labels in there.items():
        # They become names of folders.
        for text in (labels.dataset, labels.letter):
            if not text.isprintable() or {"/", "\\"} & set(text):
                raise DataError(f"{path} names its data set {text!r}: no slashes or control characters there")
    chosen: list[Path] = []
    for name in names:
        path = _find(name, there, folder)
        if path in chosen:
            raise DataError(f"--datasets names {there[path].dataset} twice")
        chosen.append(path)
    letters = [there[path].letter for path in chosen if there[path].letter]
    if len(set(letters)) < len(letters):
        sharing = " and ".join(there[path].dataset for path in chosen if letters.count(there[path].letter) > 1)
        raise DataError(f"{sharing} share a letter, by which models and results are named: train them apart")
    caches = [FeatureCache.open(path, features) for path in chosen]
    for cache in caches[1:]:
        differs = cache.config.differences(caches[0].config)
        if differs:
            raise DataError(
                f"{cache.folder} and {caches[0].folder} were extracted with different settings ({'; '.join(differs)}): "
                "extract both alike, or choose with --features"
            )
    return caches


def _find(name: str, there: dict[Path, Labels], folder: Path) -> Path:
    names = {path: (labels.letter, labels.dataset) for path, labels in there.items()}
    wanted = name.strip().lower()
    found = [path for path, its in names.items() if wanted and name.strip() in its] or [
        path for path, its in names.items() if wanted and wanted in (text.lower() for text in its)
    ]
    listed = ", ".join(" ".join(filter(None, (labels.letter, labels.dataset))) for labels in there.values())
    if len(found) > 1:
        where = " and ".join(path.name for path in found)
        raise DataError(f"--datasets: {name!r} fits two caches in {folder}, {where}: give a name, or move one away")
    if not found:
        near = get_close_matches(wanted, [labels.dataset.lower() for labels in there.values()], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        official = DATASETS.get(wanted.upper(), name.strip() or "NAME")
        raise MissingCacheError(
            f"there is no cache of {name!r} in {folder}: {guess}there are {listed}; "
            f"`m2e-extract --dataset {official} --cache {folder}` makes it"
        )
    return found[0]


def load_data(
    caches: Sequence[FeatureCache],
    config: TrainConfig,
    device: torch.device,
    *,
    to_learn: bool = True,
    allow_missing: bool = False,
) -> list[EmotionData]:
    """The data sets that can be trained together.

    Args:
        caches: of the data sets.
        config: of the training.
        device: where the features go.
        to_learn: each has to have train tracks; otherwise only test tracks are asked for features.
        allow_missing: take a data set of which more than a tenth has no features.

    Raises:
        DataError: a layer, labels, features or train tracks are missing, tag names or feature widths differ, or values
            are not finite.
    """
    used = SPLITS if to_learn else ("test",)
    sets = [_load(cache, config, device, used, allow_missing) for cache in caches]
    for cache, data in zip(caches, sets, strict=True):
        if to_learn and not len(data.splits["train"]):
            raise DataError(
                f"{cache.folder} has no train tracks with features and labels: nothing can be learned from it"
            )
    tagged = [data for data in sets if "tags" in data.targets]
    for data in tagged[1:]:
        if data.tag_names != tagged[0].tag_names:
            raise DataError(f"{data.name} and {tagged[0].name} have different tags: they cannot be trained together")
    for data in sets[1:]:
        if data.width != sets[0].width:
            raise DataError(f"features of {data.name} are {data.width} wide, those of {sets[0].name} {sets[0].width}")
    return sets


def _check_share(cache: FeatureCache, missing: int, of: int) -> None:
    """Raise DataError where too many labelled tracks have no features."""
    if missing > MOST_MISSING * of:
        labels = cache.labels
        dataset = labels.dataset if labels.letter else f"{labels.dataset}.csv"
        extract = shlex.join(["m2e-extract", "--dataset", dataset, "--cache", str(cache.folder.parent)])
        failures = shlex.join(["m2e-cache", "failures", str(cache.folder)])
        raise DataError(
            f"{cache.folder}: {missing} of {of} labelled tracks ({missing / of:.0%}) have no features. `{extract}` "
            f"goes on with them, `{failures}` lists those that failed; to use what is there: --allow-missing"
        )


def _load(
    cache: FeatureCache, config: TrainConfig, device: torch.device, used: Sequence[Split], allow_missing: bool
) -> EmotionData:
    labels = cache.labels
    missing = [layer for layer in config.layers if layer not in cache.layers]
    if missing:
        raise DataError(
            f"{cache.folder} holds layers {_listed(cache.layers)}; this run needs {_listed(config.layers)}: "
            f"extract again with --layers {_listed(sorted({*cache.layers, *missing}))}"
        )
    tasks = _tasks(labels)
    if not tasks:
        raise DataError(f"{cache.folder} has neither tags nor valence and arousal: its labels.h5 holds no labels")
    kept, notes, without_features = _kept(cache, tasks, used)
    notes += [f"{labels.dataset}: {line}" for line in cache.several]
    if not allow_missing:
        _check_share(cache, *without_features)
    table = cache.load([labels.track_ids[i] for i in kept])
    layers = [cache.layers.index(layer) for layer in config.layers]
    sums = prefix_sums(table.embeddings, table.first, layers)
    last = table.first[1:] + np.arange(len(kept))
    if not np.isfinite(sums[last]).all() or (np.diff(table.first) < 1).any():
        raise DataError(f"{cache.folder} holds tracks whose features are empty or not finite: extract again")
    root, quality, lengths = _chords(table, config)
    if cut := int((np.diff(table.first_chord) > config.max_chords).sum()):
        notes.append(f"{labels.dataset}: {cut} tracks have more than {config.max_chords} chords; the rest is cut")
    split = np.array([labels.splits[i] for i in kept])
    splits = {name: torch.from_numpy(np.flatnonzero(split == name)) for name in SPLITS}
    if not len(splits["validation"]):
        notes.append(f"{labels.dataset}: no validation tracks; they take no part in the choice of the epoch")
    if not len(splits["test"]):
        notes.append(f"{labels.dataset}: no test tracks, so no test metrics")
    both: dict[Task, Tensor] = {
        "tags": torch.from_numpy(labels.tags[kept].astype(np.float32)),
        "valence_arousal": torch.from_numpy(labels.valence_arousal[kept]),
    }
    first = torch.from_numpy(table.first)
    return EmotionData(
        name=labels.dataset,
        letter=labels.letter,
        provenance=labels.provenance,
        extraction=cache.config,
        tag_names=labels.tag_names,
        sums=torch.from_numpy(sums).to(device),
        base=(first[:-1] + torch.arange(len(kept))).to(device),
        n_segments=first.diff(),
        root=torch.from_numpy(root).to(device),
        quality=torch.from_numpy(quality).to(device),
        n_chords=torch.from_numpy(lengths),
        mode=torch.from_numpy((table.key_mode == MODES.index("minor")).astype(np.int64)).to(device),
        targets={task: both[task].to(device) for task in tasks},
        tag_rate=both["tags"][splits["train"]].mean(dim=0).to(device),
        splits=splits,
        notes=tuple(notes),
        clip_group=tuple(labels.clip_group[i] for i in kept),
        audio_sha256=tuple(table.audio_sha256),
        without_features=without_features,
    )


def _chords(table: FeatureTable, config: TrainConfig) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Root and quality ids of each track's chords, padded [shape=(N, L) each], and how many are the track's."""
    counts = np.diff(table.first_chord)
    track = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(track)) - table.first_chord[track]
    records, tonic, mode = table.chord_records, table.key_tonic[track], table.key_mode[track]
    ids = encode_chords(records["root"], records["quality"], tonic, mode, config.x_chord)
    lengths = np.minimum(counts, config.max_chords)
    if not config.mask_padding:
        # Unmasked padding is seen by the model: its length must not depend on the batch.
        lengths[:] = config.max_chords
    kept = place < config.max_chords
    root = np.full((len(counts), lengths.max()), padding_id(config), np.uint8)
    quality = np.zeros_like(root)
    for padded, values in zip((root, quality), ids, strict=True):
        padded[track[kept], place[kept]] = values[kept]
    return root, quality, lengths


def _listed(layers: Sequence[int]) -> str:
    return ",".join(str(layer) for layer in layers)


def _tasks(labels: Labels) -> tuple[Task, ...]:
    found: tuple[tuple[Task, bool], ...] = (
        ("tags", bool(labels.tag_names)),
        ("valence_arousal", not np.isnan(labels.valence_arousal).all()),
    )
    return tuple(task for task, there in found if there)


def _kept(
    cache: FeatureCache, tasks: Sequence[Task], used: Sequence[Split]
) -> tuple[list[int], list[str], tuple[int, int]]:
    """Rows of the labels that have a split, every label and features; a note on those without one of the first two; and
    how many labelled rows of the splits `used` have no features, of how many."""
    labels = cache.labels
    known = set(cache.track_ids)
    rows = [i for i, split in enumerate(labels.splits) if split]
    labelled = rows
    if "valence_arousal" in tasks:
        labelled = [i for i in rows if not np.isnan(labels.valence_arousal[i]).any()]
    kept = [i for i in labelled if labels.track_ids[i] in known]
    counts = (
        (len(labels.splits) - len(rows), "are in no split"),
        (len(rows) - len(labelled), "have no valence and arousal"),
    )
    notes = [f"{labels.dataset}: {n} of {len(labels.splits)} tracks {what} and are left out" for n, what in counts if n]
    if not kept:
        reasons = [*notes, f"{len(labelled)} labelled tracks have no features"] if labelled else notes
        raise DataError(f"{cache.folder} has no tracks with a split, features and labels: {'; '.join(reasons)}")
    wanted = [i for i in labelled if labels.splits[i] in used]
    missing = sum(labels.track_ids[i] not in known for i in wanted)
    return kept, notes, (missing, len(wanted))
