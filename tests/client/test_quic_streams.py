"""Ephemeral streams and credit of the client, against a scripted aioquic server."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.client.laned import STREAMS
from gateway.client.quic_engine import LINK_WINDOW, STREAM_WINDOW
from gateway.client.quic_lanes import HIGH
from gateway.client.transport import IncomingStream, StreamRefused
from gateway.protocol.codes import Code
from gateway.protocol.types import Lane
from tests.client.quic_world import online, transport_of
from tests.client.server import chat, take
from tests.support.quic_server import serving


async def test_streams_both_ways_beside_a_conversation() -> None:
    async with serving() as server, online(server) as (client, peer):
        taken: dict[int, bytes] = {}

        async def take_stream(stream: IncomingStream) -> None:
            data = b""
            while part := await stream.receive_some():
                data += part
            taken[len(taken)] = data

        client._journal.take_stream = take_stream
        out = transport_of(client).open_stream()
        picture = bytes(range(256)) * 4000
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for at in range(0, len(picture), 60_000):
                    await out.send_all(picture[at : at + 60_000])
                await out.finish()

            nursery.start_soon(send)
            peer.send_stream(picture)
            await peer.until(lambda: peer.ended)
        assert [bytes(each) for each in peer.streams.values()] == [picture]
        while not taken:
            await trio.sleep(0.01)
        assert taken == {0: picture}


async def test_who_sends_too_much_waits() -> None:
    async with serving() as server, online(server) as (client, _):
        transport = transport_of(client)
        out = transport.open_stream()
        server.deaf = True
        given = 0
        with trio.move_on_after(0.3):
            while True:
                await out.send_all(bytes(50_000))
                given += 50_000
        assert HIGH - 50_000 <= given <= HIGH
        with trio.move_on_after(0.3):
            await transport.send_on(Lane.MESSAGE, bytes(10))  # the lane has its own room
            given = 0
        assert given == 0


async def test_a_stream_nobody_takes_is_refused() -> None:
    async with serving() as server, online(server) as (client, peer):
        client._journal.take_stream = None
        stream_id = peer.send_stream(b"x" * 1000, end=False)
        await peer.until(lambda: peer.quic._streams[stream_id].sender._reset_error_code)
        assert peer.quic._streams[stream_id].sender._reset_error_code == Code.TOO_MANY_STREAMS


async def test_no_more_streams_are_taken_at_a_time_than_there_may_be() -> None:
    """Short ones are over before they are taken, so that QUIC's own limit does not count them."""
    async with serving() as server, online(server) as (client, peer):
        began = 0
        go = trio.Event()

        async def take_stream(stream: IncomingStream) -> None:
            nonlocal began
            began += 1
            await go.wait()

        client._journal.take_stream = take_stream
        for number in range(STREAMS + 8):
            peer.send_stream(b"short")
            await peer.until(lambda: not any(stream_id & 2 for stream_id in peer.quic._streams))
            assert began <= min(number + 1, STREAMS)
        while began < STREAMS:
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert began == STREAMS
        go.set()
        peer.send_stream(b"short")
        while began < STREAMS + 1:
            await trio.sleep(0.01)


async def test_a_stream_that_is_stopped_or_reset_is_refused_and_the_link_goes_on() -> None:
    async with serving() as server, online(server) as (client, peer):
        out = transport_of(client).open_stream()
        await out.send_all(b"abc")
        await peer.until(lambda: peer.streams)
        peer.quic.stop_stream(next(iter(peer.streams)), 4304)
        server.transmit(peer)
        with pytest.raises(StreamRefused) as caught:
            await out.finish()
        assert caught.value.code == 4304
        failures: list[StreamRefused] = []

        async def take_stream(stream: IncomingStream) -> None:
            try:
                while await stream.receive_some():
                    pass
            except StreamRefused as refused:
                failures.append(refused)
                raise

        client._journal.take_stream = take_stream
        stream_id = peer.send_stream(b"half", end=False)
        peer.quic.reset_stream(stream_id, 4402)
        server.transmit(peer)
        again = transport_of(client).open_stream()
        await again.send_all(b"abc")
        again.reset(4000)
        again.reset(4001)
        await peer.until(lambda: 4000 in peer.resets.values())
        assert 4001 not in peer.resets.values()
        while not failures:
            await trio.sleep(0.01)
        assert failures[0].code == 4402
        assert client.statistics().logins == 1


@pytest.mark.parametrize("lane", [Lane.MESSAGE, Lane.EPHEMERAL])
async def test_a_far_byte_earns_no_credit(lane: Lane) -> None:
    """aioquic by itself fills the gap with zeros and doubles the credit, as often as it is asked to."""
    async with serving() as server, online(server) as (_, peer):
        quic = peer.quic
        stream_id = peer._ids[lane] if lane == Lane.MESSAGE else quic.get_next_available_stream_id(True)
        quic.send_stream_data(stream_id, bytes(STREAM_WINDOW))
        stream = quic._streams[stream_id]
        stream.sender._pending.subtract(0, STREAM_WINDOW - 1)  # only the last byte is sent
        server.transmit(peer)
        await peer.until(lambda: len(stream.sender._acked))
        for _ in range(5):
            peer.quic.send_ping(1)
            server.transmit(peer)
            await trio.sleep(0.02)
        assert stream.max_stream_data_remote == STREAM_WINDOW
        assert quic._remote_max_data <= LINK_WINDOW * 1.5


async def test_a_server_gets_no_credit_for_what_is_not_taken() -> None:
    async with serving() as server, online(server) as (client, peer):
        go = trio.Event()
        total = 0

        async def take_stream(stream: IncomingStream) -> None:
            nonlocal total
            await go.wait()
            while part := await stream.receive_some():
                total += len(part)

        client._journal.take_stream = take_stream
        size = 3 * STREAM_WINDOW
        stream_id = peer.send_stream(bytes(size))
        sender = peer.quic._streams[stream_id].sender
        await peer.until(lambda: sender.highest_offset >= STREAM_WINDOW)
        peer.send(chat(1), lane=Lane.MESSAGE)
        await take(client, 1)  # the lane goes on
        assert sender.highest_offset == STREAM_WINDOW
        go.set()
        await peer.until(lambda: sender.is_finished)
        while total < size:
            await trio.sleep(0.01)
