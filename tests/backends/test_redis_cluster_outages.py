"""Threat 37 on a cluster: what is away fails alone and soon, the rest goes on, and all of it comes back."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_cluster import Map
from gateway.backends.redis_locations import RedisLocationStore
from gateway.backends.redis_slots import Topology, slot
from gateway.backends.redis_values import Keys
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import StoreUnavailable
from tests.backends.redis_world import PATIENCE, announce, enter, open_store_on, record, wait_until
from tests.contracts.locations import MULTI, place
from tests.support.redis_cluster import ClusterMember, RedisCluster, redis_cluster
from tests.support.redis_server import free_port, redis_server

KEYS = Keys("im")
SHORT = 1.0
"""Seconds: the time limit, as it is by default."""


@pytest.fixture(scope="module")
def one() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(one: RedisCluster) -> Iterator[RedisCluster]:
    """A whole cluster with nothing in it, whatever the last test did to it."""
    one.flush()
    try:
        yield one
    finally:
        one.mend()


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


def settings_of(cluster: RedisCluster) -> RedisSettings:
    return RedisSettings(cluster=cluster.addresses, timeout=SHORT)


def users_of(cluster: RedisCluster, member: ClusterMember, count: int = 20) -> list[int]:
    """Users whose locations a master has."""
    slots = cluster.slots(member)
    return list(islice((user for user in itertools.count(1) if slot(KEYS.user(user)) in slots), count))


def split(cluster: RedisCluster, count: int = 20) -> tuple[ClusterMember, list[int], list[int]]:
    """A master that does not have the node's own entry, its users, and those of the others."""
    home = cluster.owner(KEYS.node("node-1"))
    away, rest = (each for each in cluster.members if each is not home)
    return away, users_of(cluster, away, count), [*users_of(cluster, home, count), *users_of(cluster, rest, count)]


async def seat(store: RedisLocationStore, users: Sequence[int]) -> None:
    for user in users:
        await enter(store, place(user, user=user))


async def refused(store: RedisLocationStore, users: Sequence[int]) -> None:
    """Claims, renewals and lookups of these fail, all together within bounds that no retries would keep."""
    with trio.fail_after(10 * SHORT):
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(_refused, store, user)
        for operation in (store.lookup(users), store.renew([place(user, user=user) for user in users])):
            with pytest.raises(StoreUnavailable):
                await operation


async def _refused(store: RedisLocationStore, user: int) -> None:
    with pytest.raises(StoreUnavailable):
        await store.claim(place(10_000 + user, user=user), MULTI)


async def served(store: RedisLocationStore, users: Sequence[int], shift: int = 20_000) -> None:
    """These are claimed anew and found, as if nothing were the matter; the machine may be slow."""
    for user in users:
        await enter(store, place(shift + user, user=user))
    with trio.fail_after(PATIENCE):
        while True:
            try:
                found = await store.lookup(users)
                break
            except StoreUnavailable:
                await trio.sleep(0.05)
    assert {user: [each.conn_id for each in some] for user, some in found.items()} == {
        user: [shift + user] for user in users
    }


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_t37_a_lost_master_costs_its_own_users_only(
    cluster: RedisCluster, thread: AsyncioThread, how: str
) -> None:
    away, gone, others = split(cluster)
    async with open_store_on(settings_of(cluster), thread, record) as store:
        await seat(store, [*gone, *others])
        if how == "killed":
            away.kill()
        else:
            away.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, store, gone)
            nursery.start_soon(served, store, others)
        with trio.fail_after(PATIENCE):
            while True:  # of a mixed question, what could be found is told
                with pytest.raises(StoreUnavailable) as raised:
                    await store.lookup([*gone, *others])
                if set(raised.value.found) == set(others):
                    break
        assert store.healthy  # the node stays ready: others would be of no more use
        mine = [place(user, user=user) for user in gone]
        with trio.fail_after(PATIENCE):
            while True:  # of many claims, each for itself
                *lost, last = await store.reclaim([*mine, place(30_001, user=others[0])], MULTI)
                assert all(isinstance(each, StoreUnavailable) for each in lost)
                if not isinstance(last, StoreUnavailable):
                    break
        assert [each.conn_id for each in last or []] in ([20_000 + others[0]], [])  # [] when an answer came too late
        if how == "killed":
            away.start()
        else:
            away.resume()
        with trio.fail_after(PATIENCE):
            await store.wait_recovered()
        await served(store, gone)
        await wait_until(lambda: not store.statistics()["owed"])
        assert store.statistics()["waiting"] == 0


async def test_t37_users_are_found_while_the_master_that_knows_their_node_is_away(
    cluster: RedisCluster, thread: AsyncioThread
) -> None:
    home = cluster.owner(KEYS.node("node-1"))
    others = [user for each in cluster.members if each is not home for user in users_of(cluster, each, 5)]
    async with open_store_on(settings_of(cluster), thread, record) as store:
        await seat(store, others)
        home.kill()
        await served(store, others)
        home.start()
        with trio.fail_after(PATIENCE):
            await store.wait_recovered()
        await wait_until(lambda: bool(home.client().exists(KEYS.node("node-1"))))  # announced anew
        await served(store, users_of(cluster, home))


