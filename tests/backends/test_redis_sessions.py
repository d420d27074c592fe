"""Sessions and seen messages in Redis keep their contracts, on one server and on a cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_servers import RedisServers
from gateway.backends.redis_sessions import RedisDedup, RedisSessionStore
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import StoreUnavailable
from tests.backends.redis_world import LENIENT, open_store_on
from tests.contracts.sessions import DedupContract, SessionContract, login
from tests.support.redis_cluster import RedisCluster, redis_cluster
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def single() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["single", "cluster"])
def members(request: pytest.FixtureRequest) -> list[RedisServer]:
    """The servers, with nothing in them."""
    found = request.getfixturevalue(request.param)
    servers: list[RedisServer] = [found] if isinstance(found, RedisServer) else list(found.members)
    for server in servers:
        server.client().flushall()
    return servers


@pytest.fixture
async def servers(members: list[RedisServer]) -> AsyncIterator[RedisServers]:
    settings = RedisSettings(port=members[0].port, timeout=LENIENT)
    if len(members) > 1:
        settings = RedisSettings(cluster=tuple(f"127.0.0.1:{each.port}" for each in members), timeout=LENIENT)
    async with AsyncioThread() as thread, open_store_on(settings, thread) as store:
        yield store.servers


def age(members: list[RedisServer], seconds: float) -> None:
    """What is stored gets older by so much."""
    for client in (member.client() for member in members):
        for key in client.keys("*"):
            left = int(client.pttl(key)) - int(seconds * 1000)
            if left > 0:
                client.pexpire(key, left)
            else:
                client.delete(key)


class TestRedisSessions(SessionContract):
    lifetime = 120.0
    members: list[RedisServer]

    @pytest.fixture
    async def sessions(self, members: list[RedisServer], servers: RedisServers) -> RedisSessionStore:
        type(self).members = members
        return RedisSessionStore(servers)

    async def elapse(self, seconds: float) -> None:
        age(self.members, seconds)


class TestRedisDedup(DedupContract):
    window = 300.0
    members: list[RedisServer]

    @pytest.fixture
    async def dedup(self, members: list[RedisServer], servers: RedisServers) -> RedisDedup:
        type(self).members = members
        return RedisDedup(servers)

    async def elapse(self, seconds: float) -> None:
        age(self.members, seconds)


def find(members: list[RedisServer], key: str) -> Any:
    """The client of whoever has a key."""
    return next(each.client() for each in members if key.encode() in each.client().keys("*"))


async def test_keys_and_values_are_those_of_the_protocol(members: list[RedisServer], servers: RedisServers) -> None:
    sessions, dedup = RedisSessionStore(servers), RedisDedup(servers)
    await sessions.put([login()])
    client = find(members, "im:session:s-1")
    told: Any = json.loads(client.get("im:session:s-1"))
    assert told == {name: getattr(login(), name) for name in login().__struct_fields__}
    assert 110_000 < client.pttl("im:session:s-1") <= 120_000
    of_user = find(members, "im:user:sessions:1001")
    assert of_user.smembers("im:user:sessions:1001") == {b"s-1"}
    assert 110_000 < of_user.pttl("im:user:sessions:1001") <= 120_000
    await dedup.first(1001, "m-1")
    seen = find(members, "im:dedup:1001:m-1")
    assert seen.get("im:dedup:1001:m-1") == b"0"
    assert 290_000 < seen.pttl("im:dedup:1001:m-1") <= 300_000
    await dedup.stored(1001, "m-1", 7)
    assert seen.get("im:dedup:1001:m-1") == b"7"
    assert 290_000 < seen.pttl("im:dedup:1001:m-1") <= 300_000
    await sessions.remove([login()])
    assert sorted(key for each in members for key in each.client().keys("*")) == [b"im:dedup:1001:m-1"]


async def test_what_a_killed_node_left_in_the_set_is_swept(members: list[RedisServer], servers: RedisServers) -> None:
    sessions = RedisSessionStore(servers)
    await sessions.put([login("s-1"), login("s-2")])
    find(members, "im:session:s-1").delete("im:session:s-1")  # it has run out
    assert [each.session_id for each in await sessions.of_user(1001)] == ["s-2"]
    assert find(members, "im:user:sessions:1001").smembers("im:user:sessions:1001") == {b"s-2"}


async def test_what_nobody_of_ours_wrote_is_no_session(members: list[RedisServer], servers: RedisServers) -> None:
    sessions = RedisSessionStore(servers)
    await sessions.put([login("s-1"), login("s-2", user=9)])
    find(members, "im:session:s-1").set("im:session:s-1", "no JSON")
    assert await sessions.find("s-1") is None
    assert await sessions.of_user(1001) == []
    find(members, "im:user:sessions:9").sadd("im:user:sessions:9", "s-2")
    await sessions.put([login("s-3", user=8)])
    find(members, "im:user:sessions:8").sadd("im:user:sessions:8", "s-2")  # somebody else's
    assert [each.session_id for each in await sessions.of_user(8)] == ["s-3"]


@pytest.mark.parametrize("bad", ["", "a:b", "{a}", "a*", "a\r\nDEL x", "s" * 65])
async def test_t27_session_ids_that_are_none_are_refused(single: RedisServer, bad: str) -> None:
    async with AsyncioThread() as thread, open_store_on(RedisSettings(port=single.port), thread) as store:
        sessions = RedisSessionStore(store.servers)
        for operation in (sessions.find(bad), sessions.put([login(bad)]), sessions.remove([login(bad)])):
            with pytest.raises(ValueError, match="session id must be"):
                await operation


async def test_t37_away_it_says_so(single: RedisServer) -> None:
    async with AsyncioThread() as thread, open_store_on(RedisSettings(port=single.port), thread) as store:
        sessions, dedup = RedisSessionStore(store.servers), RedisDedup(store.servers)
        single.pause()
        try:
            with trio.fail_after(20):
                for operation in (sessions.put([login()]), sessions.find("s-1"), dedup.first(1, "m-1")):
                    with pytest.raises(StoreUnavailable):
                        await operation
                await dedup.forget(1, "m-1")
                await dedup.stored(1, "m-1", 7)
        finally:
            single.resume()
