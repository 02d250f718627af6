"""A Dask cluster while its processes are killed: no track is lost, none is twice, the bytes are those of one process.

The features are random and cost next to nothing; scheduler, workers, engine, writer and packer are the real ones.
"""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.clusters import Cluster, extract_on, start_client, wait_for_workers
from support.runs import computed, content, extract_random, names, processes, stored, wait_until

from m2e.cache import DataError
from m2e.extract.job.part import Part
from m2e.extract.workers.schedule import LARGEST_BATCH, Lost

Rounds = Callable[[int, int], int]
N = 300


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that one undisturbed process makes."""
    folder = tmp_path_factory.mktemp("reference") / "songs"
    extract_random(folder, names(N), 1, 0.0, Part())
    return folder


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(one_cluster: Cluster) -> Cluster:
    """A scheduler with two workers, in whatever state the test before has left them."""
    one_cluster.keep(2)
    return one_cluster


def begun(folder: Path, n: int) -> Callable[[], bool]:
    return lambda: len(computed(folder)) >= n


def deaths_of(client: "subprocess.Popen[str]") -> list[list[object]]:
    output, errors = client.communicate(timeout=240)
    assert client.returncode == 0, errors
    return json.loads(output)


def test_workers_killed_in_mid_run_and_others_that_join_late(
    cluster: Cluster, tmp_path: Path, reference: Path, rounds: Rounds
) -> None:
    for i in range(rounds(1, 20)):
        folder = tmp_path / "shared" / f"songs{i}"
        client = start_client(cluster, folder, N, 0.02)
        for kill in (1, 2):
            wait_until(begun(folder, 60 * kill), client)
            time.sleep(random.uniform(0, 0.3))
            cluster.workers.pop(0).kill()
            cluster.add_worker()
        wait_until(begun(folder, 150), client)
        cluster.add_worker()
        deaths = deaths_of(client)
        assert 0 < len(deaths) <= 2
        assert not any(final for _, final in deaths)
        assert content(folder) == content(reference)
        assert len(computed(folder)) <= N + 2 * LARGEST_BATCH
        cluster.keep(2)


def test_a_client_waits_for_workers_and_a_late_one_takes_its_share(
    one_cluster: Cluster, tmp_path: Path, reference: Path
) -> None:
    folder = tmp_path / "shared" / "songs"
    one_cluster.keep(0)
    client = start_client(one_cluster, folder, N, 0.03)
    first = one_cluster.add_worker()
    wait_until(begun(folder, 20), client)
    late = one_cluster.add_worker()
    assert deaths_of(client) == []
    shares = [processes(folder).count(worker.pid) for worker in (first, late)]
    assert min(shares) > N / 5
    assert sum(shares) == N
    assert content(folder) == content(reference)


def test_a_deadly_track_is_given_up_after_two_deaths(tmp_path: Path, rounds: Rounds) -> None:
    """Whatever the scheduler does of its own: with the failures that it allows, and under a nanny on a fixed port."""
    for allowed, port in (("3", str(20_000 + os.getpid() % 10_000)), ("0", "0"))[: rounds(1, 2)]:
        with Cluster(
            tmp_path / f"cluster{allowed}-{port}", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=allowed
        ) as cluster:
            cluster.add_worker("--worker-port", port, nanny=True)
            cluster.add_worker(nanny=True)
            folder = tmp_path / "shared" / f"songs{allowed}-{port}"
            deadly = frozenset({"t00007", "t00150"})
            deaths = extract_on(cluster.address, folder, names(N), 0.001, deadly)
            assert sorted((death.item, death.final) for death in deaths) == [
                (item, final) for item in sorted(deadly) for final in (False, True)
            ]
            assert stored(folder).keys() == set(names(N)) - deadly
            assert all(computed(folder).count(item) == 2 for item in deadly)
            assert not list(folder.parent.glob(".tmp-*"))


def test_a_killed_client_and_resume(cluster: Cluster, tmp_path: Path, reference: Path, rounds: Rounds) -> None:
    for i in range(rounds(1, 20)):
        folder = tmp_path / "shared" / f"songs{i}"
        for kill in (1, 2):
            client = start_client(cluster, folder, N, 0.02)
            wait_until(begun(folder, 70 * kill), client)
            committed = stored(folder)
            client.kill()
            client.communicate()
        assert deaths_of(start_client(cluster, folder, N)) == []
        assert committed.items() <= stored(folder).items()
        assert content(folder) == content(reference)
        assert len(computed(folder)) <= N + 2 * 2 * LARGEST_BATCH
        assert not list(folder.parent.glob(".tmp-*"))


def test_an_interrupted_client_waits_until_workers_have_sealed(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "songs"
    client = start_client(cluster, folder, N, 0.2)
    wait_until(begun(folder, 20), client)
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=60)
    assert client.returncode != 0
    assert len(stored(folder)) == len(computed(folder)) < N
    assert not list(folder.parent.glob(".tmp-*"))


def test_workers_that_are_told_to_end_seal_what_they_have(cluster: Cluster, tmp_path: Path, reference: Path) -> None:
    folder = tmp_path / "shared" / "songs"
    client = start_client(cluster, folder, N, 0.02)
    wait_until(begun(folder, 100), client)
    worker = cluster.workers.pop(0)
    worker.terminate()
    worker.wait(60)
    assert not any(final for _, final in deaths_of(client))
    assert content(folder) == content(reference)


@pytest.mark.long
def test_a_killed_scheduler_is_one_line_and_the_next_run_goes_on(tmp_path: Path, reference: Path) -> None:
    folder = tmp_path / "shared" / "songs"
    with Cluster(tmp_path / "first") as cluster:
        cluster.add_worker()
        wait_for_workers(cluster, 1)
        threading.Timer(3, cluster.scheduler.kill).start()
        with pytest.raises(DataError, match=f"^the scheduler at {cluster.address} is gone"):
            extract_on(cluster.address, folder, names(N), 0.05)
    with Cluster(tmp_path / "second") as cluster:
        cluster.add_worker()
        assert extract_on(cluster.address, folder, names(N)) == list[Lost[str]]()
    assert content(folder) == content(reference)
