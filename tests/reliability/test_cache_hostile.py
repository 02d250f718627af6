"""Files that somebody made to hurt are refused, cheaply; no mutant kills the reader."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import crash

PLUGIN = """
#include <fcntl.h>
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void) { open(getenv("M2E_LOADED"), O_CREAT | O_WRONLY, 0600); }
int H5PLget_plugin_type(void) { return 0; }
const void *H5PLget_plugin_info(void) { return 0; }
"""


def test_hostile_files_are_refused_in_little_memory(tmp_path: Path) -> None:
    found = crash.run("hostile", tmp_path)
    assert found["status"] == 0
    assert found["files"] >= 20
    result = json.loads((tmp_path / "result").read_text())
    assert result["accepted"] == []
    assert result["megabytes"] < 50


def test_mutants_with_fitting_checksums_never_kill_the_reader(
    tmp_path: Path, rounds: Callable[[int, int], int]
) -> None:
    found = crash.run("mutations", tmp_path, 0, rounds(150, 2000))
    assert found["mutants"] == rounds(150, 2000)
    assert found["refused"] > 0
    assert found["silent"] == 0


def test_a_file_cannot_load_native_code(tmp_path: Path) -> None:
    """A filter that HDF5 would look for among plugins; plain h5py loads it from the same file."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler to make a plugin with")
    source, plugin, mark = tmp_path / "plugin.c", tmp_path / "libplugin.so", tmp_path / "loaded"
    source.write_text(PLUGIN)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(plugin), str(source)], check=True)
    make = (
        "import sys\nfrom pathlib import Path\nfrom support.crash import hostile\n"
        "hostile.HOSTILE['foreign filter'](Path(sys.argv[1]))\n"
    )
    plain = "import h5py, sys\ntry: h5py.File(sys.argv[1])['embeddings'][...]\nexcept OSError: pass\n"
    ours = (
        "import sys\nfrom pathlib import Path\nfrom support.crash import hostile\n"
        "assert hostile.read(Path(sys.argv[1])) is None\n"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PRELOAD"},
        "HDF5_PLUGIN_PATH": str(tmp_path),
        "M2E_LOADED": str(mark),
    }
    for script, loads in ((make, False), (plain, True), (ours, False)):
        mark.unlink(missing_ok=True)
        command = [sys.executable, "-c", script, str(tmp_path / "shard-0.h5")]
        subprocess.run(command, cwd=crash.TESTS, env=environment, check=True)
        assert mark.exists() == loads, script
