"""Temporary files go where TMPDIR says, and nowhere else."""

import resource
import tempfile
from pathlib import Path

import pytest

from m2e.cache import DataError
from m2e.cache.temporary import folder_for_temporaries, temporary_file


def test_tmpdir_is_obeyed_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert folder_for_temporaries() == tmp_path
    with temporary_file() as file:
        assert Path(file.name).parent == tmp_path
        file.write(b"x")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for name in ("file", "nowhere"):
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        with pytest.raises(DataError, match="which is no folder that can be written to"):
            folder_for_temporaries()
    monkeypatch.delenv("TMPDIR")
    assert folder_for_temporaries() == Path(tempfile.gettempdir())


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for length in (1_100, 100_000):  # what stays in the buffer until it is closed, and what does not
            with pytest.raises(OSError, match="too large"), temporary_file() as file:  # noqa: PT012
                file.write(bytes(length))
                file.flush()
            assert not list(tmp_path.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
