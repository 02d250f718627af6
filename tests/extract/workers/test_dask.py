"""run_tasks on a Dask cluster of real processes: the same results, and one line for what cannot work."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from support.clusters import Cluster, Negate, Unusable, extract_on, wait_for_workers
from support.runs import RandomFeatures, computed, content, extract_random, names, processes

from m2e.cache import DataError, ExtractionConfig
from m2e.extract.cli import main
from m2e.extract.encoders.registry import find_encoder
from m2e.extract.job.part import Part
from m2e.extract.models import Models
from m2e.extract.workers.dask import dask_workers
from m2e.extract.workers.requirement import Requirement
from m2e.extract.workers.schedule import run_tasks

N = 200


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler with two workers."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        for _ in range(2):
            cluster.add_worker()
        yield cluster


def test_two_and_four_workers_give_the_bytes_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    extract_random(tmp_path / "reference", names(N), 1, 0.0, Part())
    assert extract_on(cluster.address, tmp_path / "two", names(N), 0.002) == []
    for _ in range(2):
        cluster.add_worker()
    assert extract_on(cluster.address, tmp_path / "four", names(N), 0.01) == []
    for folder in (tmp_path / "two", tmp_path / "four"):
        assert content(folder) == content(tmp_path / "reference")
        assert sorted(computed(folder)) == names(N)
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_the_function_raises_stops_the_run(cluster: Cluster, tmp_path: Path) -> None:
    with dask_workers(cluster.address, tmp_path, str, {}) as workers, pytest.raises(DataError, match="full at t0000"):
        list(run_tasks(Unusable(), names(9), workers))
    assert not list(tmp_path.glob(".tmp-*"))


def test_only_workers_with_the_resources_are_taken(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.add_worker("--resources", "GPU=1")
    with dask_workers(cluster.address, tmp_path, str, {"GPU": 1}) as workers:
        assert sorted(run_tasks(RandomFeatures(tmp_path / "songs"), names(20), workers)) == names(20)
        assert workers.width == 1
    assert set(processes(tmp_path / "songs")) == {worker.pid}


def enter(address: str, shared: Path, requirement: Callable[[], str] = str) -> None:
    with dask_workers(address, shared, requirement, {}):
        pass


HIDE_M2E = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "m2e":
            raise ModuleNotFoundError("No module named 'm2e'", name="m2e")
sys.meta_path.insert(0, Hidden())
"""


