"""What Accepted and Stored promise with `nats.uplink = "jetstream"`, on real servers: docs/cluster.md, line by line."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.client import Client, Rejected
from gateway.config import ConfigError, Flag, load
from gateway.core.books import books
from gateway.logic.settings import STORE_FILE
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, MessageAck
from gateway.protocol.types import AckStatus
from tests.backends.nats import PATIENCE, durable, until
from tests.backends.nats_world import ANNA, BO, Cluster, user
from tests.cli.running import command, environment, gateway
from tests.client.server import take
from tests.support.nats_server import NatsServer, nats_server
from tests.support.node import RunningNode
from tests.support.peer import Peer
from tests.support.redis_server import redis_server

ACCEPTED, STORED, REJECTED = AckStatus.ACCEPTED, AckStatus.STORED, AckStatus.REJECTED


@asynccontextmanager
async def durable_cluster(folder: Path, **stream: Any) -> AsyncIterator[Cluster]:
    nats_folder = folder / "nats"
    nats_folder.mkdir()
    with redis_server() as redis:
        async with nats_server(nats_folder, jetstream=True) as nats:
            yield Cluster(nats, redis.port, folder, durable(nats.url, **stream))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with durable_cluster(tmp_path) as cluster:
        yield cluster


async def acks(peer: Peer, count: int) -> list[MessageAck]:
    with trio.fail_after(PATIENCE):
        return [await peer.receive(MessageAck) for _ in range(count)]


async def say(peer: Peer, *msg_ids: str) -> None:
    for msg_id in msg_ids:
        await peer.send(ChatMessage(msg_id=msg_id, to_user=BO, content=f"about {msg_id}"))


def told(found: list[MessageAck]) -> list[tuple[str, int]]:
    return [(ack.msg_id, ack.status) for ack in found]


async def kept(node: RunningNode, user_id: int = BO) -> list[str]:
    """Everything that a user's timeline holds now, as a new device is given it."""
    async with user(node, user_id, "tablet") as client:
        found: list[str] = []
        with trio.move_on_after(0.5):
            while True:
                found.append((await anext(client)).msg_id)
                assert len(found) < 1_000
        return found


async def timeline(client: Client, count: int) -> list[str]:
    return [each.msg_id for each in await take(client, count)]


def balanced(node: RunningNode) -> None:
    assert all(account.balanced for account in books(node.hub)), books(node.hub)


async def test_accepted_is_kept_while_nobody_consumes_and_arrives_once(cluster: Cluster) -> None:
    async with cluster.node("node-1") as node:
        anna = await node.seated(ANNA)
        names = [f"m{number}" for number in range(50)]
        await say(anna, *names)
        assert told(await acks(anna, 50)) == [(name, ACCEPTED) for name in names]
        async with user(node, BO) as bo, cluster.logic("logic-1"):
            assert await timeline(bo, 50) == names
            assert told(await acks(anna, 50)) == [(name, STORED) for name in names]
            await say(anna, "last")
            assert await timeline(bo, 1) == ["last"]
        balanced(node)
        assert node.hub.metrics.uplink_confirmed == 51
        await anna.hang_up()


async def test_t36_accepted_survives_a_killed_nats_and_arrives_once(cluster: Cluster) -> None:
    async with cluster.node("node-1") as node:
        anna = await node.seated(ANNA)
        names = [f"m{number}" for number in range(20)]
        await say(anna, *names)
        assert told(await acks(anna, 20)) == [(name, ACCEPTED) for name in names]
        await cluster.nats.kill()
        await until(lambda: node.node.not_ready() == "the bus cannot be reached")
        await cluster.nats.start()
        await until(lambda: not node.node.not_ready())
        await say(anna, *names, "new")  # a client that has not heard Stored sends them again
        assert told(await acks(anna, 21)) == [(name, ACCEPTED) for name in [*names, "new"]]
        assert node.hub.metrics.uplink_repeated == 20
        async with user(node, BO) as bo, cluster.logic("logic-1"):
            assert await timeline(bo, 21) == [*names, "new"]
            await say(anna, "last")
            assert await timeline(bo, 1) == ["last"]
        balanced(node)
        await anna.hang_up()


