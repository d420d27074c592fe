"""An endpoint and aioquic clients: handshake, streams, datagrams, ends in both directions, who is let in."""

from __future__ import annotations

import logging

import pytest
import trio
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion

from gateway.core.link import LinkClosed
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code
from gateway.transports.quic.parted import Parted
from gateway.transports.quic.statistics import Drop
from tests.transports.quic.client import Client, client_configuration, open_client
from tests.transports.quic.world import Echo, World, open_world


async def test_handshake_and_echo() -> None:
    async with open_world() as world, open_client(world.server) as client:
        await client.say(b"\x01hello")
        await client.hear(b"\x01hello")
        client.quic.send_datagram_frame(b"a datagram")
        await client.flush()
        await client.until(lambda: client.datagrams() == [b"a datagram"])
        echo: Echo = world.handlers[0]
        assert echo.peer.alpn == "im-access"
        assert echo.peer.address == "127.0.0.1"
        assert not echo.peer.early
        assert echo.pumps > 0
        told = world.endpoint.statistics()
        assert (told.connections, told.half_open, told.accepted, told.completed) == (1, 0, 1, 1)
        assert told.packets_in > 0 < told.bytes_out
        assert told.connection_ids == 5  # four of ours, and for a while the client's first


async def test_the_clients_first_id_is_forgotten_after_a_while() -> None:
    async with open_world() as world, open_client(world.server):
        await world.until(lambda: world.endpoint.statistics().connection_ids == 4)


async def test_many_clients_at_once() -> None:
    async with open_world() as world:

        async def one(number: int) -> None:
            async with open_client(world.server) as client:
                await client.say(b"%d" % number)
                await client.hear(b"%d" % number)

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)


async def test_much_there_and_back() -> None:
    async with open_world() as world, open_client(world.server) as client:
        data = bytes(range(256)) * 512
        await client.say(data, fin=True)
        await client.hear(data)
        told = world.endpoint.statistics()
        assert told.segmented > 0
        assert told.batches_out < told.packets_out


@pytest.mark.parametrize("code", [0, 4200, 4400])
async def test_the_server_closes_with_a_code(code: int) -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        echo.peer.close(code, "because")
        with trio.fail_after(5):
            await echo.peer.wait_closed()
        event = await client.ended()
        assert (event.error_code, event.frame_type, event.reason_phrase) == (code, None, "because")
        assert echo.ends == [(code, "because")]
        assert not echo.peer.send(1, b"x")
        assert not echo.peer.send_datagram(b"x")
        assert echo.peer.unsent(1) == echo.peer.max_datagram == 0
        with pytest.raises(LinkClosed):
            echo.peer.open_stream(True)
        echo.peer.close(1)
        echo.peer.abort()
        echo.peer.reset(1, 2)
        echo.peer.stop(1, 2)
        echo.peer.grant(1, 2)
        await echo.peer.wait_closed()
        assert echo.ends == [(code, "because")]


async def test_the_client_closes_with_a_code() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        client.quic.close(4403, reason_phrase="bored")
        await client.flush()
        await echo.until(lambda: echo.ends)
        assert echo.ends == [(4403, "bored")]
        assert world.endpoint.statistics().closed == {4403: 1}
        assert world.endpoint.statistics().connections == 0


async def test_a_transport_error_has_no_code_of_ours() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        client.quic.close(QuicErrorCode.INTERNAL_ERROR, 0, "broken")
        await client.flush()
        await echo.until(lambda: echo.ends)
        assert echo.ends == [(0, "broken")]


async def test_abort_says_nothing_and_is_forgotten() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        echo.peer.abort()
        echo.peer.abort()
        assert echo.ends == []
        assert world.endpoint.statistics().connections == 0
        await client.say(b"anybody there?")
        await client.until(client.was_reset)


async def test_the_end_of_the_run_is_told() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        world.endpoint._nursery.cancel_scope.cancel()  # type: ignore[union-attr]
        event = await client.ended()
        assert event.error_code == Code.GOING_AWAY
        assert echo.ends == [(Code.GOING_AWAY, "this node has ended")]


async def test_a_lost_close_is_said_again_ever_more_rarely() -> None:
    async with open_world() as world, open_client(world.server) as client:
        await client.say(b"hello")
        await client.hear(b"hello")
        keep = client.quic.receive_datagram
        client.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
        echo: Echo = world.handlers[0]
        echo.peer.close(4200, "replaced")
        await echo.until(lambda: echo.ends)
        heard = len(client.received)
        for _ in range(20):
            client.quic.send_ping(1)
            await client.flush()
            await trio.sleep(0.001)
        await world.until(lambda: world.endpoint.statistics().dropped[Drop.PARTED.value] >= 20)
        assert len(client.received) - heard <= 6
        client.quic.receive_datagram = keep  # type: ignore[method-assign]
        client.quic.receive_datagram(client.received[-1], world.server, trio.current_time())
        assert client.quic._close_event is not None
        assert client.quic._close_event.error_code == 4200


