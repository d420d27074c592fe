"""Threats 27, 37 and 41 at the node: what Redis and other nodes do to it, and what clients try to do to Redis."""

from __future__ import annotations

import ast
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.dev_keys import development_key, issue_token
from gateway.backends.memory import MemoryBus
from gateway.backends.redis_values import Keys
from gateway.client import connect
from gateway.core.settings import LoginSettings
from gateway.logic.push import Push
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage
from gateway.protocol.subjects import Subjects
from tests.backends.redis_world import PATIENCE, conn_ids, open_store, record, wait_until
from tests.backends.test_redis_nodes import Wire, open_on_redis, refused
from tests.cli.running import node
from tests.support.peer import Peer
from tests.support.redis_server import RedisServer, free_port, redis_server
from tests.support.world import World

GATEWAY = Path(__file__).parents[2] / "gateway"
HEARTBEAT = b"\0\0\0\0\0\0"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


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


async def answers(peer: Peer) -> None:
    """A seated connection is served as ever."""
    await peer.send_bytes(HEARTBEAT)
    with trio.fail_after(PATIENCE):
        assert await peer.frame() is not None


# -- 27: names -------------------------------------------------------------------------------------------------

SCRIPTS = ("backends/redis_scripts.py", "logic/store_redis_scripts.py", "logic/store_redis_pruning.py")
"""All the Lua there is."""
SOURCES = sorted(GATEWAY.rglob("*.py"))


def test_t27_no_command_walks_the_whole_database() -> None:
    walking = re.compile(r"""["'](KEYS|FLUSHALL|FLUSHDB|RANDOMKEY|SORT)["']""")
    for path in SOURCES:
        assert not walking.search(path.read_text()), path
    scanning = [path.name for path in SOURCES if re.search(r"""["']SCAN["']""", path.read_text())]
    assert scanning == ["redis_lanes.py"]  # which looks at a few hundred at a time


def test_t27_no_lua_is_built_from_strings() -> None:
    """Every script is one constant; what varies travels as keys and arguments. And nothing else reaches EVAL."""
    for name in SCRIPTS:
        tree = ast.parse((GATEWAY / name).read_text())
        assert not [each for each in ast.walk(tree) if isinstance(each, ast.JoinedStr)], f"an f-string in {name}"
        for call in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id in ("script", "_script"):
                assert isinstance(call.args[0], ast.Constant), f"{name}:{call.lineno} is no constant"
                assert not re.search(r"\bload(string)?\s*\(", str(call.args[0].value))
    made = [path for path in SOURCES if re.search(r"\bScript\(\w", path.read_text())]
    assert {str(path.relative_to(GATEWAY)) for path in made} <= set(SCRIPTS)
    evaluating = [path.name for path in SOURCES if re.search(r"""["']EVAL(SHA)?["']""", path.read_text())]
    assert evaluating == ["redis_link.py"]


@pytest.mark.parametrize("bad", ["", "a:b", "{a}", "a{b}c", "a b", "a\r\nDEL x", "a\0", "é", "*", "a" * 65])
def test_t27_no_key_is_made_of_a_name_that_is_none(bad: str) -> None:
    keys = Keys("im")
    making: list[Callable[[], bytes]] = [lambda: keys.node(bad), lambda: keys.session(bad)]
    for make in making:
        with pytest.raises(ValueError, match="must be 1 to 64 characters"):
            make()
    with pytest.raises(ValueError, match="prefix must be"):
        Keys(bad)
    numbers: list[Any] = [0, -1, 2**63, "1:{x}"]
    for number in numbers:
        for of_user in (keys.user, keys.user_sessions, partial(keys.seen, msg_id="m")):
            with pytest.raises(ValueError, match="user id must be"):
                of_user(number)


# -- 37: Redis away, slow, read-only, full ---------------------------------------------------------------------


class Trouble:
    """One thing that may be the matter with Redis, and its end."""

    def __init__(self, kind: str, server: RedisServer, wire: Wire) -> None:
        self.kind = kind
        self._server = server
        self._wire = wire

    def begin(self) -> None:
        client = self._server.client()
        match self.kind:
            case "down":
                self._server.kill()
            case "stopped":
                self._server.pause()
            case "slow":
                self._wire.delay = 3.0
            case "read-only":
                client.replicaof("127.0.0.1", str(free_port()))
            case "full":
                client.config_set("maxmemory", "1")
            case "cut off":
                self._wire.break_off()

    def end(self) -> None:
        match self.kind:
            case "down":
                self._server.start()
            case "stopped":
                self._server.resume()
            case "slow":
                self._wire.delay = 0.0
                self._wire.break_off()  # what is still on its way is of no use
                self._wire.cut = False
            case "read-only":
                self._server.client().replicaof("NO", "ONE")
            case "full":
                self._server.client().config_set("maxmemory", "0")
            case "cut off":
                self._wire.cut = False


