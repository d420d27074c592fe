"""Nodes on one Redis: policies hold between them, and sessions and locations outlive its outages (24, 37, 41, 42)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.memory import MemoryBus
from gateway.backends.redis_locations import RedisLocationStore
from gateway.backends.redis_sessions import RedisSessionStore
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import LoginPolicy
from gateway.core.settings import LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse, Kick
from tests.backends.redis_world import LENIENT, PATIENCE, conn_ids, wait_until
from tests.support.node import open_running
from tests.support.peer import Peer
from tests.support.redis_server import RedisServer, redis_server
from tests.support.world import World, open_world


@pytest.fixture(scope="module")
def one() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(one: RedisServer) -> Iterator[RedisServer]:
    """A running server with nothing in it."""
    try:
        yield one
    finally:
        one.restart()


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with trio.open_nursery() as nursery:
        bus = MemoryBus()
        await nursery.start(bus.run)
        yield bus
        nursery.cancel_scope.cancel()


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


@asynccontextmanager
async def open_on_redis(
    port: int, thread: AsyncioThread, bus: MemoryBus, node: str, *, timeout: float = LENIENT, **settings: Any
) -> AsyncIterator[World]:
    """One node whose locations are in Redis."""
    settings.setdefault("login", LoginSettings(backend_timeout=PATIENCE))
    store = RedisLocationStore(RedisSettings(port=port, timeout=timeout), thread)
    async with trio.open_nursery() as nursery:
        sessions = RedisSessionStore(store.servers)
        async with open_world(
            bus=bus, locations=store, sessions=sessions, node_id=node, logic=False, **settings
        ) as world:
            await nursery.start(store.run, world.hub.record)
            yield world
        nursery.cancel_scope.cancel()


async def kicked(peer: Peer) -> int:
    """The code that a connection is closed with, within a second or so."""
    with trio.fail_after(PATIENCE):
        said = await peer.closed()
    return next(each.code for each in said if isinstance(each, Kick))


async def refused(world: World, user: int) -> int:
    """The code that a login is refused with."""
    peer = await world.connect()
    with trio.fail_after(PATIENCE):
        await peer.send(AuthRequest(token=str(user), device_id="phone", platform="ios"))
        return (await peer.receive(AuthResponse)).code


async def test_a_login_displaces_across_nodes(server: RedisServer, thread: AsyncioThread, bus: MemoryBus) -> None:
    login = LoginSettings(policy=LoginPolicy.SINGLE_DEVICE, backend_timeout=PATIENCE)
    async with (
        open_on_redis(server.port, thread, bus, "node-1", login=login) as first,
        open_on_redis(server.port, thread, bus, "node-2", login=login) as second,
    ):
        phone = await first.seated(1001, "phone")
        again = await second.seated(1001, "phone")
        assert await kicked(phone) == Code.REPLACED_BY_SAME_DEVICE
        tablet = await first.seated(1001, "tablet")
        assert await kicked(again) == Code.KICKED_BY_POLICY
        (location,) = (await second.hub.locations.lookup([1001]))[1001]
        assert (location.access_node, location.device_id) == ("node-1", "tablet")
        await tablet.hang_up()
        await wait_until(lambda: not first.hub.registry.users())
        assert await conn_ids(first.hub.locations) == []


async def test_t24_200_racing_logins_on_two_nodes_leave_one_connection_and_one_location(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus
) -> None:
    async with (
        open_on_redis(server.port, thread, bus, "node-1") as first,
        open_on_redis(server.port, thread, bus, "node-2") as second,
    ):
        worlds = [first, second]

        async def race(number: int) -> None:
            peer = await worlds[number % 2].connect()
            await peer.send(AuthRequest(token="1001", device_id="phone", platform="ios"))

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(race, number)
        await wait_until(lambda: sum(world.hub.metrics.closed[Code.REPLACED_BY_SAME_DEVICE] for world in worlds) == 199)
        ((seated,),) = (world.hub.registry.of_user(1001) for world in worlds if world.hub.registry.of_user(1001))
        assert await conn_ids(first.hub.locations) == [seated.id]
        assert sum(world.hub.admission.open for world in worlds) == 1


@pytest.mark.parametrize("how", ["flushed", "restarted", "killed"])
async def test_t37_locations_are_written_again_at_once(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus, how: str
) -> None:
    """Not at the next renewal, which is half a minute away."""
    users = range(1, 101)
    async with open_on_redis(server.port, thread, bus, "node-1") as world:
        peers = [await world.seated(user) for user in users]
        match how:
            case "flushed":
                server.client().flushall()
            case "restarted":
                server.restart()
            case _:
                server.kill()
                await wait_until(lambda: not world.hub.locations.healthy)
                assert await refused(world, 7_777) == Code.AUTH_UNAVAILABLE
                server.start()
        client = server.client()
        await wait_until(lambda: len(client.keys("im:user:conn:*")) == len(users))
        assert set(await world.hub.locations.lookup(users)) == set(users)
        assert world.hub.metrics.sessions == len(users)
        for peer in peers:
            await peer.hang_up()
        await wait_until(lambda: client.keys("im:user:conn:*") == [])


async def test_t37_stopped_it_costs_no_session_and_logins_are_refused_in_time(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus
) -> None:
    async with open_on_redis(server.port, thread, bus, "node-1", timeout=2.0) as world:
        peer = await world.seated(1001)
        server.pause()
        assert await refused(world, 1002) == Code.AUTH_UNAVAILABLE
        await peer.send_bytes(b"\0\0\0\0\0\0")
        with trio.fail_after(PATIENCE):
            assert await peer.frame() is not None
        await wait_until(lambda: not world.hub.locations.healthy)
        server.resume()
        await wait_until(lambda: world.hub.locations.healthy)
        await world.seated(1002)
        assert world.hub.metrics.sessions == 2
        assert len(await conn_ids(world.hub.locations, 1002)) == 1


async def test_t37_where_configured_logins_are_admitted_while_it_is_away(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus
) -> None:
    login = LoginSettings(admit_without_store=True, backend_timeout=PATIENCE)
    async with open_on_redis(server.port, thread, bus, "node-1", login=login) as world:
        server.kill()
        older = await world.seated(1001, "phone")
        await world.seated(1001, "tablet")
        await world.seated(1001, "phone")
        assert await kicked(older) == Code.REPLACED_BY_SAME_DEVICE  # the policy holds here
        await wait_until(lambda: not world.hub.locations.healthy)
        server.start()
        await wait_until(lambda: len(server.client().hgetall("im:user:conn:1001")) == 2)
        seated = sorted(each.id for each in world.hub.registry.of_user(1001))
        assert await conn_ids(world.hub.locations) == seated
        assert len(seated) == 2


class Wire:
    """A way to the server that can be cut, or slow."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._scopes: set[trio.CancelScope] = set()
        self.cut = False
        self.delay = 0.0
        """Seconds by which everything comes later."""
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._join, 0)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    def break_off(self) -> None:
        self.cut = True
        for scope in self._scopes:
            scope.cancel()

    async def _join(self, near: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            async with near:
                if self.cut:
                    return
                try:
                    far = await trio.open_tcp_stream("127.0.0.1", self._server)
                except OSError:
                    return  # the server is away
                async with far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, near, far, scope)
                    nursery.start_soon(self._copy, far, near, scope)
        self._scopes.discard(scope)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                if self.delay:
                    await trio.sleep(self.delay)
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()


