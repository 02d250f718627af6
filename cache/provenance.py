"""Which versions computed the features: provenance-<digest>.json, one an environment that wrote into a folder.

Versions do not belong to the fingerprint, since another release of a library seldom changes a feature; when one does,
these files say where to look.
"""

from __future__ import annotations

import json
import platform
import re
from functools import cache
from importlib import metadata
from pathlib import Path

import h5py

from m2e.common.errors import DataError
from m2e.common.files import content_digest, write_atomically
from m2e.common.json_files import MOST_BYTES, parse_object
from m2e.common.regular import read_regular


@cache
def environment() -> dict[str, str]:
    """Versions of m2e, Python, HDF5 and every installed requirement of m2e; the kind of machine."""
    found = {
        "hdf5": h5py.version.hdf5_version,
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    try:
        required = metadata.requires("m2e") or []
    except metadata.PackageNotFoundError:  # run from a source tree that was not installed
        required = []
    for name in ["m2e", *(match[0] for line in required if (match := re.match(r"[\w.-]+", line)))]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_provenance(features: Path) -> None:
    """Leave this environment's versions in a features folder; the same environment gives the same file."""
    content = (json.dumps(environment(), indent=2, sort_keys=True) + "\n").encode()
    path = features / f"provenance-{content_digest(content)}.json"
    if not path.exists():
        write_atomically(path, content)


def read_provenance(features: Path) -> list[dict[str, str]]:
    """Every environment that wrote into a features folder; files that are no JSON object are passed over.

    Raises:
        DataError: a file cannot be read, is no regular one or too large.
    """
    found = []
    for path in sorted(features.glob("provenance-*.json")):
        try:
            values = parse_object(read_regular(path, MOST_BYTES))
        except ValueError:
            continue
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        found.append({name: str(value) for name, value in values.items()})
    return found