async def written_again(world: World, server: RedisServer, users: int) -> None:
    """Everybody is in Redis, as often as it takes there, and found."""
    await wait_until(lambda: world.hub.locations.healthy)
    await wait_until(lambda: len(server.client().keys("im:user:conn:*")) == users)
    await wait_until(lambda: len(server.client().keys("im:session:*")) == users)


@pytest.mark.parametrize("kind", ["down", "stopped", "slow", "read-only", "full", "cut off"])
async def test_t37_whatever_is_the_matter_with_redis(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus, kind: str
) -> None:
    """Seated sessions stay, new logins fail with 4104 within the limit, and all is written again when it is over."""
    wire = Wire(server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(wire.run)
        async with open_on_redis(wire.port, thread, bus, "node-1", timeout=2.0) as world:
            peers = [await world.seated(user) for user in range(1, 11)]
            await written_again(world, server, 10)
            trouble = Trouble(kind, server, wire)
            trouble.begin()
            with trio.fail_after(10):  # a second, and what a busy machine adds: no driver's retries
                assert await refused(world, 1001) == Code.AUTH_UNAVAILABLE
            await wait_until(lambda: not world.hub.locations.healthy)
            with trio.fail_after(10):
                assert await refused(world, 1002) == Code.AUTH_UNAVAILABLE  # at once: it is known by now
            for peer in peers:
                await answers(peer)
            trouble.end()
            if kind != "down":
                server.client().flushall()  # the worst that may have become of it
            await written_again(world, server, 10)
            assert set(await world.hub.locations.lookup(range(1, 11))) == set(range(1, 11))
            peers.append(await world.seated(1001))
            for peer in peers:
                await answers(peer)
            assert world.hub.metrics.sessions == 11
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["down", "read-only", "full"])
async def test_t37_logins_are_admitted_locally_where_that_is_configured(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus, kind: str
) -> None:
    login = LoginSettings(admit_without_store=True, backend_timeout=PATIENCE)
    wire = Wire(server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(wire.run)
        async with open_on_redis(wire.port, thread, bus, "node-1", timeout=2.0, login=login) as world:
            trouble = Trouble(kind, server, wire)
            trouble.begin()
            peers = [await world.seated(user) for user in (1, 2, 3)]
            await wait_until(lambda: not world.hub.locations.healthy)
            peers.append(await world.seated(4))
            trouble.end()
            await written_again(world, server, 4)
            for peer in peers:
                await answers(peer)
        nursery.cancel_scope.cancel()


# -- 41: kill -9 -----------------------------------------------------------------------------------------------


class Recorder:
    """What is sent to whom on the way to nodes."""

    def __init__(self, bus: MemoryBus) -> None:
        self.nodes: list[str] = []
        bus.subscribe("im.access.*.downstream", lambda subject, _: self.nodes.append(subject.split(".")[2]))


async def test_t41_a_node_killed_with_minus_nine(
    server: RedisServer, thread: AsyncioThread, bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locations count for nothing when its entry is over, 15 s later; nothing more is sent to its connections,
    also not when it is there again under its name; its users are reachable as soon as they are back."""
    monkeypatch.setattr("gateway.backends.redis_locations.NODE_FRESH", 0.0)
    client = server.client()
    redis = {"GATEWAY_REDIS__PORT": str(server.port), "GATEWAY_NODE_ID": "node-2"}
    sent = Recorder(bus)
    async with open_store(server, thread, says=partial(record, "node-1")) as locations:
        push = Push(bus, locations, Subjects())
        message = ChatMessage(msg_id="m", to_user=1001, content="x")
        async with node("run", cwd=tmp_path, **redis) as doomed:
            ready: dict[str, Any] = await doomed.event("serving")
            token = issue_token(development_key(tmp_path / ".gateway"), 1001)
            async with connect(f"tcp://{ready['tcp']}", token=token, device_id="phone"):
                (stale,) = await conn_ids(locations)
                assert await push(1001, message) == 1
                doomed.signal(signal.SIGKILL)
                await doomed.ended()
        assert client.hexists("im:user:conn:1001", "phone")
        assert client.get("im:node:node-2")
        assert client.pttl("im:node:node-2") <= 15_000  # nobody renews it
        client.pexpire("im:node:node-2", 1)  # 15 s later
        await wait_until(lambda: not client.exists("im:node:node-2"))
        sent.nodes.clear()
        assert await locations.lookup([1001]) == {}
        assert await push(1001, message) == 0
        async with node("run", cwd=tmp_path, **redis) as successor:
            ready = await successor.event("serving")
            await wait_until(lambda: bool(client.exists("im:node:node-2")))
            assert client.hexists("im:user:conn:1001", "phone")
            assert await push(1001, message) == 0  # it is another start's
            assert sent.nodes == []
            async with connect(f"tcp://{ready['tcp']}", token=token, device_id="phone"):
                (newest,) = await conn_ids(locations)
                assert newest > stale
                assert await push(1001, message) == 1
                await wait_until(lambda: sent.nodes == ["node-2"])
