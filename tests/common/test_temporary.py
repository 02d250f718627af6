"""Temporary files go where TMPDIR says, and nowhere else; what is swept is ours."""

import os
import resource
import tempfile
from pathlib import Path

import pytest

from m2e.cache import DataError
from m2e.common.files import remove_stale_temporaries, temporary_folder, temporary_name, unsure_temporaries
from m2e.common.temporary import folder_for_temporaries, temporary_file


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


@pytest.mark.parametrize(
    "name",
    [
        ".tmp-",
        ".tmp-backup",
        ".tmp-host-1-0123456789ab",  # an earlier m2e's, or anybody's
        ".tmp-m2e-host-1-0123456789ab-mine",
        ".tmp-m2e-host-1-0123456789AB",
        ".tmp-m2e-host-1-0123",
        ".tmp-m2e-notes",
        ".tmp-m2e-host-1-0123456789ab\n",
    ],
)
def test_what_only_looks_like_a_temporary_stays(tmp_path: Path, name: str) -> None:
    file, folder = tmp_path / name, tmp_path / "folder" / name
    file.write_text("mine")
    folder.mkdir(parents=True)
    (folder / "song.mp3").write_text("mine")
    for path in (file, folder):
        os.utime(path, (0, 0))
        remove_stale_temporaries(path.parent)
        assert unsure_temporaries(path.parent) == [path]
    with temporary_folder(tmp_path):
        pass
    assert file.read_text() == (folder / "song.mp3").read_text() == "mine"


def test_links_under_a_temporarys_name_are_left_alone_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").write_text("mine")
    os.utime(tmp_path / "mine", (0, 0))
    links = []
    for target in ("mine", "folder", "nothing"):
        links.append(tmp_path / f".tmp-m2e-host-1-{len(links):012x}")
        links[-1].symlink_to(tmp_path / target)
        os.utime(links[-1], (0, 0), follow_symlinks=False)
    pipe = tmp_path / ".tmp-m2e-host-2-000000000000"
    os.mkfifo(pipe)
    os.utime(pipe, (0, 0))
    before = sorted(tmp_path.rglob("*"))
    remove_stale_temporaries(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_vanishes_while_it_is_looked_at_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / temporary_name()).touch()
    os.utime(next(tmp_path.iterdir()), (0, 0))
    real = os.open

    def gone(path: Path, *words: int) -> int:
        Path(path).unlink()
        return real(path, *words)

    monkeypatch.setattr(os, "open", gone)
    remove_stale_temporaries(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["node-1.cluster", "a b/c\u00e9", ""])
def test_our_own_are_swept_on_a_host_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    left = tmp_path / temporary_name()
    left.touch()
    assert unsure_temporaries(tmp_path) == []
    os.utime(left, (0, 0))
    remove_stale_temporaries(tmp_path)
    assert not list(tmp_path.iterdir())
