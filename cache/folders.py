"""What lies where in the cache folder of one data set."""

from __future__ import annotations

import os
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.cache.schema import ExtractionConfig

CONFIG_FILE = "config.json"
LABELS_FILE = "labels.h5"
SET_ASIDE = "set-aside"
_PREFIX = "features-"


def features_folder(folder: Path, config: ExtractionConfig) -> Path:
    """Where, in a data set's cache folder, features with these settings live."""
    return folder / f"{_PREFIX}{config.fingerprint}"


def features_folders(folder: Path, features: str | None = None) -> list[Path]:
    """The features folders of a data set's cache folder, one for each group of settings, sorted by name.

    Args:
        folder: the data set's folder.
        features: only those whose fingerprint begins so.

    Raises:
        DataError: there is none.
    """
    found = sorted(path.parent for path in folder.glob(f"{_PREFIX}*/{CONFIG_FILE}"))
    chosen = [path for path in found if path.name.startswith(f"{_PREFIX}{features or ''}")]
    if not chosen:
        names = ", ".join(path.name.removeprefix(_PREFIX) for path in found)
        asked = f" that begin with {features!r} (there are: {names})" if found else ""
        raise DataError(f"{folder} has no features{asked}: give the cache of one data set, made by m2e-extract")
    return chosen


def one_features_folder(folder: Path, features: str | None = None) -> Path:
    """The one features folder that `features` chooses, or that there is.

    Raises:
        DataError: there is none, or several; the message says in what they differ.
    """
    chosen = features_folders(folder, features)
    if len(chosen) > 1:
        names = ", ".join(path.name.removeprefix(_PREFIX) for path in chosen)
        differs = "; ".join(read_config(chosen[0]).differences(read_config(chosen[1])))
        raise DataError(
            f"{folder} holds features of several settings ({names}; the first two differ in {differs}): "
            "choose one with --features"
        )
    return chosen[0]


def read_config(features: Path) -> ExtractionConfig:
    """The settings of a features folder.

    Raises:
        DataError: it has none, or they do not match its name.
    """
    path = features / CONFIG_FILE
    try:
        config = ExtractionConfig.from_json(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"{features} is no folder of features: cannot read {path.name}: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if features.name != f"{_PREFIX}{config.fingerprint}":
        raise DataError(f"{path} does not match its folder's name: it was edited, or made by another version")
    return config


def feature_files(features: Path) -> list[Path]:
    """The feature files of a features folder, sorted by name; none where the folder is not there yet."""
    return [features / name for name in feature_names(features)]


def feature_names(features: Path) -> list[str]:
    """Their names, which take a fifth of the memory: a million new tracks are in thousands of files."""
    try:
        names = os.listdir(features)  # noqa: PTH208 - see above
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.startswith(("shard-", "pack-")) and name.endswith(".h5"))