async def test_t37_a_replica_takes_over(thread: AsyncioThread) -> None:
    with redis_cluster() as cluster:
        lost, users, others = split(cluster)
        replica = cluster.add_replica(lost)
        async with open_store_on(settings_of(cluster), thread, record) as store:
            await seat(store, [*users, *others])
            await wait_until(lambda: replica.client().dbsize() == lost.client().dbsize())
            lost.kill()
            await served(store, others)
            await served(store, users)  # of itself, as soon as the others have chosen the replica
            with trio.fail_after(PATIENCE):
                await store.wait_recovered()  # what the old master had confirmed last may be missing
            assert replica.client().role()[0] == b"master"
            assert replica.client().exists(KEYS.user(users[0]))
            lost.start()  # as a replica, whom nobody asks
            await served(store, users, 40_000)


async def test_t37_the_cluster_is_down(cluster: RedisCluster, thread: AsyncioThread, caplog: Any) -> None:
    """By the servers' default they all refuse when one master is lost: that is told, and waited for."""
    for member in cluster.members:
        member.client().config_set("cluster-require-full-coverage", "yes")
    try:
        away, gone, others = split(cluster)
        async with open_store_on(settings_of(cluster), thread, record) as store:
            assert any(each.message == "redis_full_coverage" for each in caplog.records)
            await seat(store, [*gone, *others])
            away.kill()
            await wait_until(lambda: not store.healthy)
            await refused(store, [*gone, *others])
            away.start()
            await wait_until(lambda: store.healthy)
            await served(store, [*gone, *others])
    finally:
        for member in cluster.members:
            member.start_if_away()
            member.client().config_set("cluster-require-full-coverage", "no")


async def test_the_map_is_told_by_whoever_is_there(cluster: RedisCluster, thread: AsyncioThread) -> None:
    away, _, others = split(cluster)
    named = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{away.port}", *cluster.addresses)
    away.pause()
    async with open_store_on(RedisSettings(cluster=named, timeout=1.5), thread, record) as store:
        await served(store, others)
    away.resume()
    cluster.settle()
    one = (f"127.0.0.1:{away.port}",)  # it tells of the others, and is lost then
    async with open_store_on(RedisSettings(cluster=one), thread, record) as store:
        await served(store, others, 50_000)
        away.kill()
        await served(store, others, 60_000)
        assert store.servers._map is not None
        await wait_until(lambda: store.servers._map._told != ("127.0.0.1", away.port))  # type: ignore[union-attr]


async def test_nobody_is_there_when_the_node_starts(
    cluster: RedisCluster, thread: AsyncioThread, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Map] = []
    learn = Map.learn

    async def look(self: Map) -> tuple[Topology, bool]:
        looks.append(self)
        return await learn(self)

    monkeypatch.setattr(Map, "learn", look)
    for member in cluster.members:
        member.pause()
    async with open_store_on(settings_of(cluster), thread, record) as store:
        assert not store.healthy
        await refused(store, [1, 2, 3])
        await wait_until(lambda: len(looks) > 3)
        assert [each.message for each in caplog.records].count("redis_away") == 1
        for member in cluster.members:
            member.resume()
        await wait_until(lambda: store.healthy)
        assert any(each.message == "redis_back" for each in caplog.records)
        await served(store, range(1, 10))


async def test_what_was_left_owing_is_paid_when_its_master_is_back(
    cluster: RedisCluster, thread: AsyncioThread
) -> None:
    away, gone, others = split(cluster)
    async with open_store_on(settings_of(cluster), thread, record) as store:
        await seat(store, [*gone, *others])
        away.pause()
        async with trio.open_nursery() as nursery:
            for user in [*gone, *others]:
                nursery.start_soon(_release, store, user)
        await wait_until(lambda: store.statistics()["owed"] <= len(gone))
        away.resume()
        await wait_until(lambda: not store.statistics()["owed"])
        assert not any(member.client().keys("im:user:*") for member in cluster.members)


async def _release(store: RedisLocationStore, user: int) -> None:
    try:
        await store.release(place(user, user=user))
    except StoreUnavailable:
        return


# -- the wrong kind of server --------------------------------------------------------------------------------


async def test_a_cluster_named_as_one_server_says_what_to_do(cluster: RedisCluster, thread: AsyncioThread) -> None:
    stranger = next(each for each in cluster.members if each is not cluster.owner(KEYS.node("node-1")))
    async with open_store_on(RedisSettings(port=stranger.port), thread, record) as store:
        assert not store.healthy
        with pytest.raises(StoreUnavailable, match=r"redis\.cluster"):
            await store.claim(place(10), MULTI)


async def test_one_server_named_as_a_cluster_says_what_to_do(thread: AsyncioThread) -> None:
    with redis_server() as server:
        announce(server.client(), "node-1")
        settings = RedisSettings(cluster=(f"127.0.0.1:{server.port}",))
        async with open_store_on(settings, thread, partial(record, "node-1")) as store:
            assert not store.healthy
            with pytest.raises(StoreUnavailable, match=r"redis\.host"):
                await store.claim(place(10), MULTI)
