"""RedisLocationStore keeps the contract on a cluster of three masters."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_cluster import REDIRECTS, ClusterLink
from gateway.backends.redis_link import Refusal
from gateway.backends.redis_slots import slot
from gateway.backends.redis_values import Keys
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import LocationStore
from tests.backends.redis_world import LENIENT, PATIENCE, announce, open_store_on, record, wait_until
from tests.backends.test_redis_locations import age
from tests.contracts.locations import MULTI, LocationContract
from tests.contracts.locations import place as placed
from tests.support.node import open_running
from tests.support.redis_cluster import ClusterMember, RedisCluster, redis_cluster

KEYS = Keys("im")


def settings_of(cluster: RedisCluster, **settings: Any) -> RedisSettings:
    """How a node is told of it."""
    return RedisSettings(**{"cluster": cluster.addresses, "timeout": LENIENT, **settings})


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def client(cluster: RedisCluster) -> Any:
    """Sees an empty cluster with four living nodes."""
    cluster.flush()
    announce(cluster.client(), *(f"node-{i}" for i in range(4)))
    return cluster.client()


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


class TestRedisClusterContract(LocationContract):
    lifetime = 120.0
    cluster: RedisCluster

    @pytest.fixture
    async def store(self, cluster: RedisCluster, client: Any, thread: AsyncioThread) -> AsyncIterator[LocationStore]:
        type(self).cluster = cluster
        async with open_store_on(settings_of(cluster), thread) as store:
            yield store

    async def elapse(self, seconds: float) -> None:
        for member in self.cluster.members:
            age(member.client(), seconds)


# -- keys on the way -----------------------------------------------------------------------------------------


def users_of(slots: Callable[[int], bool], count: int) -> list[int]:
    """So many users whose slots are such."""
    return list(islice((user for user in itertools.count(1) if slots(slot(KEYS.user(user)))), count))


def errors(member: ClusterMember, name: str) -> int:
    """How often it has answered so."""
    stats: Any = member.client().info("errorstats")
    return int(stats.get(f"errorstat_{name}", {"count": 0})["count"])


class Move:
    """One slot goes from one master to another, as `valkey-cli --cluster reshard` has it go."""

    def __init__(self, cluster: RedisCluster, place: int) -> None:
        self.place = place
        self.source = next(each for each in cluster.members if place in cluster.slots(each))
        self.target = next(each for each in cluster.members if each is not self.source)
        self._members = cluster.members

    def begin(self) -> None:
        self.target.ask("CLUSTER", "SETSLOT", self.place, "IMPORTING", self.source.id)
        self.source.ask("CLUSTER", "SETSLOT", self.place, "MIGRATING", self.target.id)

    def carry(self, most: int = 1_000) -> None:
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.place, most)
        if keys:
            self.source.ask("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5_000, "KEYS", *keys)

    def end(self) -> None:
        for member in (self.target, self.source, *self._members):
            member.ask("CLUSTER", "SETSLOT", self.place, "NODE", self.target.id)


async def test_a_slot_that_moves_during_traffic_costs_no_operation(
    cluster: RedisCluster, client: Any, thread: AsyncioThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.backends.redis_servers.LEARN", 10 * PATIENCE)  # it is MOVED that makes it look
    place = 5_000
    users = users_of(lambda each: each == place, 8)
    others = users_of(lambda each: each != place, 50)
    move = Move(cluster, place)
    before = {name: errors(move.source, name) for name in ("ASK", "MOVED", "TRYAGAIN")}
    async with open_store_on(settings_of(cluster), thread, record) as store:
        numbers = itertools.count(100)

        async def work() -> None:
            """Everybody logs in anew, in one batch, displacing exactly the last login; then all are found."""
            number = next(numbers)
            mine = [placed(number, user=user) for user in (*users, *others)]
            displaced = await store.reclaim(mine, MULTI)
            assert [[each.conn_id for each in some] for some in displaced if isinstance(some, list)] == [
                [] if number == 100 else [number - 1]
            ] * len(mine)
            assert list(await store.renew(mine)) == []
            found = await store.lookup([*users, *others])
            assert {user: [each.conn_id for each in some] for user, some in found.items()} == {
                each.user_id: [number] for each in mine
            }

        await work()
        move.begin()
        for _ in range(4):  # two at a time, so that the slot is split in between
            move.carry(2)
            await work()
        await store.release(placed(next(numbers) - 1, user=users[0]))  # not there any more, not yet anywhere else
        assert users[0] not in await store.lookup(users)
        assert await store.claim(placed(999, user=users[0]), MULTI) == []
        await store.release(placed(999, user=users[0]))
        for user in (*users[1:], *others):
            await store.release((await store.lookup([user]))[user][0])
        numbers = itertools.count(100)
        await work()
        move.end()
        for _ in range(3):
            await work()
        assert all(errors(move.source, name) > count for name, count in before.items()), "it was not put to the test"
        moved = errors(move.source, "MOVED")
        await wait_until(lambda: store.servers._topology.owner(KEYS.user(users[0])) == move.target.server)  # type: ignore[union-attr]
        await work()
        assert errors(move.source, "MOVED") == moved  # the new map is known
        assert store.statistics()["waiting"] == 0


async def test_the_keys_of_one_slot_are_one_call(cluster: RedisCluster, client: Any, thread: AsyncioThread) -> None:
    place = 7_000
    users = users_of(lambda each: each == place, 20)
    owner = next(each for each in cluster.members if place in cluster.slots(each))
    async with open_store_on(settings_of(cluster), thread, record) as store:
        mine = [placed(10, user=user) for user in users]
        await store.reclaim(mine, MULTI)
        owner.ask("CONFIG", "RESETSTAT")
        await store.reclaim(mine, MULTI)
        stats: Any = owner.client().info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] == 1


def test_slots_are_the_servers(cluster: RedisCluster) -> None:
    for key in (KEYS.user(1), KEYS.user(2**63 - 1), KEYS.node("node-1")):
        assert slot(key) == cluster.members[0].ask("CLUSTER", "KEYSLOT", key)


async def test_a_redirection_without_end_is_given_up(thread: AsyncioThread) -> None:
    """Two servers that each say the other has it, as during a failover that went wrong."""
    ports: list[int] = []
    asked: list[bytes] = []

    async def serve(other: int, stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                count = bytes(data).count(b"\r\nGET\r\n")
                asked.extend([b"GET"] * count)
                moved = b"-MOVED 1 127.0.0.1:%d\r\n" % ports[other]
                await stream.send_all(moved * count or b"+OK\r\n")

    async with trio.open_nursery() as nursery:
        for other in (1, 0):
            listeners = await nursery.start(trio.serve_tcp, partial(serve, other), 0)
            ports.append(listeners[0].socket.getsockname()[1])
        link = ClusterLink(RedisSettings(cluster=("unused",), timeout=LENIENT), ("127.0.0.1", ports[0]))
        with trio.fail_after(PATIENCE):
            (answer,) = await thread.run(link.ask, [("GET", "im:user:conn:1")])
            await thread.run(link.close)
        assert isinstance(answer, Refusal)
        assert len(asked) == 1 + REDIRECTS
        nursery.cancel_scope.cancel()


async def test_a_whole_node_by_configuration(cluster: RedisCluster, tmp_path: Path) -> None:
    """From `redis.cluster` to location, session and node in Redis; nothing is left open afterwards."""
    cluster.flush()
    cluster.client().ping()
    for member in cluster.members:
        member.client().ping()
    async with open_running(tmp_path, redis=settings_of(cluster, timeout=3.0)) as running:
        assert running.node.not_ready() == ""
        peers = [await running.seated(user) for user in range(1, 21)]
        for kind in ("im:user:conn:*", "im:session:*", "im:user:sessions:*"):
            await wait_until(lambda kind=kind: held(cluster, kind) == 20)  # type: ignore[misc]
        assert held(cluster, "im:node:*") == 1
        assert set(await running.hub.locations.lookup(range(1, 31))) == set(range(1, 21))
        for peer in peers:
            await peer.hang_up()
        await running.node.drain()
        await wait_until(lambda: held(cluster, "im:*") == 0)


def held(cluster: RedisCluster, pattern: str) -> int:
    """So many keys that look so."""
    return sum(len(member.client().keys(pattern)) for member in cluster.members)
