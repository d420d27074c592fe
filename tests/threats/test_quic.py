"""Threats 1, 2, 5, 44, 46 on the UDP port: silence, half a handshake, disorder of streams, bugs, churn.

Those that look the same on every link are beside the others' (T03 to T06, T34, T35, T39, T44, T45); the endpoint's own
(T11 to T21) are its transport's tests, and in `test_storms` what of them somebody with a session can do.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.core.lanes import LanedConnection
from gateway.core.link import Lane
from gateway.core.settings import LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, MessageAck
from gateway.protocol.types import AckStatus
from gateway.transports.quic.link import QuicLink
from gateway.transports.quic.statistics import QuicStatistics
from tests.support.node import PATIENCE, RunningNode, neighbour, open_running
from tests.support.peer import Peer
from tests.support.quic_peer import QuicClient, start_quic

QUICK = LoginSettings(link_timeout=0.4, auth_timeout=0.4)
HURRIED = {"handshake_timeout": 0.4}


def statistics(running: RunningNode) -> QuicStatistics:
    assert running.node._quic is not None
    return running.node._quic.endpoint.statistics()


async def wait_until(running: RunningNode, connections: int) -> None:
    with trio.fail_after(PATIENCE):
        while statistics(running).connections != connections or statistics(running).half_open:
            await trio.sleep(0.01)


def bare() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def address(running: RunningNode) -> tuple[str, int]:
    host, _, port = running.node.addresses["quic"].rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("start", [b"", b"\x00", b"\xff" * 1200, b"\x40" + b"x" * 60, b"GET / HTTP/1.1\r\n\r\n"])
async def test_t01_what_is_no_quic_costs_nothing(tmp_path: Path, start: bytes) -> None:
    async with open_running(tmp_path, "quic") as running, neighbour(running):
        with bare() as sock:
            for _ in range(50):
                sock.sendto(start, address(running))
        with trio.fail_after(PATIENCE):
            while sum(statistics(running).dropped.values()) + statistics(running).version_negotiations < 50:
                if not start:
                    break  # nothing to count in an empty datagram
                await trio.sleep(0.01)
        assert statistics(running).connections == 1
        assert statistics(running).accepted == 1


async def test_t01_half_a_handshake_is_forgotten_in_time(tmp_path: Path) -> None:
    """First packets whose senders then hear nothing; a client that goes on sending them wins no time."""
    async with open_running(tmp_path, "quic", quic=HURRIED) as running, neighbour(running):
        clients = [
            await start_quic(running._nursery, running.node.addresses["quic"], wait=False, early=_deaf_from_now_on)
            for _ in range(20)
        ]
        with trio.fail_after(PATIENCE):
            while statistics(running).expired < 20:
                await trio.sleep(0.01)
        await wait_until(running, 1)
        assert running.hub.metrics.accepted == 1, "nothing of the core was spent on them"
        for each in clients:
            each.close(0)


def _deaf_from_now_on(client: QuicClient) -> None:
    """Nothing that the node answers is heard; what is ours goes out."""
    client.deaf = True


@pytest.mark.parametrize("opened", [(), (Lane.CONTROL,), (Lane.CONTROL, Lane.MESSAGE)])
async def test_t02_a_link_that_never_authenticates_is_told_4103(tmp_path: Path, opened: tuple[Lane, ...]) -> None:
    async with open_running(tmp_path, "quic", login=QUICK) as running, neighbour(running):
        client = await running.quic()
        for lane in opened:
            client.open(lane)
        assert (await client.wait_closed())[0] == Code.AUTH_TIMEOUT
        await wait_until(running, 1)


async def test_t02_keeping_the_connection_alive_extends_nothing(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic", login=QUICK) as running, neighbour(running):
        client = await running.quic()
        peer = Peer(client.open(Lane.CONTROL))
        with trio.fail_after(PATIENCE):
            while client.closed is None:
                client.quic.send_ping(1)
                client.transmit()
                with trio.move_on_after(0.02):
                    await client.change()
        assert client.closed[0] == Code.AUTH_TIMEOUT
        await peer.hang_up()


async def test_t05_two_hundred_streams_of_no_lane_close_with_4304(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic") as running, neighbour(running):
        client = await running.quic()
        with trio.fail_after(PATIENCE):
            for _ in range(200):
                if client.closed is not None:
                    break
                client.open(0x77)
                with trio.move_on_after(0.01):
                    await client.change()
            assert (await client.wait_closed())[0] == Code.TOO_MANY_STREAMS


@pytest.mark.parametrize("place", ["feed", "handle", "pumped", "lane_opened"])
async def test_t44_a_bug_at_the_link_ends_that_connection_only(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_running(tmp_path, "quic") as running, neighbour(running):
        victim = await running.quic()
        other = await running.seated(1002)
        control = Peer(victim.open(Lane.CONTROL))
        await control.log_in(running.token(1001))
        owner: Any = QuicLink if place in ("handle", "pumped") else LanedConnection
        original = getattr(owner, place)
        (connection,) = running.hub.registry.of_user(1001)
        marked = connection.link if owner is QuicLink else connection

        def planted(self: Any, *rest: Any) -> Any:
            if self is marked:
                raise RuntimeError("a planted bug")
            return original(self, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(owner, place, planted)
            victim.open(Lane.MESSAGE, b"\0\0\0\0\0\0")
            assert (await victim.wait_closed())[0] == Code.INTERNAL_ERROR
            await running.empty(but=2)
        await other.send(ChatMessage(msg_id="m-1", to_user=1002, content="x"))
        with trio.fail_after(PATIENCE):
            assert (await other.receive(MessageAck)).status == AckStatus.ACCEPTED
        await other.hang_up()


async def test_t46_connecting_and_leaving_leaves_nothing(tmp_path: Path) -> None:
    """The long version, with the slope of memory, is `make soak`."""
    async with open_running(tmp_path, "quic") as running, neighbour(running):
        limit = trio.CapacityLimiter(16)

        async def come_and_go(number: int) -> None:
            async with limit:
                client = await running.quic()
                if number % 2:
                    client.open(Lane.CONTROL, b"\0\0\0\0\0\0")
                client.close(0)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(come_and_go, number)
        await running.empty(but=1)
        await wait_until(running, 1)
        assert len(running.hub.registry) == 1
        assert statistics(running).completed == 101
        assert statistics(running).failures == 0