def test_a_farewell_goes_where_the_connection_was_and_nowhere_else() -> None:
    parted = Parted((b"cid",), b"farewell", b"here")
    assert parted.answer(b"there") is None
    assert [parted.answer(b"here") for _ in range(8)] == [
        b"farewell", b"farewell", None, b"farewell", None, None, None, b"farewell",
    ]  # fmt: skip
    assert Parted((b"cid",), b"", b"here").answer(b"here") is None


async def test_idle_connections_are_forgotten() -> None:
    async with open_world(idle_timeout=0.3) as world, open_client(world.server):
        echo: Echo = world.handlers[0]
        await echo.until(lambda: echo.ends)
        assert echo.ends == [(0, "Idle timeout")]


async def test_a_handshake_that_stops_is_forgotten() -> None:
    async with open_world(handshake_timeout=0.2) as world, open_client(world.server, connect=False) as client:
        client.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
        client.quic.connect(world.server, trio.current_time())
        await client.flush()
        client.intercept = lambda _data: None
        await world.until(lambda: world.endpoint.statistics().expired == 1)
        told = world.endpoint.statistics()
        assert (told.connections, told.half_open, told.connection_ids) == (0, 0, 0)
        assert world.handlers == []


# -- streams -------------------------------------------------------------------------------------------------


async def test_streams_stopped_and_reset_by_either_side() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        await client.say(b"one")
        await client.hear(b"one")
        echo.peer.stop(0, 4304)
        echo.peer.reset(0, 4305)
        await client.until(lambda: client.seen(StopSendingReceived) and client.seen(StreamReset))
        assert client.seen(StreamReset)[0].error_code == 4305
        assert not echo.peer.send(0, b"more")
        await client.say(b"two", 4)
        await client.hear(b"two", 4)
        client.quic.stop_stream(4, 7)
        await client.flush()
        await echo.until(lambda: any(isinstance(event, StopSendingReceived) for event in echo.events))
        assert not echo.peer.send(4, b"unwanted")


async def test_a_stream_of_ours() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        stream_id = echo.peer.open_stream(True)
        assert echo.peer.send(stream_id, b"\x03a file", fin=True)
        assert echo.peer.unsent(stream_id) == 7
        await client.hear(b"\x03a file", stream_id)
        await echo.until(lambda: echo.peer.unsent(stream_id) == 0)
        assert not echo.peer.send(stream_id, b"after its end")


async def test_pumped_tells_that_there_is_room_again() -> None:
    """A file sent by a watermark: never more than 64 KB wait, all of it arrives."""

    class Sending(Echo):
        left = 600_000
        most = 0
        stream_id = -1

        def pumped(self) -> None:
            super().pumped()
            if self.stream_id >= 0:
                while self.left and self.peer.unsent(self.stream_id) < 65_536:
                    self.left -= 10_000
                    self.peer.send(self.stream_id, bytes(10_000), self.left == 0)
                self.most = max(self.most, self.peer.unsent(self.stream_id))

    async with open_world(Sending) as world, open_client(world.server) as client:
        sending: Sending = world.handlers[0]
        sending.stream_id = sending.peer.open_stream(True)
        sending.peer.touch()
        await client.until(lambda: len(client.streams.get(sending.stream_id, b"")) == 600_000)
        assert sending.most < 80_000


# -- T44: bugs -----------------------------------------------------------------------------------------------


async def neighbour_is_fine(client: Client) -> None:
    await client.say(b"still here?", 8)
    await client.hear(b"still here?", 8)


@pytest.mark.parametrize("where", ["handle", "pumped", "both", "constructor"])
async def test_t44_a_handlers_bug_ends_that_connection_only(where: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Echo):
        def __init__(self, peer: object) -> None:
            super().__init__(peer)  # type: ignore[arg-type]
            if where == "constructor" and len(world.handlers) == 1:
                raise RuntimeError("a bug")

        def handle(self, event: QuicEvent) -> None:
            super().handle(event)
            if where in {"handle", "both"} and isinstance(event, StreamDataReceived) and event.data == b"now":
                raise RuntimeError("a bug")

        def pumped(self) -> None:
            super().pumped()
            if where in {"pumped", "both"} and self.heard == 3:
                raise RuntimeError("a bug")

        def ended(self, code: int, reason: str) -> None:
            super().ended(code, reason)
            if where == "both" and self.heard == 3:
                raise RuntimeError("another bug")

    faults = 2 if where == "both" else 1
    async with open_world(Broken, faults=faults) as world, open_client(world.server) as innocent:
        async with open_client(world.server) as client:
            await client.say(b"now")
            event = await client.ended()
            assert event.error_code == Code.INTERNAL_ERROR
        await neighbour_is_fine(innocent)
    assert sum(record.message == "quic_fault" for record in caplog.records) == faults


