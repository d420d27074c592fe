"""Threat 37 at the store: Redis stopped, killed, emptied, read-only, full, or no Redis; and what would be done late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_crossing import ServerClock
from gateway.backends.redis_locations import RedisLocationStore
from gateway.core.ports import StoreUnavailable
from tests.backends.redis_world import PATIENCE, announce, conn_ids, enter, open_store, wait_until
from tests.contracts.locations import MULTI, place
from tests.support.redis_server import RedisServer, free_port, redis_server

SHORT = 1.0
"""Seconds: the time limit, as it is by default, in tests that wait for it to pass."""


@pytest.fixture(scope="module")
def one() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(one: RedisServer) -> Iterator[RedisServer]:
    """A running server with nothing in it, whatever the last test did to it, and whatever this one will."""
    try:
        client = one.client()
        client.flushall()
        announce(client, "node-1", "node-2")
        yield one
    finally:
        one.restart()


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


async def unavailable(store: RedisLocationStore, conn_id: int = 10, user: int = 1001) -> str:
    """A claim fails, and says why."""
    with trio.fail_after(PATIENCE), pytest.raises(StoreUnavailable) as raised:
        await store.claim(place(conn_id, user=user), MULTI)
    return str(raised.value)


async def recovered(store: RedisLocationStore) -> None:
    with trio.fail_after(PATIENCE):
        await store.wait_recovered()
    assert store.healthy


def evaluations(client: Any) -> int:
    """Scripts that the server has executed."""
    stats: Any = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


async def test_t37_claims_given_up_while_it_was_stopped_are_not_done_later(
    server: RedisServer, thread: AsyncioThread
) -> None:
    client = server.client()
    async with open_store(server, thread, "node-1", timeout=SHORT) as store:
        for user in range(1_001, 1_401):  # the connections of every lane are up
            await enter(store, place(1, user=user))
        client.flushall()
        await recovered(store)
        before = evaluations(client)
        server.pause()
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for user in range(1, 301):
                nursery.start_soon(unavailable, store, 10, user)
        assert trio.current_time() - begun < 10  # not the driver's ten retries
        await wait_until(lambda: not store.healthy)
        assert await unavailable(store)
        server.resume()
        await recovered(store)
        assert evaluations(client) > before  # it has read what was sent, and refused to act on it
        assert client.keys("im:user:*") == []
        await enter(store, place(11))
        await wait_until(lambda: client.exists("im:user:conn:1001"))
        assert store.statistics()["waiting"] == 0


async def test_t37_killed_and_restarted_empty(server: RedisServer, thread: AsyncioThread) -> None:
    mine = place(10)
    async with open_store(server, thread, "node-1") as store:
        await store.claim(mine, MULTI)
        server.kill()
        assert "Redis" in await unavailable(store)
        for operation in (store.lookup([1001]), store.renew([mine]), store.release(place(11))):
            with trio.fail_after(PATIENCE), pytest.raises(StoreUnavailable):
                await operation
        await wait_until(lambda: not store.healthy)
        server.start()
        await recovered(store)
        assert list(await store.renew([mine])) == [mine]
        assert await store.claim(mine, MULTI) == []
        assert await conn_ids(store) == [10]  # its node is known to be alive again, too


@pytest.mark.parametrize("how", ["flushed", "restarted", "disconnected"])
async def test_t37_what_nobody_asked_it_meanwhile_is_noticed(
    server: RedisServer, thread: AsyncioThread, how: str
) -> None:
    async with open_store(server, thread, "node-1") as store:
        match how:
            case "flushed":
                server.client().flushall()
            case "restarted":
                server.restart()
            case _:
                server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await recovered(store)
        assert server.client().exists("im:node:node-1")


async def test_t37_idle_connections_that_were_closed_cost_no_operation(
    server: RedisServer, thread: AsyncioThread
) -> None:
    async with open_store(server, thread, "node-1") as store:
        for i in range(1, 21):
            assert await store.claim(place(i, user=i), MULTI) == []
            assert await conn_ids(store, i) == [i]
            server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await trio.sleep(0.01)  # the news has reached the thread


async def test_t37_read_only(server: RedisServer, thread: AsyncioThread) -> None:
    client = server.client()
    async with open_store(server, thread, "node-1") as store:
        await store.claim(place(10), MULTI)
        client.replicaof("127.0.0.1", str(free_port()))
        assert await unavailable(store, 11)
        await wait_until(lambda: not store.healthy)
        assert "READONLY" in (reason := await unavailable(store, 11)) or "read only" in reason
        assert await conn_ids(store) == [10]  # messages still find who is here
        client.replicaof("NO", "ONE")
        await recovered(store)
        assert [each.conn_id for each in await store.claim(place(11), MULTI) or []] == [10]


async def test_t37_full(server: RedisServer, thread: AsyncioThread) -> None:
    client = server.client()
    async with open_store(server, thread, "node-1") as store:
        await store.claim(place(10), MULTI)
        client.config_set("maxmemory", "1")
        assert await unavailable(store, 11)
        await wait_until(lambda: not store.healthy)
        assert await conn_ids(store) == [10]
        assert await store.release(place(10))  # this makes room
        client.config_set("maxmemory", "0")
        await recovered(store)
        assert await store.claim(place(11), MULTI) == []


async def test_t37_releases_that_could_not_be_done_are_done_when_it_is_back(
    server: RedisServer, thread: AsyncioThread
) -> None:
    client = server.client()
    async with open_store(server, thread, "node-1", timeout=SHORT) as store:
        for user in range(1, 51):
            await enter(store, place(user, user=user))
        await enter(store, place(60, user=60))
        server.pause()

        async def leave(user: int) -> None:
            with pytest.raises(StoreUnavailable):
                await store.release(place(user, user=user))

        async with trio.open_nursery() as nursery:
            for user in range(1, 51):
                nursery.start_soon(leave, user)
        assert store.statistics()["owed"] == 50
        server.resume()
        await wait_until(lambda: not store.statistics()["owed"])
        assert client.keys("im:user:*") == [b"im:user:conn:60"]


async def test_t37_away_when_the_node_starts(server: RedisServer, thread: AsyncioThread) -> None:
    server.kill()
    with trio.fail_after(PATIENCE):
        async with open_store(server, thread, "node-1") as store:
            assert not store.healthy
            assert await unavailable(store)
            server.start()
            await recovered(store)
            assert await store.claim(place(10), MULTI) == []


async def test_t37_what_waits_is_bounded(server: RedisServer, thread: AsyncioThread) -> None:
    async with open_store(server, thread, "node-1", timeout=5.0) as store:
        server.pause()
        outcomes: list[str] = []

        async def look() -> None:
            try:
                await store.lookup(range(1, 501))
            except StoreUnavailable as error:
                outcomes.append(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(look)
            with trio.fail_after(PATIENCE):
                while not outcomes:
                    await trio.sleep(0.01)
            assert "too many" in outcomes[0]  # at once, and long before the time limit
            server.resume()
        assert store.statistics()["waiting"] == 0


async def test_t37_something_else_answers_on_its_port(server: RedisServer, thread: AsyncioThread) -> None:
    async def reply(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def silence(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some():
                pass

    for behave in (reply, silence):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, behave, 0)
            port = listeners[0].socket.getsockname()[1]
            async with open_store(server, thread, "node-1", port=port, timeout=SHORT) as store:
                assert not store.healthy
                assert await unavailable(store)
            nursery.cancel_scope.cancel()


async def test_a_server_clock_that_jumps_costs_no_operation(server: RedisServer, thread: AsyncioThread) -> None:
    async with open_store(server, thread, "node-1") as store:
        now = trio.current_time()
        store.servers._shards[None]._clock.learn(0, now, now)  # as if it had been 1970 there a moment ago
        assert await store.claim(place(10), MULTI) == []
        assert await conn_ids(store) == [10]


def test_a_server_clock_is_never_taken_to_be_earlier_than_it_is() -> None:
    clock = ServerClock()
    with pytest.raises(StoreUnavailable):
        clock.deadline(1.0)
    for server_ms, asked, answered in [(1_000_000, 0.0, 0.5), (1_000_600, 0.6, 0.7), (1_001_000, 1.0, 1.9)]:
        clock.learn(server_ms, asked, answered)
        assert clock.deadline(answered) <= server_ms + 1_000 * (answered - asked)
    assert clock.deadline(10.0) == 1_009_880  # the closest answer counts, less the margin
    clock.learn(5_000, 2.0, 2.1)  # it was set back
    assert clock.deadline(10.0) <= 13_000


# -- credentials ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "works"),
    [
        ({"password": "for default"}, True),
        ({"user": "gate", "password": "p@ss/word:1", "db": 3}, True),
        ({"url": "redis://gate:p%40ss%2Fword%3A1@127.0.0.1:{port}/3"}, True),
        ({"password": "wrong"}, False),
        ({}, False),
        ({"user": "looker", "password": "looks"}, False),
        ({"password": "for default", "db": 9999}, False),
    ],
    ids=["password", "user", "url", "wrong", "none", "may-not", "no-such-db"],
)
async def test_who_may(server: RedisServer, thread: AsyncioThread, settings: dict[str, Any], works: bool) -> None:
    client = server.client()
    client.execute_command(
        *("ACL", "SETUSER", "gate", "on", ">p@ss/word:1", "~im:*", "+@read", "+@write", "+@connection"),
        *("+@scripting", "+time", "-@dangerous", "-keys"),
    )
    client.execute_command("ACL", "SETUSER", "looker", "on", ">looks", "~im:*", "+@read", "+@connection", "+time")
    client.config_set("requirepass", "for default")
    if "url" in settings:
        settings = {"url": settings["url"].format(port=server.port)}
    async with open_store(server, thread, "node-1", **settings) as store:
        assert store.healthy == works
        if works:
            assert await store.claim(place(10), MULTI) == []
            assert await conn_ids(store) == [10]
        else:
            reason = await unavailable(store)
            assert reason
            assert "wrong" not in reason
