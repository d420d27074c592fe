"""Threats by their numbers against a hub's own WebSocket port; beside each an innocent who must not notice."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway._framing import build_downstream, parse_upstream
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    ErrorMessage,
    Heartbeat,
    Kick,
    MessageAck,
    encode,
    packet,
)
from gateway.protocol.types import AckStatus, Action
from tests.websocket.door import Door, open_door
from tests.websocket.frames import close_body, frame
from tests.websocket.test_upgrade import request

INNOCENT = 7


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that passes only after a moment of real silence: the bytes of loopback arrive first."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def beside_an_innocent(**settings: Any) -> AsyncIterator[Door]:
    """A door, and on leaving a client who has been there all the time and is still served."""
    async with open_door(**settings) as door:
        innocent = await door.seated(INNOCENT)
        yield door
        await innocent.send(ChatMessage(msg_id="still-here", to_user=1, content="x"))
        ack = await innocent.receive(MessageAck)
        assert (ack.msg_id, ack.status) == ("still-here", AckStatus.ACCEPTED)
        await innocent.hang_up()


def auth(user: int = 1001) -> bytes:
    return encode(AuthRequest(token=str(user), device_id="phone", platform="ios"), seq=1)


def chat(number: int = 1, content: str = "hello") -> bytes:
    return encode(ChatMessage(msg_id=f"m-{number}", to_user=1002, content=content), seq=number)


@pytest.mark.parametrize("said", [b"", b"G", request()[:-1]], ids=["nothing", "G", "all but one"])
async def test_t01_half_an_upgrade_is_closed_five_seconds_after_accept(clock: MockClock, said: bytes) -> None:
    async with beside_an_innocent() as door:
        peer = await door.knock()
        started = trio.current_time()
        await peer.send(said)
        assert await peer.rest() == b""
        assert 4.9 < trio.current_time() - started < 5.6


async def test_t01_one_byte_at_a_time_does_not_extend_it(clock: MockClock) -> None:
    async with beside_an_innocent() as door:
        peer = await door.knock()
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - which of the bytes finds the link closed is open
            for byte in request():
                await peer.send(bytes([byte]))
                await trio.sleep(1)
        assert trio.current_time() - started < 9


@pytest.mark.parametrize("said", [b"", b"GET /ws", request(), request() + frame(auth())[:-3]])
async def test_t01_an_end_frees_the_descriptor_at_once(said: bytes) -> None:
    async with beside_an_innocent() as door:
        before = len(os.listdir("/proc/self/fd"))
        peer = await door.knock()
        await peer.send(said)
        if len(said) >= len(request()):
            await peer.until(b"\r\n\r\n")
        await peer.stream.aclose()
        with trio.fail_after(1):
            while len(os.listdir("/proc/self/fd")) > before or len(door.world.hub.registry) > 1:
                await trio.sleep(0.001)


async def test_t02_never_authenticated(clock: MockClock) -> None:
    async with beside_an_innocent() as door:
        client = await door.connect()
        started = trio.current_time()
        for seq in range(1, 4):
            await client.send(Heartbeat(), seq=seq)
            await client.receive(Heartbeat)
            await trio.sleep(1.5)
        code, said = await client.closed_with()
        assert code == Code.AUTH_TIMEOUT
        assert [message.code for message in said if isinstance(message, AuthResponse)] == [4103]
        assert 4.9 < trio.current_time() - started < 5.6


LENGTHS = [8193, 65_536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]


@pytest.mark.parametrize("length", LENGTHS)
async def test_t03_a_declared_length_over_the_limit(length: int) -> None:
    async with beside_an_innocent() as door:
        client = await door.connect()
        await client.raw.send(frame(length.to_bytes(4, "big") + b"\0\1" + b"x" * 100))
        code, said = await client.closed_with()
        assert code == Code.FRAME_TOO_LARGE
        assert [message.code for message in said if isinstance(message, ErrorMessage)] == [4001]


async def test_t03_the_limit_itself_passes() -> None:
    async with beside_an_innocent() as door:
        client = await door.seated(1001)
        room = door.world.hub.limits.max_frame
        content = "x" * (room - len(chat(1, "")) - 64)
        await client.send(ChatMessage(msg_id="large", to_user=2, content=content))
        assert (await client.receive(MessageAck)).status == AckStatus.ACCEPTED
        await client.hang_up()


async def test_t04_cut_merged_or_in_chunks_the_outcome_is_the_same() -> None:
    frames = encode(Heartbeat(), seq=1) + auth() + chat(2) + chat(3)
    rng = random.Random(4)
    shapes = [
        frame(frames),
        b"".join(frame(frames[i : i + 1]) for i in range(len(frames))),
        frame(frames[:50], fin=False) + frame(frames[50:99], 0, fin=False) + frame(b"ping", 9) + frame(frames[99:], 0),
    ]
    whole = shapes[0]
    cuts = [[whole[:at], whole[at:]] for at in range(1, len(whole), 3)]
    for shape in shapes:
        marks = sorted(rng.sample(range(1, len(shape)), 12))
        cuts.append([shape[a:b] for a, b in zip([0, *marks], [*marks, len(shape)], strict=True)])
    async with beside_an_innocent() as door:

        async def one(pieces: list[bytes]) -> None:
            client = await door.connect()
            for piece in pieces:
                await client.raw.send(piece)
                await trio.lowlevel.checkpoint()
            await client.receive(Heartbeat)
            assert (await client.receive(AuthResponse)).code == 0
            assert [(await client.receive(MessageAck)).msg_id for _ in range(2)] == ["m-2", "m-3"]
            await client.hang_up()

        for pieces in cuts:
            await one(pieces)


async def test_t05_frames_that_are_out_of_order() -> None:
    async with beside_an_innocent() as door:
        client = await door.connect()
        await client.raw.send(frame(chat()))
        assert (await client.closed_with())[0] == Code.OUT_OF_ORDER

        client = await door.seated(1001)
        await client.raw.send(frame(auth()))
        assert (await client.closed_with())[0] == Code.OUT_OF_ORDER

        client = await door.seated(1001)
        await client.raw.send(frame(b"\0\0\0\x04\x7f\xff" + b"abcd"))
        await client.receive(ErrorMessage)
        await client.send(MessageAck(msg_id="never-sent", status=AckStatus.DELIVERED))
        await client.send(ChatMessage(msg_id="goes-on", to_user=2))
        assert (await client.receive(MessageAck)).msg_id == "goes-on"
        await client.hang_up()


async def test_t06_what_cannot_be_verified() -> None:
    async with beside_an_innocent() as door:
        whole = chat()
        for at in range(6, len(whole), 9):
            client = await door.seated(1001)
            broken = whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :]
            await client.raw.send(frame(broken))
            await client.raw.send(frame(close_body(1000), 8))
            code, _ = await client.closed_with()
            assert code in {1000, Code.MALFORMED_FRAME, Code.TYPE_MISMATCH}


async def test_t34_readers_that_never_read() -> None:
    limits = LimitSettings(outbox_bytes=65_536)
    async with beside_an_innocent(limits=limits) as door:
        deaf = [await door.seated(100 + n, window=4096) for n in range(10)]
        reading = await door.seated(99)
        said = packet(ChatMessage(msg_id="big", content="x" * 30_000, to_user=1, from_user=2))
        hub = door.world.hub
        while hub.metrics.closed[Code.SLOW_CONSUMER] < len(deaf):
            for user in (*range(100, 100 + len(deaf)), 99):
                door.world.down(build_downstream(user, (), "", "", 0, Action.DELIVER, 0, 10, said, 0))
            await reading.receive(ChatMessage)
        assert len(hub.registry) == 2
        for client in deaf:
            await client.hang_up()
        await reading.hang_up()


async def test_t35_one_user_who_floods(clock: MockClock) -> None:
    limits = LimitSettings(message_rate=50, message_burst=100, rate_patience=6)
    async with beside_an_innocent(limits=limits) as door:
        client = await door.seated(1001)
        flood = frame(b"".join(chat(n) for n in range(200))) * 20

        async def pour(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            while True:
                await client.raw.send(flood)

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            await nursery.start(pour)
            opcode, payload = 2, b""
            while opcode == 2:
                opcode, payload = await client.raw.frame()
            nursery.cancel_scope.cancel()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (8, Code.RATE_LIMITED)
        assert 5.9 < trio.current_time() - started < 9
        assert door.world.hub.metrics.messages_received < 50 * 9 + 600
        await client.hang_up()


async def test_t44_a_bug_in_a_handler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with beside_an_innocent() as door:
        client = await door.seated(1001)
        bus = door.world.hub.bus
        real = bus.publish

        def publish(subject: str, payload: bytes) -> bool:
            if subject == door.world.hub.upstream and parse_upstream(payload).user_id == 1001:
                raise RuntimeError("a bug")
            return real(subject, payload)

        monkeypatch.setattr(bus, "publish", publish)
        await client.raw.send(frame(chat()))
        code, said = await client.closed_with()
        assert code == Code.INTERNAL_ERROR
        assert [message.code for message in said if isinstance(message, Kick)] == [4401]
    assert sum("a bug" in str(record.exc_info) for record in caplog.records if record.exc_info) == 1


async def test_t46_connects_and_closes_leave_nothing() -> None:
    async with beside_an_innocent() as door:

        async def visit(count: int) -> None:
            for n in range(count):
                client = await door.connect()
                if n % 3 == 0:
                    await client.log_in(1001)
                if n % 2 == 0:
                    await client.raw.send(frame(close_body(1000), 8))
                    assert await client.raw.frame() == (8, close_body(1000))
                await client.hang_up()

        async def settled() -> int:
            while len(door.world.hub.registry) > 1:
                await trio.sleep(0.001)
            door.sockets.clear()
            gc.collect()
            # Trio forgets the timers of past scopes lazily, a thousand at a time.
            lazy = {"tuple", "CancelScope", "CancelReason"}
            return sum(type(each).__name__ not in lazy for each in gc.get_objects())

        await visit(30)
        before = await settled()
        descriptors = len(os.listdir("/proc/self/fd"))
        await visit(300)
        assert await settled() - before < 60
        assert len(os.listdir("/proc/self/fd")) == descriptors