async def test_t44_a_bug_in_aioquic_ends_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world(faults=1) as world, open_client(world.server) as innocent:
        async with open_client(world.server) as client:

            def broken(*_: object) -> None:
                raise AssertionError("inconsistent")

            echo: Echo = world.handlers[1]
            echo.peer.quic.receive_datagram = broken  # type: ignore[method-assign,assignment]
            for _ in range(3):
                await client.throw(b"\x40" + echo.peer.quic.ids()[0] + bytes(40))
            event = await client.ended()
            assert event.error_code == Code.INTERNAL_ERROR
            assert echo.ends == [(Code.INTERNAL_ERROR, "internal error")]
        await neighbour_is_fine(innocent)
    assert caplog.records[-1].levelno == logging.ERROR


# -- who is let in -------------------------------------------------------------------------------------------


async def refused(world: World, **fields: object) -> int:
    quic = QuicConnection(configuration=client_configuration(**fields))
    async with open_client(world.server, connect=False, quic=quic) as client:
        quic.connect(world.server, trio.current_time())
        await client.flush()
        event = await client.ended()
        assert event.frame_type is not None
        return event.error_code


async def test_a_full_node_refuses_before_the_handshake() -> None:
    async with open_world(limits=LimitSettings(max_connections=1)) as world:
        world.admission.enter("192.0.2.1")
        assert await refused(world) == QuicErrorCode.CONNECTION_REFUSED
        assert world.endpoint.statistics().accepted == 0
        assert world.endpoint.statistics().refusals >= 1


async def test_too_many_from_one_address() -> None:
    async with open_world(limits=LimitSettings(max_connections_per_address=1)) as world:
        world.admission.enter("127.0.0.1")
        assert await refused(world) == QuicErrorCode.CONNECTION_REFUSED


@pytest.mark.parametrize("by", ["admission", "endpoint"])
async def test_a_leaving_node_refuses_and_keeps_whom_it_has(by: str) -> None:
    async with open_world() as world, open_client(world.server) as innocent:
        if by == "admission":
            world.admission.closed = True
        else:
            world.endpoint.close()
            world.endpoint.close()
        assert await refused(world) == QuicErrorCode.CONNECTION_REFUSED
        await neighbour_is_fine(innocent)


async def test_an_unknown_protocol_is_refused() -> None:
    async with open_world() as world:
        assert await refused(world, alpn_protocols=["h2"]) == QuicErrorCode.CRYPTO_ERROR + 120
        await world.empty()


async def test_another_version_is_told_of_ours() -> None:
    async with open_world() as world:
        other = [int(QuicProtocolVersion.VERSION_2), int(QuicProtocolVersion.VERSION_1)]
        async with open_client(world.server, supported_versions=other, original_version=other[0]) as client:
            await neighbour_is_fine(client)
            assert client.quic._version_negotiated_incompatible
        assert world.endpoint.statistics().version_negotiations == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", Drop.MALFORMED),
        (b"\x40", Drop.MALFORMED),
        (b"\x00" * 40, Drop.MALFORMED),
        (b"\xc0\x00\x00\x00\x01", Drop.MALFORMED),
        (b"\xc0\x00\x00\x00\x01\x08" + bytes(40), Drop.TOO_SMALL),
        (b"\xc0\x00\x00\x00\x01\x15" + bytes(1_300), Drop.MALFORMED),
        (b"\xc0\x00\x00\x00\x01\x07" + bytes(1_300), Drop.MALFORMED),
        (b"\xc0\x00\x00\x00\x01\xff" + bytes(1_300), Drop.MALFORMED),
        (b"\xc0\x00\x00\x00\x00\x08" + bytes(1_300), Drop.MALFORMED),
        (b"\xc0\x00\x00\x00\x01\x08" + bytes(8) + b"\x00\x7f\xff" + bytes(1_300), Drop.MALFORMED),
        (b"\xe0\x00\x00\x00\x01\x08" + bytes(1_300), Drop.NOT_INITIAL),
        (b"\xc0\x00\x00\x00\x01\x08" + bytes(1_300), Drop.UNREADABLE),
        (b"\xc0\x00\x00\x00\x01\x08" + bytes(8) + b"\x00\x00\x44\xb0" + bytes(1_300), Drop.UNREADABLE),
        (b"\x40\x01" + bytes(40), Drop.OTHER_WORKER),
        (bytes(2_500), Drop.TRUNCATED),
    ],
    ids=lambda value: value.value if isinstance(value, Drop) else "",
)
async def test_what_is_no_connection_costs_a_count(data: bytes, why: Drop) -> None:
    async with open_world() as world, open_client(world.server, connect=False) as client:
        await client.throw(data)
        await world.until(lambda: world.endpoint.statistics().dropped[why.value] == 1)
        told = world.endpoint.statistics()
        assert (told.connections, told.half_open, told.connection_ids) == (0, 0, 0)
        assert client.received == []
