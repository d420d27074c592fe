"""The raw QUIC link: when it is handed over, early data, datagrams, goodbyes."""

from __future__ import annotations

import pytest
import trio
from aioquic.quic.events import (
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.core.link import Lane, Link, LinkClosed
from gateway.core.refusal import turn_away
from gateway.protocol.codes import Code
from gateway.transports.quic.ephemeral import HIGH
from gateway.transports.quic.link import LONGEST_REASON, QuicLink
from tests.transports.quic.fake import Ear, FakePeer

COMPLETE = HandshakeCompleted(alpn_protocol="im-access", early_data_accepted=False, session_resumed=False)


def data(stream_id: int, text: bytes, end: bool = False) -> QuicEvent:
    return StreamDataReceived(data=text, end_stream=end, stream_id=stream_id)


class Wire:
    def __init__(self) -> None:
        self.peer = FakePeer()
        self.ear = Ear()
        self.served: list[Link] = []
        self.link = QuicLink(self.peer.real(), self.served.append)

    async def up(self) -> None:
        self.link.handle(COMPLETE)
        self.link.attach(self.ear)
        await self.link.open()
        self.link.handle(data(0, b"\x01"))


@pytest.fixture
async def wire() -> Wire:
    return Wire()


async def test_it_is_handed_over_when_the_handshake_is_complete(wire: Wire) -> None:
    assert not wire.served
    wire.link.handle(COMPLETE)
    assert wire.served == [wire.link]
    wire.link.handle(data(0, b"\x01abc"))
    wire.link.attach(wire.ear)
    assert not wire.ear.told, "nothing is told before it is opened"
    await wire.link.open()
    assert not wire.link.early
    assert wire.ear.told == [("feed", Lane.CONTROL, b"abc")], "and nothing is to be confirmed"
    assert wire.served == [wire.link]


async def test_early_data_hands_it_over_and_is_confirmed_in_its_turn(wire: Wire) -> None:
    wire.link.handle(data(0, b"\x01early"))
    assert wire.served == [wire.link]
    assert wire.link.early
    wire.link.handle(COMPLETE)
    wire.link.handle(data(0, b"late"))
    assert wire.link.early, "until what came early has been told"
    wire.link.attach(wire.ear)
    await wire.link.open()
    assert not wire.link.early
    assert wire.ear.told == [("feed", 1, b"early"), "confirmed", ("feed", 1, b"late")]


async def test_early_data_of_a_link_that_is_open(wire: Wire) -> None:
    wire.link.handle(data(0, b"\x01early"))
    wire.link.attach(wire.ear)
    await wire.link.open()
    assert wire.link.early
    wire.link.handle(COMPLETE)
    assert not wire.link.early
    assert wire.ear.told == [("feed", 1, b"early"), "confirmed"]


async def test_what_a_stream_does_is_told_by_lane(wire: Wire) -> None:
    await wire.up()
    wire.link.handle(data(4, b"\x02"))
    wire.link.handle(StreamReset(error_code=1, stream_id=4))
    wire.link.handle(DatagramFrameReceived(data=b"datagram"))
    wire.link.handle(StopSendingReceived(error_code=1, stream_id=0))
    assert wire.ear.told == [
        ("opened", Lane.MESSAGE),
        ("closed", Lane.MESSAGE),
        ("datagram", b"datagram"),
        ("close", Code.OK),
    ]


async def test_what_the_core_asks_goes_to_the_connection(wire: Wire) -> None:
    await wire.up()
    assert (wire.link.transport, wire.link.lanes, wire.link.prefix) == ("quic", True, None)
    assert wire.link.address == "192.0.2.7"
    assert wire.link.tickets() == ("one",)
    assert wire.link.max_datagram == 1200
    assert wire.link.send_datagram(b"d")
    assert wire.peer.datagrams == [b"d"]
    assert not wire.link.send(bytes(HIGH + 1))
    assert wire.link.unsent == HIGH + 1
    wire.link.pause()
    wire.link.handle(data(0, b"abc"))
    assert wire.peer.granted == {0: 1}
    wire.link.resume()
    assert wire.peer.granted == {0: 4}
    wire.link.open_stream().finish()
    assert wire.peer.sent[3] == b"\x03"


async def test_a_goodbye_waits_for_what_was_said_before(wire: Wire, nursery: trio.Nursery) -> None:
    await wire.up()
    wire.link.send(b"last words")
    nursery.start_soon(wire.link.say_goodbye, Code.KICKED_BY_ADMIN, "x" * 1000)
    await wait_all_tasks_blocked()
    wire.link.pumped()
    await wait_all_tasks_blocked()
    assert wire.peer.closed is None
    wire.peer.take(0)
    wire.link.pumped()
    await wait_all_tasks_blocked()
    assert wire.peer.closed == (Code.KICKED_BY_ADMIN, "x" * LONGEST_REASON)


async def test_a_peer_that_acknowledges_nothing_is_told_all_the_same(wire: Wire, autojump_clock: MockClock) -> None:
    await wire.up()
    wire.link.send(b"last words")
    with trio.fail_after(2):
        await wire.link.say_goodbye(Code.SLOW_CONSUMER, "slow")
    assert wire.peer.closed == (Code.SLOW_CONSUMER, "slow")


async def test_a_goodbye_that_is_cancelled_is_said_by_abort(wire: Wire) -> None:
    await wire.up()
    wire.link.send(b"last words")
    with trio.move_on_after(0):
        await wire.link.say_goodbye(Code.SLOW_CONSUMER, "slow")
    wire.link.abort()
    assert wire.peer.closed == (Code.SLOW_CONSUMER, "slow")


async def test_after_abort_nothing_is_told(wire: Wire) -> None:
    await wire.up()
    wire.link.handle(data(2, b"\x03abc"))
    told = len(wire.ear.told)
    wire.link.abort()
    wire.link.abort()
    wire.link.handle(data(0, b"more"))
    wire.link.handle(DatagramFrameReceived(data=b"datagram"))
    wire.link.pumped()
    wire.link.ended(0, "")
    assert len(wire.ear.told) == told
    assert wire.ear.sinks[0].end_of == [0]
    assert wire.peer.closed == (Code.GOING_AWAY, "")


async def test_the_end_of_the_connection_is_told_once(wire: Wire) -> None:
    await wire.up()
    wire.link.ended(4242, "bye")
    assert wire.ear.told == [("lost", "bye")]
    with pytest.raises(LinkClosed):
        await wire.link.flush()


async def test_a_connection_that_ended_before_it_was_opened(wire: Wire) -> None:
    wire.link.handle(COMPLETE)
    wire.link.attach(wire.ear)
    wire.link.ended(0, "")
    with pytest.raises(LinkClosed):
        await wire.link.open()
    assert not wire.ear.told
    for call in (wire.link.pause, wire.link.resume, wire.link.abort):
        call()
    assert wire.link.send(b"x")
    assert wire.link.unsent == 0
    with pytest.raises(LinkClosed):
        wire.link.open_stream()
    with pytest.raises(LinkClosed):
        await wire.link.flush()


async def test_one_that_is_turned_away_is_told_the_code(wire: Wire, autojump_clock: MockClock) -> None:
    """The refusal cannot be a frame when the client's control lane has not come yet: the close says it."""
    wire.link.handle(COMPLETE)
    with trio.fail_after(5):
        await turn_away(wire.link, Code.NODE_FULL)
    assert wire.peer.closed == (Code.NODE_FULL, "node_full")