@asynccontextmanager
async def logic_process(cluster: Cluster, name: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """`python -m gateway logic`; killed at the end."""
    stream = cluster.sections["nats"].stream
    words = [
        *("--set", f"nats.servers={cluster.nats.url}", "--set", f"redis.port={cluster.sections['redis'].port}"),
        *("--set", "nats.uplink=jetstream", "--data-dir", str(cluster.folder), "--log-format", "json"),
        *("--set", f"nats.stream.max_bytes={stream.max_bytes}", "--set", f"nats.stream.ack_wait={stream.ack_wait}"),
    ]
    log = cluster.folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220
            command("logic", *words), cwd=cluster.folder, env=environment(), stdin=subprocess.DEVNULL, stderr=output
        )
    try:
        await until(lambda: b"bus_connected" in log.read_bytes())
        yield process
    finally:
        process.kill()
        process.wait()


async def test_logic_killed_between_receive_and_store_then_another_stores_it_once(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(cluster.node("node-1"))
        anna, bo = await node.seated(ANNA), await stack.enter_async_context(user(node, BO))
        names = [f"m{number}" for number in range(20)]
        first = await stack.enter_async_context(logic_process(cluster, "logic-1"))
        await say(anna, "before")
        assert told(await acks(anna, 2)) == [("before", ACCEPTED), ("before", STORED)]
        with closing(sqlite3.connect(cluster.folder / STORE_FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # it has received them and cannot store them
            await say(anna, *names)
            assert told(await acks(anna, 20)) == [(name, ACCEPTED) for name in names]
            await until(lambda: _unsettled(cluster.nats) == 20)
            first.kill()
            other.execute("ROLLBACK")
        await stack.enter_async_context(cluster.logic("logic-2"))
        assert sorted(told(await acks(anna, 20))) == sorted((name, STORED) for name in names)
        assert sorted(await timeline(bo, 21)) == sorted(["before", *names])  # in what order they come again is NATS's
        assert sorted(await kept(node)) == sorted(["before", *names])
        await until(lambda: _unsettled(cluster.nats) == 0)
        await anna.hang_up()


def _unsettled(server: NatsServer) -> int:
    """What the consumer has handed out and nobody settled, as the server says."""
    return int(server.consumer("im-durable", "logic-group").get("num_ack_pending", -1))


async def test_t36_a_full_stream_is_told_as_4402_and_has_room_again(tmp_path: Path) -> None:
    async with durable_cluster(tmp_path, max_messages=5) as cluster, cluster.node("node-1") as node:
        async with user(node, ANNA) as anna:
            for number in range(5):
                receipt = await anna.send("x", to_user=BO, msg_id=f"m{number}", wait="accepted")
                assert receipt is not None
                assert receipt.status is ACCEPTED
            with pytest.raises(Rejected) as rejected:
                await anna.send("x", to_user=BO, msg_id="m5", wait="accepted")
            assert rejected.value.code == Code.UPSTREAM_UNAVAILABLE
            assert node.hub.metrics.uplink_refused == 1
            async with cluster.logic("logic-1"), user(node, BO) as bo:
                assert await timeline(bo, 5) == [f"m{number}" for number in range(5)]
                receipt = None
                with trio.fail_after(PATIENCE):
                    while receipt is None:  # Logic's word that they are settled is on its way
                        with contextlib.suppress(Rejected):
                            receipt = await anna.send("x", to_user=BO, msg_id="m5")
                assert receipt.status is STORED
                assert await timeline(bo, 1) == ["m5"]
        balanced(node)


async def test_t36_no_word_in_time_is_4402_and_sending_again_is_safe(tmp_path: Path) -> None:
    async with durable_cluster(tmp_path, confirm_timeout=0.5) as cluster, AsyncExitStack() as stack:
        node = await stack.enter_async_context(cluster.node("node-1"))
        await stack.enter_async_context(cluster.logic("logic-1"))
        anna, bo = await node.seated(ANNA), await stack.enter_async_context(user(node, BO))
        await cluster.nats.pause()
        names = ["m0", "m1", "m2"]
        await say(anna, *names)
        found = await acks(anna, 3)
        assert [(ack.msg_id, ack.status, ack.code) for ack in found] == [
            (name, REJECTED, Code.UPSTREAM_UNAVAILABLE) for name in names
        ]
        assert node.hub.metrics.uplink_unknown == 3  # they were written: the server may have them, and here it does
        cluster.nats.resume()
        await until(lambda: not node.node.not_ready())
        await say(anna, *names)
        heard: set[tuple[str, int]] = set()
        with trio.fail_after(PATIENCE):
            while not {(name, STORED) for name in names} <= heard:
                heard |= set(told(await acks(anna, 1)))
        assert await timeline(bo, 3) == names
        assert sorted(await kept(node)) == names
        balanced(node)
        await anna.hang_up()


async def test_a_repeated_message_is_answered_again_wherever_it_comes_from(cluster: Cluster) -> None:
    """The stream knows it and Logic is done with it: its sender is told Stored all the same, on a new connection."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(cluster.node("node-1"))
        second = await stack.enter_async_context(cluster.node("node-2"))
        await stack.enter_async_context(cluster.logic("logic-1"))
        bo = await stack.enter_async_context(user(second, BO))
        for node in (first, second, first):
            anna = await node.seated(ANNA)
            await say(anna, "m1")
            assert sorted(told(await acks(anna, 2))) == [("m1", ACCEPTED), ("m1", STORED)]
            await anna.hang_up()
        assert await timeline(bo, 1) == ["m1"]
        assert await kept(second) == ["m1"]
        assert first.hub.metrics.uplink_confirmed == 1
        assert first.hub.metrics.uplink_repeated == second.hub.metrics.uplink_repeated == 1


async def test_an_outage_of_the_store_rejects_nothing_that_was_accepted(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(cluster.node("node-1"))
        await stack.enter_async_context(cluster.logic("logic-1"))
        anna, bo = await node.seated(ANNA), await stack.enter_async_context(user(node, BO))
        await say(anna, "before")
        assert told(await acks(anna, 2)) == [("before", ACCEPTED), ("before", STORED)]
        names = [f"m{number}" for number in range(10)]
        with closing(sqlite3.connect(cluster.folder / STORE_FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await say(anna, *names)
            assert told(await acks(anna, 10)) == [(name, ACCEPTED) for name in names]
            with trio.move_on_after(2.5):  # longer than `ack_wait`
                await anna.frame()
                raise AssertionError("nothing is to be said while the store is away")
            other.execute("ROLLBACK")
        assert told(await acks(anna, 10)) == [(name, STORED) for name in names]
        assert await timeline(bo, 11) == ["before", *names]
        await anna.hang_up()


async def test_a_node_that_leaves_waits_for_the_streams_word(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        second = await stack.enter_async_context(cluster.node("node-2"))
        async with cluster.node("node-1") as node:
            anna = await node.seated(ANNA)
            names = [f"m{number}" for number in range(300)]
            await say(anna, *names)
            await until(lambda: node.hub.metrics.uplink_asked == 300)
            with trio.fail_after(PATIENCE):
                await node.node.bus.drain()
            assert node.hub.metrics.uplink_waiting == 0
            assert node.hub.metrics.uplink_confirmed == 300
            await anna.hang_up()
        await stack.enter_async_context(cluster.logic("logic-1"))
        bo = await stack.enter_async_context(user(second, BO))
        assert await timeline(bo, 300) == names


async def test_without_jetstream_it_says_so_in_one_line_and_ends(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    async with nats_server(folder) as nats:
        words = [
            *("--set", f"nats.servers={nats.url}", "--set", "redis.port=1", "--set", "nats.uplink=jetstream"),
            *("--set", "nats.connect_timeout=20", "--set", "nats.ping_timeout=20"),  # a busy machine is no reason
        ]
        ports = ["--tcp-port", "0", "--websocket-port", "0", "--quic-port", "0", "--console-port", "0"]
        done = await gateway("run", *words, *ports, "--log-level", "error", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert 'nats.uplink: "jetstream" needs JetStream' in line
    assert nats.url in line
    assert "-js" in line


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nats.uplink": "jetstream"}, r'nats\.uplink: "jetstream" needs nats\.servers'),
        ({"nats.stream.name": "a.b"}, r"nats\.stream\.name: must be 1 to 64 of the characters"),
        (
            {"nats.stream.max_age": "60"},
            r"120 must be at most nats\.stream\.max_age, 60",
        ),
        ({"nats.uplink": "kafka"}, r"nats\.uplink"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(values: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refusal:
        load(environment={}, flags=[Flag(f"--set {name}", name, text) for name, text in values.items()])
    assert len(refusal.value.problems) == 1