async def test_t42_cut_off_from_redis_a_node_serves_on_and_gives_way_when_it_is_back(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus
) -> None:
    wire = Wire(server.port)
    alone = MemoryBus()  # it is cut off from the others altogether
    async with trio.open_nursery() as nursery:
        await nursery.start(alone.run)
        await nursery.start(wire.run)
        async with (
            open_on_redis(wire.port, thread, alone, "node-1") as first,
            open_on_redis(server.port, thread, bus, "node-2") as second,
        ):
            moved, stays = await first.seated(1001), await first.seated(1002)
            wire.break_off()
            await wait_until(lambda: not first.hub.locations.healthy)
            newest = await second.seated(1001)
            await moved.send_bytes(b"\0\0\0\0\0\0")
            with trio.fail_after(PATIENCE):
                assert await moved.frame() is not None
            wire.cut = False
            assert await kicked(moved) == Code.REPLACED_BY_SAME_DEVICE
            (seated,) = second.hub.registry.of_user(1001)
            assert await conn_ids(second.hub.locations) == [seated.id]
            assert len(await conn_ids(second.hub.locations, 1002)) == 1
            for peer in (stays, newest):
                await peer.send_bytes(b"\0\0\0\0\0\0")
                with trio.fail_after(PATIENCE):
                    assert await peer.frame() is not None
        nursery.cancel_scope.cancel()


async def test_a_whole_node_by_configuration(server: RedisServer, tmp_path: Path) -> None:
    """From `redis.port` to the location in Redis; nothing is left open afterwards."""
    server.client().ping()  # its own connection is no leak
    async with open_running(tmp_path, redis=RedisSettings(port=server.port, timeout=2.0)) as running:
        assert running.node.not_ready() == ""
        peer = await running.seated(1001)
        (node,) = server.client().keys("im:node:*")
        assert node == b"im:node:node-1"
        address = running.node.addresses["tcp"].encode()
        await wait_until(lambda: b'"endpoints":["tcp://%s"]' % address in server.client().get(node))
        assert await conn_ids(running.hub.locations) == [each.id for each in running.hub.registry.of_user(1001)]
        server.pause()
        await wait_until(lambda: running.node.not_ready() == "the location store cannot be reached")
        server.resume()
        await wait_until(lambda: running.node.not_ready() == "")
        await peer.hang_up()
        await running.node.drain()
        await wait_until(lambda: server.client().keys("im:*") == [])
