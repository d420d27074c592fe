"""A Redis Cluster of real servers on loopback: masters that share the slots, which tests stop, kill and rearrange."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from gateway.backends.redis_slots import SLOTS, Server, slot
from tests.support.redis_server import PATIENCE, RedisServer, free_port

NODE_TIMEOUT = 1_000
"""Milliseconds of silence after which the servers take one of them to be dead."""


class ClusterMember(RedisServer):
    """One server of a cluster. Killed and started again it is the same one, with nothing in it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.bus_port = free_port()
        super().__init__(
            folder,
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-port", str(self.bus_port)),
            *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
            *options,
        )

    @property
    def server(self) -> Server:
        """How the others name it."""
        return "127.0.0.1", self.port

    def start_if_away(self) -> None:
        """Have it run, whatever was done to it."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    @property
    def id(self) -> str:
        """Its name among them."""
        return str(self.ask("CLUSTER", "MYID").decode())

    def ask(self, *command: str | bytes | int) -> Any:
        """Its answer to one command."""
        return self.client().execute_command(*command)


class RedisCluster:
    """Some masters, each with an equal part of the slots."""

    def __init__(self, make: Callable[[], ClusterMember], masters: int) -> None:
        self._make = make
        self.members = [make() for _ in range(masters)]
        self._client: redis.RedisCluster | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """For `redis.cluster`."""
        return tuple(f"127.0.0.1:{each.port}" for each in self.members)

    def client(self) -> Any:
        """redis-py's client of a cluster, which tests look with while it is whole."""
        if self._client is None:
            first = self.members[0]
            self._client = redis.RedisCluster(host="127.0.0.1", port=first.port, socket_timeout=PATIENCE)
        return self._client

    def slots(self, member: ClusterMember) -> set[int]:
        """What a master has, as it says itself."""
        told = member.ask("CLUSTER", "SLOTS")
        return {
            each for first, last, (_, port, *_), *_ in told if port == member.port for each in range(first, last + 1)
        }

    def owner(self, key: bytes) -> ClusterMember:
        """Who has a key."""
        return next(each for each in self.members if slot(key) in self.slots(each))

    def add_replica(self, master: ClusterMember) -> ClusterMember:
        """A server that has what a master has, and takes its place when that is lost."""
        replica = self._make()
        self.join(replica)
        wait_for(lambda: master.id.encode() in replica.ask("CLUSTER", "NODES"))
        replica.ask("CLUSTER", "REPLICATE", master.id)
        wait_for(lambda: replica.client().info("replication").get("master_link_status") == "up")
        return replica

    def mend(self) -> None:
        """Have every master there again."""
        for member in self.members:
            member.start_if_away()
        self.settle()

    def flush(self) -> None:
        """Forget everything."""
        for member in self.members:
            member.ask("FLUSHALL")

    def meet(self) -> None:
        """Make one cluster of the masters."""
        share = -(-SLOTS // len(self.members))
        for i, member in enumerate(self.members):
            member.ask("CLUSTER", "ADDSLOTSRANGE", i * share, min(SLOTS, (i + 1) * share) - 1)
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for member in self.members[1:]:
            self.join(member)
        self.settle()

    def join(self, member: ClusterMember) -> None:
        """Tell the first of another one."""
        self.members[0].ask("CLUSTER", "MEET", "127.0.0.1", member.port, member.bus_port)

    def settle(self) -> None:
        """Wait until all agree."""
        wait_for(lambda: all(self._is_whole(each) for each in self.members))

    def close(self) -> None:
        """End our client of it."""
        if self._client is not None:
            self._client.close()

    def _is_whole(self, member: ClusterMember) -> bool:
        served = sum(last - first + 1 for first, last, *_ in member.ask("CLUSTER", "SLOTS"))
        return b"cluster_state:ok" in member.ask("CLUSTER", "INFO") and served == SLOTS


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait, outside of Trio, for something that servers settle among themselves."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the cluster does not settle"
        time.sleep(0.02)


@contextmanager
def redis_cluster(*options: str, masters: int = 3) -> Iterator[RedisCluster]:
    """A cluster that runs for the length of the block."""
    with ExitStack() as stack:

        def make() -> ClusterMember:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-cluster-")))
            member = ClusterMember(folder, *options)
            stack.callback(member.close)
            member.start()
            return member

        cluster = RedisCluster(make, masters)
        stack.callback(cluster.close)
        cluster.meet()
        yield cluster
