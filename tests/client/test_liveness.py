"""Heartbeats, servers that are dead, GoAway, and a client that lives through all of it."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway._framing import ChatFrame
from gateway.client import (
    ClientSettings,
    StateChange,
    TransportFailed,
    connect,
)
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthResponse,
    ChatMessage,
    ErrorMessage,
    GoAway,
    MessageAck,
    SyncRequest,
    SyncResponse,
    decode,
    encode,
)
from gateway.protocol.types import AckStatus
from tests.client.server import URL, Link, Server, chat, connecting, online, states, take


async def test_heartbeats_at_the_told_interval(autojump_clock: MockClock) -> None:
    async with online(Server(), heartbeat_interval_ms=7_000) as (client, link), trio.open_nursery() as nursery:
        nursery.start_soon(link.pump)
        await trio.sleep(70.5)
        assert link.beats == 10
        assert client.state == "online"
        nursery.cancel_scope.cancel()


async def test_a_silent_server_is_dead(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link), trio.open_nursery() as nursery:
        link.mute = True
        start = trio.current_time()
        nursery.start_soon(link.pump)
        (waiting,) = await states(client, "waiting")
        assert trio.current_time() - start == pytest.approx(45, abs=0.1)
        assert waiting.reason.startswith("nothing heard for")
        await server.welcome()
        await states(client, "online")
        nursery.cancel_scope.cancel()


async def test_any_frame_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link), trio.open_nursery() as nursery:
        link.mute = True
        nursery.start_soon(link.pump)
        for seq in range(1, 40):
            await trio.sleep(9)
            await link.send(chat(seq))
        assert client.state == "online"
        assert client.statistics().logins == 1
        nursery.cancel_scope.cancel()


class Stuck:
    """A link that takes the login and nothing else, and says `words` one after the other."""

    def __init__(self, *words: bytes) -> None:
        self.words = [encode(AuthResponse(user_id=1), seq=1), *words]
        self.taken = 0
        self.closed = False

    async def send_all(self, data: bytes) -> None:
        self.taken += 1
        if self.taken > 1:
            await trio.sleep_forever()

    async def receive_some(self) -> bytes:
        if not self.words:
            await trio.sleep_forever()
        return self.words.pop(0)

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_a_server_that_reads_nothing_is_dead_too(autojump_clock: MockClock) -> None:
    """The writer waits for ever; the heartbeat that it cannot write is not answered."""
    opened: list[Stuck] = []

    async def dial(endpoint: object, nursery: object) -> Stuck:
        await trio.lowlevel.checkpoint()
        opened.append(Stuck())
        return opened[-1]

    async with connect(URL, token="t", device_id="d", dial=dial) as client:
        await states(client, "online", "waiting")
        assert opened[0].closed


async def test_a_server_that_reads_nothing_is_left_on_goaway(autojump_clock: MockClock) -> None:
    opened: list[Stuck] = []

    async def dial(endpoint: object, nursery: object) -> Stuck:
        await trio.lowlevel.checkpoint()
        opened.append(Stuck(encode(GoAway(reconnect_after_ms=1000))))
        return opened[-1]

    async with connect(URL, token="t", device_id="d", dial=dial) as client:
        await client.send("x", to_user=1, wait=None)
        await states(client, "leaving", "waiting")
        assert trio.current_time() == pytest.approx(3, abs=0.1)
        assert opened[0].closed
    assert trio.current_time() < 10


async def test_an_old_error_is_not_the_reason_of_a_later_loss(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link):
        await link.send(ErrorMessage(code=Code.RATE_LIMITED, message="slow", retry_after_ms=20_000))
        await trio.sleep(11)
        link.cut()
        (waiting,) = await states(client, "waiting")
        assert (waiting.code, waiting.reason) == (0, "connection lost")


async def test_goaway_is_obeyed_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        went = trio.current_time()
        await link.send(
            GoAway(
                code=Code.GOING_AWAY,
                message="deploying",
                reconnect_after_ms=2_000,
                jitter_ms=3_000,
                endpoints=("tcp://b.test:1", "tcp://c.test:2"),
            )
        )
        (leaving,) = await states(client, "leaving")
        assert 2 <= leaving.delay <= 5
        assert leaving.reason == "deploying"
        # It stays in use until it is left.
        await link.send(chat(1))
        assert [d.server_seq for d in await take(client, 1)] == [1]
        await client.send("still here", to_user=5, wait=None, msg_id="x1")
        assert (await link.expect(ChatMessage))[0].content == "still here"
        server.faults.append(TransportFailed("b is not up yet"))
        after = await server.welcome([chat(2)])
        left, dialled = zip(*server.dialled[1:], strict=True)
        assert left[0] - went == pytest.approx(leaving.delay, abs=0.01)
        assert dialled == ("tcp://b.test:1", "tcp://c.test:2")
        assert (await after.expect(ChatMessage))[0].msg_id == "x1"
        assert [d.server_seq for d in await take(client, 1)] == [2]
        assert client.url == "tcp://c.test:2"
        await link.pump()  # the old link was closed by us


async def test_a_link_that_ends_during_goaway_is_waited_out(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        went = trio.current_time()
        await link.send(GoAway(code=Code.GOING_AWAY, reconnect_after_ms=30_000, jitter_ms=0))
        await states(client, "leaving")
        link.cut()
        await server.welcome()
        assert server.dialled[-1][0] - went == pytest.approx(30, abs=0.01)


async def test_goaway_jitter_is_spread(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = []
    for part in (0.0, 0.25, 0.999):
        monkeypatch.setattr(random, "random", lambda part=part: part)
        async with online(Server()) as (client, link):
            await link.send(GoAway(reconnect_after_ms=1_000, jitter_ms=4_000))
            (leaving,) = await states(client, "leaving")
            delays.append(leaving.delay)
    assert delays == pytest.approx([1.0, 2.0, 4.996])


async def test_an_endless_goaway_is_bounded(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link):
        await link.send(GoAway(reconnect_after_ms=2**32 - 1, jitter_ms=2**32 - 1))
        (leaving,) = await states(client, "leaving")
        assert leaving.delay == 3600


async def test_the_backoff_grows_and_heals(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        server.faults.extend(TransportFailed("down") for _ in range(20))
        link.cut()
        waits = [each for each in await states(client, *["waiting"] * 20) if isinstance(each, StateChange)]
        assert max(each.delay for each in waits) <= 30
        assert max(each.delay for each in waits) > 10
        after = await server.welcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after.pump)
            await trio.sleep(31)
            nursery.cancel_scope.cancel()
        after.cut()
        _, waiting = await states(client, "online", "waiting")
        assert waiting.delay <= 0.5
        await server.welcome()


async def test_an_unreliable_network_loses_and_doubles_nothing(autojump_clock: MockClock) -> None:
    """Links break at random moments in both directions; a small Logic behind them keeps the books."""
    rng = random.Random(5)
    server = Server()
    inbound = [chat(seq) for seq in range(1, 301)]
    stored: dict[str, str] = {}
    visible = 0

    async def serve() -> None:
        while True:
            link = await server.accept()
            with trio.move_on_after(rng.uniform(0.05, 3)):
                try:
                    await talk(link)
                except* (trio.EndOfChannel, trio.BrokenResourceError):
                    pass
            link.cut()

    async def talk(link: Link) -> None:
        nonlocal visible
        await link.log_in()
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                nonlocal visible
                while True:
                    await trio.sleep(rng.uniform(0, 0.1))
                    visible = min(300, visible + 1)
                    if rng.random() < 0.7:
                        await link.send(inbound[visible - 1])

            nursery.start_soon(push)
            while True:
                frame = await link.next_frame()
                if frame.type == 20:
                    await answer(link, frame)
                elif isinstance(frame, ChatFrame):
                    stored.setdefault(frame.msg_id, frame.content)
                    if rng.random() < 0.8:
                        await link.send(MessageAck(msg_id=frame.msg_id, status=AckStatus.STORED), seq=frame.seq)

    async def answer(link: Link, frame: Any) -> None:
        request = decode(frame)
        assert isinstance(request, SyncRequest)
        last = min(visible, request.cursor + 20)
        await link.send(
            SyncResponse(messages=tuple(inbound[request.cursor : last]), next_cursor=last, has_more=last < visible),
            seq=frame.seq,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connecting(
            server, settings=ClientSettings(start_timeout=math.inf, send_timeout=10_000, buffered_deliveries=16)
        ) as client:

            async def send() -> None:
                for number in range(100):
                    await client.send(f"text {number}", to_user=5)

            nursery.start_soon(send)
            with trio.fail_after(5000):
                taken = [(await client.__anext__()).server_seq for _ in range(300)]
                while len(stored) < 100 or client.unacknowledged:
                    await trio.sleep(1)
            assert client.statistics().logins > 5
        nursery.cancel_scope.cancel()
    assert taken == list(range(1, 301))
    assert list(stored.values()) == [f"text {number}" for number in range(100)]