def without_m2e(folder: Path) -> str:
    """A folder for PYTHONPATH with which a Python process has no m2e."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE_M2E)
    return str(folder)


def with_m2e(folder: Path, version: str) -> str:
    """A folder for PYTHONPATH with which the installed m2e says that it has another version."""
    information = folder / f"m2e-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: m2e\nVersion: {version}\n")
    return str(folder)


def hiding(folder: Path) -> list[str]:
    """A command that runs another which finds `folder` empty; skips where that may not be."""
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs m2e-test "$0" && exec "$@"', str(folder)]
    try:
        subprocess.run([*command, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not hide a folder from a process")
    return command


@pytest.fixture
def models(tmp_path: Path) -> Models:
    source = find_encoder("tiny")
    assert source.folder
    folder = shutil.copytree(source.folder, tmp_path / "encoder")
    revision = find_encoder(str(folder)).revision
    return Models(ExtractionConfig("encoder", revision, chords="template"), folder, None, "cpu")


def test_workers_that_cannot_do_the_work_are_refused_in_a_line_each(
    tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, audio = tmp_path / "shared", tmp_path / "audio"
    shared.mkdir()
    audio.mkdir()
    (audio / "1.wav").write_bytes(b"RIFF")
    requirement = Requirement.of(models, [audio / "1.wav"])
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add_worker(PYTHONPATH=with_m2e(tmp_path / "other", "0.0.7"))
        cluster.add_worker(PYTHONPATH=without_m2e(tmp_path / "none"))
        for folder in (models.encoder_folder, shared, audio):
            cluster.add_worker(through=hiding(folder))
        wait_for_workers(cluster, 5)
        with pytest.raises(DataError, match=r"^worker tcp://127.0.0.1:\d+ cannot be used: "):
            enter(cluster.address, shared, requirement)
        cluster.add_worker()
        wait_for_workers(cluster, 6)
        capsys.readouterr()
        with dask_workers(cluster.address, shared, requirement, {}) as workers:
            assert sorted(run_tasks(Negate(), range(20), workers)) == list(range(-19, 1))
            assert workers.width == 1
    lines = capsys.readouterr().err.splitlines()
    for words in (
        "it has m2e 0.0.7, not ",
        "it cannot import m2e as it is here (ModuleNotFoundError",
        f"cannot be used: {models.encoder_folder} ",
        f"it cannot use {shared} (No such file or directory): the cache must be on a shared folder",
        f"it does not see the audio at {audio}/1.wav, which must be on a shared folder",
    ):
        assert sum(line.startswith("note worker tcp://") and words in line for line in lines) == 1, (words, lines)
    assert len(lines) == 6, lines


def test_another_encoder_or_another_code_is_another_fingerprint(models: Models) -> None:
    requirement = Requirement.of(models, [])
    assert requirement() == ""
    config = models.encoder_folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layer_norm_eps": 1e-4}))
    assert requirement().startswith("its features would have the fingerprint ")


def test_a_scheduler_without_m2e_is_one_line(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", PYTHONPATH=without_m2e(tmp_path / "none")) as cluster:
        cluster.add_worker()
        wait_for_workers(cluster, 1)
        with pytest.raises(DataError, match="the same m2e is to be installed where the scheduler runs"):
            enter(cluster.address, tmp_path)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere.invalid:8786", "smoke://127.0.0.1:9"])
def test_an_unreachable_scheduler_is_one_line(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2e.extract.workers.dask._CONNECT_SECONDS", 1.0)
    with pytest.raises(DataError, match=rf"^no Dask scheduler answers at {address} \("):
        enter(address, tmp_path)
    assert not list(tmp_path.iterdir())


def test_workers_of_this_machine_are_not_seen_from_others(tmp_path: Path) -> None:
    with dask_workers("local:1", tmp_path, str, {}):
        sockets = psutil.Process().net_connections()
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_a_scheduler_without_workers_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("m2e.extract.workers.dask._PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr("m2e.extract.workers.dask._MEETING_SECONDS", 1.0)
    with (
        Cluster(tmp_path / "cluster") as cluster,
        dask_workers(cluster.address, tmp_path, str, {}) as workers,
        pytest.raises(DataError, match=r"had no worker for 0 minutes\. What was committed is safe"),
    ):
        list(run_tasks(Negate(), range(3), workers))
    assert "has no worker that can be used: waiting for one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheduler", "cluster"], "'cluster' is not an address such as tcp://10.0.0.1:8786, nor local:N"),
        (["--scheduler", "local:0"], "'local:0' is not an address"),
        (["--scheduler", "http://127.0.0.1:80"], "'http://127.0.0.1:80' is not an address"),
        (["--scheduler", "tcp://a:1", "--worker-resources", "GPU=-1"], "'GPU=-1' is not a list such as GPU=1"),
        (["--scheduler", "tcp://a:1", "--worker-resources", "=1"], "'=1' is not a list such as GPU=1"),
        (["--scheduler", "local:2", "--worker-resources", "GPU=1"], "the workers of local:N have no resources"),
        (["--scheduler", "local:2", "--worker-resources", "GPU"], "'GPU' is not a list such as GPU=1"),
        (["--scheduler", "local:2", "--jobs", "2"], "--jobs counts processes of this machine"),
        (["--worker-resources", "GPU=1"], "it goes with --scheduler"),
    ],
)
def test_bad_usage_is_one_line(options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["--dataset", "emomusic", *options])
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
