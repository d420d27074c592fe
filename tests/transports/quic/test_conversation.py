"""A node over real UDP, and a client that is aioquic itself: what is said on which lane, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.core.link import IncomingStream, Lane
from gateway.core.settings import DrainSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    ChatMessage,
    ErrorMessage,
    GoAway,
    Heartbeat,
    Kick,
    MessageAck,
    Signal,
    decode,
    encode,
)
from gateway.protocol.types import AckStatus
from gateway.transports.quic.streams import INCOMING
from tests.support.node import PATIENCE, RunningNode, open_running
from tests.support.peer import Peer
from tests.support.quic_peer import Pipe, QuicClient


class Seated:
    """A client with a session: control, message lane, and the connection below."""

    def __init__(self, client: QuicClient, control: Peer, messages: Peer) -> None:
        self.client = client
        self.control = control
        self.messages = messages
        self.content = "hello"

    async def says(self, msg_id: str, to: int, lane: Peer | None = None) -> list[AckStatus]:
        """Send a message on a lane; what became of it, on the same lane."""
        lane = lane or self.messages
        await lane.send(ChatMessage(msg_id=msg_id, to_user=to, content=self.content))
        with trio.fail_after(PATIENCE):
            acks = [await lane.receive(MessageAck) for _ in range(2)]
        assert [each.msg_id for each in acks] == [msg_id, msg_id]
        return [AckStatus(each.status) for each in acks]


async def sit(running: RunningNode, user: int, *, lanes: int = 2, **settings: Any) -> Seated:
    client = await running.quic(**settings)
    control = Peer(client.open(Lane.CONTROL))
    with trio.fail_after(PATIENCE):
        await control.log_in(running.token(user))
    messages = Peer(client.open(Lane.MESSAGE)) if lanes == 2 else control
    return Seated(client, control, messages)


@asynccontextmanager
async def running_node(directory: Path, **sections: Any) -> AsyncIterator[RunningNode]:
    async with open_running(directory, "quic", **sections) as running:
        yield running


ACCEPTED_AND_STORED = [AckStatus.ACCEPTED, AckStatus.STORED]


async def test_a_message_from_lane_to_lane(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice, bob = await sit(running, 1001), await sit(running, 1002)
        assert await alice.says("m-1", 1002) == ACCEPTED_AND_STORED
        with trio.fail_after(PATIENCE):
            delivery = await bob.messages.receive(ChatMessage)
        assert (delivery.msg_id, delivery.from_user, delivery.content) == ("m-1", 1001, "hello")
        assert not bob.control.frames
        assert alice.client.local != bob.client.local


async def test_without_a_message_lane_all_goes_by_control(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice, bob = await sit(running, 1001, lanes=1), await sit(running, 1002, lanes=1)
        assert await alice.says("m-1", 1002) == ACCEPTED_AND_STORED
        with trio.fail_after(PATIENCE):
            assert (await bob.control.receive(ChatMessage)).msg_id == "m-1"


async def test_a_message_lane_that_ends_gives_way_to_control(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice, bob = await sit(running, 1001), await sit(running, 1002)
        assert await alice.says("m-1", 1002) == ACCEPTED_AND_STORED
        with trio.fail_after(PATIENCE):
            await bob.messages.receive(ChatMessage)
            pipe = bob.messages.stream
            assert isinstance(pipe, Pipe)
            pipe.finish()
            assert await pipe.read_all() == b"", "the node ends its half, too"
        assert await alice.says("m-2", 1002) == ACCEPTED_AND_STORED
        with trio.fail_after(PATIENCE):
            assert (await bob.control.receive(ChatMessage)).msg_id == "m-2"
        again = Peer(bob.client.open(Lane.MESSAGE))
        assert await bob.says("m-3", 1001, again) == ACCEPTED_AND_STORED


async def test_heartbeats_on_control_and_by_datagram(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice = await sit(running, 1001)
        await alice.control.send_bytes(b"\0\0\0\0\0\0")
        with trio.fail_after(PATIENCE):
            assert await alice.control.frame() is not None
        alice.client.send_datagram(encode(Heartbeat(), seq=77, timestamp=1))
        (frame,) = frames(await alice.client.receive_datagram())
        assert isinstance(decode(frame), Heartbeat)
        assert frame.seq == 77


def frames(data: bytes) -> list[Any]:
    """The frames in some bytes."""
    peer = Peer(None)  # type: ignore[arg-type]
    peer._decoder.feed(None, data)
    return peer.frames


async def test_signals_by_datagram_both_ways(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice, bob = await sit(running, 1001), await sit(running, 1002)
        alice.client.send_datagram(encode(Signal(to_user=1002, kind="typing", data=b"x"), seq=1, timestamp=1))
        (frame,) = frames(await bob.client.receive_datagram())
        signal = decode(frame)
        assert isinstance(signal, Signal)
        assert (signal.from_user, signal.kind, signal.data) == (1001, "typing", b"x")
        assert not bob.control.frames


async def test_signals_to_a_client_without_datagrams_go_by_stream(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice = await sit(running, 1001)
        bob = await sit(running, 1002, max_datagram_frame_size=None)
        await alice.control.send(Signal(to_user=1002, kind="typing"))
        with trio.fail_after(PATIENCE):
            frame = await _either(bob)
        assert isinstance(decode(frame), Signal)


async def _either(seated: Seated) -> Any:
    """The next frame on either lane."""
    found: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def listen(peer: Peer) -> None:
            found.append(await peer.frame())
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen, seated.control)
        nursery.start_soon(listen, seated.messages)
    return found[0]


async def test_the_close_code_is_the_application_error_code(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        older = await sit(running, 1001)
        await sit(running, 1001)
        with trio.fail_after(PATIENCE):
            (kick,) = await older.control.closed()
        assert isinstance(kick, Kick)
        assert kick.code == Code.REPLACED_BY_SAME_DEVICE
        assert (await older.client.wait_closed())[0] == Code.REPLACED_BY_SAME_DEVICE


async def test_a_refused_token_is_told_twice(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        client = await running.quic()
        peer = Peer(client.open(Lane.CONTROL))
        await peer.send(AuthRequest(token="wrong", device_id="phone", platform="ios"))
        with trio.fail_after(PATIENCE):
            (answer,) = await peer.closed()
        assert getattr(answer, "code", 0) == Code.TOKEN_INVALID
        assert (await client.wait_closed())[0] == Code.TOKEN_INVALID


@pytest.mark.parametrize("how", ["finish", "reset", "close"])
async def test_a_client_that_leaves_is_gone_at_once(tmp_path: Path, how: str) -> None:
    async with running_node(tmp_path) as running:
        alice = await sit(running, 1001)
        pipe = alice.control.stream
        assert isinstance(pipe, Pipe)
        if how == "finish":
            pipe.finish()
        elif how == "reset":
            pipe.reset(9)
        else:
            alice.client.close(4242, "bye")
        await running.empty()
        if how != "close":
            assert (await alice.client.wait_closed())[0] == Code.OK
        assert running.hub.metrics.closed == {Code.OK: 1}


async def test_a_node_that_leaves_says_goaway_then_closes(tmp_path: Path) -> None:
    drain = DrainSettings(timeout=0.2, reconnect_after=0.0, jitter=0.0)
    async with running_node(tmp_path, drain=drain) as running:
        alice = await sit(running, 1001)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.node.drain)
            with trio.fail_after(PATIENCE):
                notice = await alice.control.receive(GoAway)
                assert notice.code == Code.GOING_AWAY
                code, _ = await alice.client.wait_closed()
                assert code == Code.GOING_AWAY


class _Stalled:
    """Takes files and never says that it has dealt with a byte."""

    def __init__(self) -> None:
        self.taken: list[IncomingStream] = []
        self.received = 0

    def incoming(self, _connection: Any, stream: IncomingStream) -> Any:
        self.taken.append(stream)
        return self

    def gone(self, _connection: Any) -> None:
        pass

    def feed(self, data: bytes) -> None:
        self.received += len(data)

    def end(self) -> None:
        raise AssertionError("it cannot end: it never got the credit to")

    def reset(self, code: int) -> None:
        pass


async def test_files_that_stand_still_delay_no_message(tmp_path: Path) -> None:
    """Head-of-line independence: as many stalled files as are taken at a time, full of unread bytes."""
    async with running_node(tmp_path) as running:
        stalled = _Stalled()
        running.hub.files = stalled  # type: ignore[assignment]
        alice, bob = await sit(running, 1001), await sit(running, 1002)
        files = [alice.client.open(Lane.EPHEMERAL, bytes(1_000_000)) for _ in range(INCOMING)]
        window = running.node.config.quic.stream_window
        with trio.fail_after(PATIENCE):
            while stalled.received < INCOMING * (window - 1):
                await trio.sleep(0.01)
        assert len(stalled.taken) == INCOMING
        alice.content = "x" * 4_000
        for number in range(50):
            assert await alice.says(f"m-{number}", 1002) == ACCEPTED_AND_STORED
            with trio.fail_after(PATIENCE):
                assert (await bob.messages.receive(ChatMessage)).msg_id == f"m-{number}"
        assert stalled.received <= INCOMING * window
        assert all(each.unacknowledged > 500_000 for each in files)
        for stream in stalled.taken:
            stream.stop(Code.RATE_LIMITED)
        assert [await each.refused() for each in files] == [Code.RATE_LIMITED] * INCOMING


async def test_a_client_that_moves_to_another_port_goes_on(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice, bob = await sit(running, 1001), await sit(running, 1002)
        for number in range(12):
            if number % 4 == 2:
                before = alice.client.local
                alice.client.migrate()
                assert alice.client.local != before
            assert await alice.says(f"a-{number}", 1002) == ACCEPTED_AND_STORED
            with trio.fail_after(PATIENCE):
                assert (await bob.messages.receive(ChatMessage)).msg_id == f"a-{number}"
            assert await bob.says(f"b-{number}", 1001) == ACCEPTED_AND_STORED
            with trio.fail_after(PATIENCE):
                assert (await alice.messages.receive(ChatMessage)).msg_id == f"b-{number}"
        assert running.hub.metrics.accepted == 2
        assert running.hub.metrics.closed.total() == 0


async def test_what_is_no_lane_is_refused_by_code_on_the_wire(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        alice = await sit(running, 1001)
        for lane, unidirectional, code in (
            (9, False, Code.UNKNOWN_TYPE),
            (9, True, Code.UNKNOWN_TYPE),
            (Lane.CONTROL, True, Code.TYPE_MISMATCH),
            (Lane.EPHEMERAL, False, Code.TYPE_MISMATCH),
            (Lane.CONTROL, False, Code.TOO_MANY_STREAMS),
            (Lane.MESSAGE, False, Code.TOO_MANY_STREAMS),
        ):
            pipe = alice.client.open(lane, b"more", unidirectional=unidirectional)
            assert await pipe.refused() == code
        assert await alice.says("m-1", 1001) == ACCEPTED_AND_STORED


async def test_messages_before_login_end_the_connection(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        client = await running.quic()
        control, messages = client.open(Lane.CONTROL), client.open(Lane.MESSAGE)
        messages.write(encode(ChatMessage(msg_id="m", to_user=1, content="x" * 60_000), seq=1, timestamp=1) * 2)
        with trio.fail_after(PATIENCE):
            said = await Peer(control).closed()
        assert [each.code for each in said if isinstance(each, ErrorMessage)] == [Code.OUT_OF_ORDER]
        assert (await client.wait_closed())[0] == Code.OUT_OF_ORDER
