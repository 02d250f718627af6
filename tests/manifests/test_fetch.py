"""Metadata from a server; here one of our own, on this machine."""

import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.official import write_jamendo

from m2e.common.errors import DataError
from m2e.manifests import DATASETS, load
from m2e.manifests.cli import main
from m2e.manifests.dataset import DataSet, RemoteFile
from m2e.manifests.fetch import fetch

JAMENDO = DATASETS["mtg-jamendo"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, DataSet]]:
    """A server of small files at the published addresses, and the data set with their digests."""
    folder = tmp_path / "server"
    files = []
    for written in write_jamendo(tmp_path / "official"):
        path = written.relative_to(tmp_path / "official").as_posix()
        (known,) = (file for file in JAMENDO.files if file.path == path)
        (folder / known.address).parent.mkdir(parents=True, exist_ok=True)
        (folder / known.address).write_bytes(written.read_bytes())
        files.append(replace(known, sha256=hashlib.sha256(written.read_bytes()).hexdigest()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", replace(JAMENDO, files=tuple(files))
    server.shutdown()
    thread.join()
    server.server_close()


def test_everything_is_fetched_once_and_can_be_read(mirror: tuple[str, DataSet], tmp_path: Path) -> None:
    url, dataset = mirror
    root = tmp_path / "data"
    paths = fetch(dataset, root, url)
    assert len(load("mtg-jamendo", root).tracks) == 12
    times = [path.stat().st_mtime_ns for path in paths]
    assert fetch(dataset, root, "http://127.0.0.1:1/") == paths
    assert [path.stat().st_mtime_ns for path in paths] == times


def test_other_content_is_refused_and_not_kept(mirror: tuple[str, DataSet], tmp_path: Path) -> None:
    url, dataset = mirror
    (tmp_path / "server" / dataset.files[0].address).write_text("mood/theme---forged\n")
    with pytest.raises(DataError, match="is not the published file"):
        fetch(dataset, tmp_path / "data", url)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_file_of_the_users_is_never_replaced(mirror: tuple[str, DataSet], tmp_path: Path) -> None:
    url, dataset = mirror
    mine = tmp_path / "data" / dataset.files[0].path
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(DataError, match="is there already and is not the published file"):
        fetch(dataset, tmp_path / "data", url)
    assert mine.read_text() == "mine"


def test_a_link_out_of_the_folder_is_not_written_through(mirror: tuple[str, DataSet], tmp_path: Path) -> None:
    url, dataset = mirror
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link leads out of"):
        fetch(dataset, tmp_path / "data", url)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("base", ["http://127.0.0.1:1", "not-an-address"])
def test_server_that_is_not_there(base: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fetch", "mtg-jamendo", "--root", str(tmp_path)], env={"M2E_DATA_URL": base})
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 2  # what it tries, and the error
    assert "Error: " in result.stderr


def test_folder_that_cannot_be_is_no_fault_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for root in (tmp_path / "file", tmp_path / "loop", tmp_path / ("x" * 300)):
        result = CliRunner().invoke(main, ["fetch", "mtg-jamendo", "--root", str(root)])
        assert result.exit_code == 1
        assert len(result.stderr.strip().splitlines()) == 1
        assert str(root) in result.stderr
        assert "cannot fetch" not in result.stderr


def test_missing_file_on_the_server(mirror: tuple[str, DataSet], tmp_path: Path) -> None:
    url, dataset = mirror
    stray = replace(dataset, files=(RemoteFile("a.txt", "none/a.txt", "0" * 64),))
    with pytest.raises(DataError, match=r"cannot fetch .*none/a.txt \(HTTPError\)"):
        fetch(stray, tmp_path / "data", url)


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"mtg-jamendo"}))
def test_sets_without_known_digests_say_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"m2e-manifest check {name}"):
        fetch(DATASETS[name], tmp_path)


def test_addresses_are_pinned_and_digests_are_those_of_the_reference_files(reference: Path) -> None:
    for file in JAMENDO.files:
        assert len(file.address.partition("/")[0]) == 40
        content = (reference / "data" / "mtg-jamendo" / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256


def test_without_pooch_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    result = CliRunner().invoke(main, ["fetch", "mtg-jamendo", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: pooch is not installed here")
    assert len(result.stderr.strip().splitlines()) == 1
