"""Workers on addresses of their own, one of which is cut off from the network."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.clusters import Cluster, start_client, wait_for_workers
from support.runs import computed, content, extract_random, names, processes, wait_until

from m2e.extract.job.part import Part

N = 300


@dataclass(frozen=True)
class Network:
    """A bridge on this machine with two namespaces on it, like two machines on one switch."""

    name: str

    @property
    def bridge(self) -> str:
        return f"{self.name}br"

    def address(self, host: int) -> str:
        """0 is this machine."""
        return f"10.213.{int(self.name[1:], 16) % 256}.{host + 1}"

    def host(self, number: int) -> str:
        """Name of a namespace, and of its cable's end on the bridge."""
        return f"{self.name}h{number}"

    def through(self, number: int) -> list[str]:
        """A command that runs another in a namespace."""
        return ["ip", "netns", "exec", self.host(number)]

    def make(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"{self.address(0)}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for number in (1, 2):
            host = self.host(number)
            ip("netns", "add", host)
            ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", host, "master", self.bridge, "up")
            ip("-n", host, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")

    def cut(self, number: int) -> None:
        ip("link", "set", self.host(number), "down")

    def remove(self) -> None:
        hosts = [self.host(number) for number in (1, 2)]
        for command in (*(["netns", "delete", host] for host in hosts), *(["link", "delete", end] for end in hosts)):
            subprocess.run(["ip", *command], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if shutil.which("ip") is None:
        pytest.skip("no iproute2: cannot make network namespaces")
    network = Network(f"m{hash(str(tmp_path)) & 0xFFFF:04x}")
    try:
        try:
            network.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"may not make network namespaces: {error.stderr.decode().strip()}")
        yield network
    finally:
        network.remove()


def test_workers_on_their_own_addresses_and_one_cut_off(network: Network, tmp_path: Path) -> None:
    extract_random(tmp_path / "reference", names(N), 1, 0.0, Part())
    folder = tmp_path / "shared" / "songs"
    with Cluster(
        tmp_path / "cluster", network.address(0), DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="3 seconds"
    ) as cluster:
        workers = [
            cluster.add_worker("--host", network.address(number), through=network.through(number)) for number in (1, 2)
        ]
        wait_for_workers(cluster, 2)
        client = start_client(cluster, folder, N, 0.03)
        wait_until(lambda: len(computed(folder)) > 100, client)
        assert set(processes(folder)) == {worker.pid for worker in workers}
        network.cut(1)
        output, errors = client.communicate(timeout=120)
        assert client.returncode == 0, errors
        assert not any(final for _, final in json.loads(output))
        # The worker beyond the cut still had the shared folder, and sealed its batch, which the other did again.
        assert set(processes(folder)[-60:]) == {workers[1].pid}
        assert len(computed(folder)) > N
    assert content(folder) == content(tmp_path / "reference")
