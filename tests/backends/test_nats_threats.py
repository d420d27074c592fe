"""Threats 26, 28 and 36 at a whole node and Logic, with everything that NATS hears in sight."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio

from gateway._framing import build_chat, build_upstream, parse_frame
from gateway.backends.dev_keys import development_key
from gateway.backends.settings import BusSettings
from gateway.client import Rejected
from gateway.config import ConfigError, Flag, load
from gateway.console.settings import ConsoleSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse, ChatMessage, MessageAck
from gateway.protocol.types import AckStatus, MsgType
from tests.backends.nats import PATIENCE, running_bus, settings, until
from tests.backends.nats_world import ANNA, BO, Cluster, user
from tests.console.asking import Asker
from tests.contracts.bus import Inbox
from tests.support.nats_server import NatsServer, nats_server
from tests.support.redis_server import redis_server

HOSTILE = ["a\r\nPUB im.x 1\r\na", "a\nb", ">", "*", "a.b", "a b", "a\0b", "", "x" * 65]
HUGE = "x" * 1_000_000


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    folder = tmp_path / "nats"
    folder.mkdir()
    with redis_server() as redis:
        async with nats_server(folder) as nats:
            yield Cluster(nats, redis.port, tmp_path)


class Ear:
    """Hears everything on a server, by hand."""

    def __init__(self, server: NatsServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b'CONNECT {"verbose":false}\r\nSUB > 1\r\nPING\r\n')
        while self._lines.readline() != b"PONG\r\n":
            pass

    def heard(self) -> list[tuple[str, bytes]]:
        """Subjects and payloads since the last look."""
        self._socket.sendall(b"PING\r\n")
        found = []
        while (line := self._lines.readline()) != b"PONG\r\n":
            assert line.startswith(b"MSG "), line
            _, subject, *_, size = line.split()
            found.append((subject.decode(), self._lines.read(int(size) + 2)[:-2]))
        return found

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextlib.contextmanager
def ear(server: NatsServer) -> Iterator[Ear]:
    listening = Ear(server)
    try:
        yield listening
    finally:
        listening.close()


def strange(listening: Ear) -> list[tuple[str, bytes]]:
    """What was heard beside the comings and goings of the two good users."""
    return [each for each in listening.heard() if each[0] not in (f"im.user.{ANNA}.event", f"im.user.{BO}.event")]


async def test_t26_nothing_of_a_clients_hostile_ids_reaches_nats(cluster: Cluster) -> None:
    async with cluster.node("node-1") as node:
        neighbour = await node.seated(BO)
        connections = node.node.bus.statistics().connections  # type: ignore[attr-defined]
        key = development_key(str(cluster.folder))
        with ear(cluster.nats) as listening:
            for bad in HOSTILE:
                claims = {"sub": bad, "exp": int(time.time()) + 60}
                forged = jwt.encode(claims, key.secret, algorithm="HS256", headers={"kid": key.kid})
                tokens = [node.token(ANNA), node.token(ANNA), forged]
                for token, names in zip(tokens, ({"device_id": bad}, {"platform": bad}, {}), strict=True):
                    peer = await node.connect()
                    fields: dict[str, Any] = {"device_id": "phone", "platform": "ios", **names}
                    await peer.send(AuthRequest(token=token, **fields))
                    with trio.fail_after(PATIENCE):
                        (answer,) = await peer.closed()
                    assert isinstance(answer, AuthResponse)
                    assert answer.code in (Code.INVALID_PAYLOAD, Code.TOKEN_INVALID)
                    await peer.hang_up()
            assert strange(listening) == []
            anna = await node.seated(ANNA)
            for bad in HOSTILE[:6]:
                await anna.send(ChatMessage(msg_id=bad, to_user=BO, content="x"))
                with trio.fail_after(PATIENCE):
                    assert (await anna.receive(MessageAck)).code == Code.INVALID_PAYLOAD
            assert strange(listening) == []
            await neighbour.send(ChatMessage(msg_id="good", to_user=ANNA, content="x"))
            with trio.fail_after(PATIENCE):
                assert (await neighbour.receive(MessageAck)).status == AckStatus.ACCEPTED
            await until(lambda: [subject for subject, _ in strange(listening)] == ["im.logic.upstream"])
        assert node.node.bus.statistics().connections == connections  # type: ignore[attr-defined]
        await anna.hang_up()
        await neighbour.hang_up()


@pytest.mark.parametrize("bad", [*HOSTILE, "a:b", "{a}", HUGE])
def test_t26_a_hostile_node_id_is_refused_in_the_configuration(bad: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 64 of the characters") as refusal:
        load(environment={}, flags=[Flag("--node-id", "node_id", bad)])
    assert len(str(refusal.value)) < 500


async def test_t26_a_hostile_node_id_out_of_an_envelope_reaches_no_subject(cluster: Cluster) -> None:
    """Somebody else publishes on our NATS: Logic still makes no subject from what is no name."""
    frame = build_chat(1, 1, "m", 0, BO, "x", 0, 1, 0, 0)
    packet = parse_frame(MsgType.MESSAGE, frame[6:])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(cluster.logic("logic-1"))
        bus = await stack.enter_async_context(running_bus(settings(cluster.nats.url)))
        with ear(cluster.nats) as listening:
            for bad in HOSTILE:
                assert bus.publish("im.logic.upstream", build_upstream(bad, 7, ANNA, "phone", "ios", 1, packet))
            assert bus.publish("im.logic.upstream", build_upstream("node-9", 7, ANNA, "phone", "ios", 1, packet))
            heard: list[str] = []

            def answered() -> bool:
                heard.extend(subject for subject, _ in listening.heard())
                return "im.access.node-9.downstream" in heard

            await until(answered)
        assert [subject for subject in heard if subject != "im.logic.upstream"] == ["im.access.node-9.downstream"]


async def test_t28_a_frame_over_what_nats_takes_is_refused_by_us(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    with redis_server() as redis:
        async with nats_server(folder, "max_payload: 2000") as nats:
            cluster = Cluster(nats, redis.port, tmp_path)
            async with cluster.node("node-1") as node:
                anna, neighbour = await node.seated(ANNA), await node.seated(BO)
                with ear(nats) as listening:
                    await anna.send(ChatMessage(msg_id="big", to_user=BO, content="x" * 5_000))
                    with trio.fail_after(PATIENCE):
                        ack = await anna.receive(MessageAck)
                    assert (ack.msg_id, ack.status, ack.code) == ("big", AckStatus.REJECTED, Code.INVALID_PAYLOAD)
                    for peer in (anna, neighbour):
                        await peer.send(ChatMessage(msg_id="small", to_user=ANNA, content="x"))
                        with trio.fail_after(PATIENCE):
                            assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
                    assert not any(b"xxxx" in payload for _, payload in listening.heard())
                assert node.node.bus.statistics().connections == 1  # type: ignore[attr-defined]
                assert node.hub.metrics.faults == 0
                await anna.hang_up()
                await neighbour.hang_up()


async def test_t36_down_the_bound_is_told_as_4402_alive_and_not_ready_and_all_back_afterwards(
    cluster: Cluster,
) -> None:
    few = BusSettings(max_messages=40)
    console = ConsoleSettings(port=0)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(cluster.node("node-1", bus=few, console=console))
        await stack.enter_async_context(cluster.logic("logic-1"))
        anna, bo = await stack.enter_async_context(user(node, ANNA)), await stack.enter_async_context(user(node, BO))
        ask = Asker(int(node.node.addresses["console"].rpartition(":")[2])).ask
        assert ((await ask("/healthz")).status, (await ask("/readyz")).status) == (200, 200)
        stored = [(await anna.send("before", to_user=BO)) is not None]
        await cluster.nats.kill()
        await until(lambda: node.node.not_ready() == "the bus cannot be reached")
        assert ((await ask("/healthz")).status, (await ask("/readyz")).status) == (200, 503)
        outcomes: list[str] = []

        async def send(number: int) -> None:
            try:
                await anna.send(f"m{number}", to_user=BO, msg_id=f"m{number}", timeout=PATIENCE)
                outcomes.append(f"m{number}")
            except Rejected as rejected:
                outcomes.append("rejected" if rejected.code == Code.UPSTREAM_UNAVAILABLE else f"{rejected.code}")

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(send, number)
            await until(lambda: outcomes.count("rejected") >= 60)
            assert node.hub.metrics.connections == 2
            await cluster.nats.start()
        stored_texts = {text for text in outcomes if text != "rejected"}
        assert stored_texts
        await anna.send("after", to_user=BO)  # what its own small bound made the node drop, Sync brings
        heard: list[str] = []
        with trio.fail_after(PATIENCE):
            while not {"before", "after", *stored_texts} <= set(heard):
                heard.append((await anext(bo)).content)
        assert len(set(heard)) == len(heard)  # a second copy may be Rejected while the first one waits: it arrives
        assert ((await ask("/healthz")).status, (await ask("/readyz")).status) == (200, 200)
        assert stored == [True]
        assert anna.statistics().logins == bo.statistics().logins == 1


async def test_t36_a_slow_server_delays_and_loses_nothing(tmp_path: Path) -> None:
    """It gets a tenth of its time."""
    async with nats_server(tmp_path) as server:
        inbox = Inbox()
        async with running_bus(settings(server.url, ping_timeout=10.0)) as bus, _slowed(server):
            bus.subscribe("im.logic.upstream", inbox)
            with trio.fail_after(PATIENCE):
                await bus.drain()
            for number in range(1_000):
                assert bus.publish("im.logic.upstream", b"%d" % number)
                if number % 50 == 0:
                    await trio.sleep(0.01)
            with trio.fail_after(PATIENCE):
                await bus.drain()
            assert await inbox.wait(1_000) == [b"%d" % number for number in range(1_000)]
            assert bus.healthy
            assert bus.statistics().connections == 1


@asynccontextmanager
async def _slowed(server: NatsServer) -> AsyncIterator[None]:
    async def slow() -> None:
        while True:
            await server.pause()
            await trio.sleep(0.045)
            server.resume()
            await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            server.resume()
