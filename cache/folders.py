"""What lies where in the cache folder of one data set."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from m2e.cache.settings import FEATURE_VERSION, ExtractionConfig, fingerprints
from m2e.common.errors import DamagedError, DataError, NewerError, UnreadableError
from m2e.common.files import write_atomically
from m2e.common.json_files import MOST_BYTES, parse_object
from m2e.common.regular import read_regular

CONFIG_FILE = "config.json"
LABELS_FILE = "labels.h5"
SET_ASIDE = "set-aside"
LOST_SETTINGS = f"has lost its {CONFIG_FILE}: the m2e-extract command that made it writes it again"
LOST_LABELS = (
    f"has lost its {LABELS_FILE}: `m2e-cache relabel` writes it again (for a table of your own with --manifest "
    "FILE.csv), as does the m2e-extract command that made it"
)
_PREFIX = "features-"
# Of a data set's labelled tracks: without more than this share of them, its results are those of another data set, and
# m2e-train asks for --allow-missing.
MOST_MISSING = 0.1


def features_folder(folder: Path, config: ExtractionConfig) -> Path:
    """Where, in a data set's cache folder, features with these settings live."""
    return folder / f"{_PREFIX}{config.fingerprint}"


def fingerprint_of(features: Path) -> str:
    """Of the settings of a features folder, as its name has it."""
    return features.name.removeprefix(_PREFIX)


def features_folders(folder: Path, features: str | None = None) -> list[Path]:
    """The features folders of a data set's cache folder, one for each group of settings, sorted by name.

    Args:
        folder: the data set's folder.
        features: only those whose fingerprint begins so.

    Raises:
        DataError: there is none.
    """
    found = with_settings(folder)
    chosen = [path for path in found if path.name.startswith(f"{_PREFIX}{features or ''}")]
    if not chosen and (lost := without_settings(folder)):
        raise DataError(f"{lost[0]} {LOST_SETTINGS}")
    if not chosen:
        names = ", ".join(map(fingerprint_of, found))
        asked = f" that begin with {features!r} (there are: {names})" if found else ""
        raise DataError(f"{folder} has no features{asked}: give the cache of one data set, made by m2e-extract")
    return chosen


def training_command(dataset: str, folder: Path, features: str = "", allow_missing: bool = False) -> str:
    """What trains on the cache `folder` of one data set, to be pasted into a shell.

    Args:
        dataset: its letter or name.
        features: how the fingerprint of its features begins, where there are several.
        allow_missing: many of its tracks have no features.
    """
    caches = folder.parent if folder.name not in ("", "..") else folder.resolve().parent
    which = ["--features", features] if features else []
    which += ["--allow-missing"] * allow_missing
    return shlex.join(["m2e-train", "--datasets", dataset, "--cache", str(caches), *which])


def with_settings(folder: Path) -> list[Path]:
    """The features folders that have a config.json, whatever it holds, sorted by name."""
    return sorted(path.parent for path in folder.glob(f"{_PREFIX}*/{CONFIG_FILE}"))


def without_settings(folder: Path) -> list[Path]:
    """The features folders that hold features but no config.json, without which nobody reads them."""
    return sorted(
        path for path in folder.glob(f"{_PREFIX}*") if feature_names(path) and not (path / CONFIG_FILE).exists()
    )


def folder_of_failures(folder: Path) -> Path | None:
    """The one folder of settings of a data set, where it holds failures and nothing else."""
    match list(folder.glob(f"{_PREFIX}*")):
        case [only] if any(only.glob("failures-*")) and not (only / CONFIG_FILE).exists():
            return only
    return None


def one_features_folder(folder: Path, features: str | None = None) -> Path:
    """The one features folder that `features` chooses, or that there is.

    Raises:
        DataError: there is none, or several; the message says in what they differ.
    """
    chosen = features_folders(folder, features)
    if len(chosen) > 1:
        names = ", ".join(map(fingerprint_of, chosen))
        differs = "; ".join(read_config(chosen[0]).differences(read_config(chosen[1])))
        raise DataError(
            f"{folder} holds features of several settings ({names}; the first two differ in {differs}): "
            "choose one with --features"
        )
    return chosen[0]


def read_config(features: Path) -> ExtractionConfig:
    """The settings of a features folder.

    Raises:
        UnreadableError, NewerError: see there.
        DamagedError: they do not match its name.
        DataError: it has none, what is there is no regular file, or is as it was written and of an m2e that this one
            does not know.
    """
    path = features / CONFIG_FILE
    try:
        content = read_regular(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise DataError(f"{features} is no folder of features: it has no {path.name}") from error
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {error.strerror}") from error
    try:
        config = ExtractionConfig.from_json(content).of_fingerprint(fingerprint_of(features))
    except NewerError as error:
        raise NewerError(f"{path}: {error}") from error
    except DataError as error:
        kind = DataError if _is_as_written(content, features) else DamagedError
        raise kind(f"{path}: {error}") from error
    if config is None:
        raise DamagedError(f"{path} does not match its folder's name: it was edited")
    if config.feature_version > FEATURE_VERSION:
        raise NewerError(f"{path}: features of version {config.feature_version}, of a newer m2e: update m2e")
    return config


def _is_as_written(content: bytes, features: Path) -> bool:
    """Whether the digest of settings is in the name of their folder, whatever they say."""
    try:
        return fingerprint_of(features) in fingerprints(parse_object(content))
    except ValueError:
        return False


def write_config(features: Path, config: ExtractionConfig) -> None:
    """Write the settings of a features folder, which is made where it is not there.

    Raises:
        DataError: it cannot be written.
    """
    write_atomically(features / CONFIG_FILE, config.to_json().encode())


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
