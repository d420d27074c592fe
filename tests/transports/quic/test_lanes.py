"""Which stream is which lane, what is refused and how, credit, and room to send."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.core.link import Lane, LinkClosed
from gateway.protocol.codes import Code
from gateway.transports.quic.ephemeral import HIGH
from gateway.transports.quic.streams import INCOMING, OUTGOING, REFUSALS, LaneStreams
from tests.transports.quic.fake import Ear, FakePeer

CONTROL, MESSAGE, FILE = 0, 4, 2
"""Stream ids as a client would use them: bidirectional, bidirectional, unidirectional."""


class Lanes:
    def __init__(self) -> None:
        self.peer = FakePeer()
        self.ear = Ear()
        self.streams = LaneStreams(self.peer, self.ear)

    def open_both(self) -> None:
        self.streams.received(CONTROL, b"\x01", False)
        self.streams.received(MESSAGE, b"\x02", False)


@pytest.fixture
async def lanes() -> Lanes:
    return Lanes()


async def test_the_first_byte_names_the_lane(lanes: Lanes) -> None:
    lanes.streams.received(CONTROL, b"\x01con", False)
    lanes.streams.received(MESSAGE, b"\x02", False)
    lanes.streams.received(MESSAGE, b"mes", False)
    lanes.streams.received(CONTROL, b"trol", False)
    lanes.streams.received(FILE, b"\x03", False)
    lanes.streams.received(FILE, b"file", True)
    assert lanes.ear.heard == {Lane.CONTROL: b"control", Lane.MESSAGE: b"mes"}
    assert ("opened", Lane.MESSAGE) in lanes.ear.told
    assert ("opened", Lane.CONTROL) not in lanes.ear.told
    (sink,) = lanes.ear.sinks
    assert (sink.heard, sink.end_of) == (b"file", ["end"])
    assert lanes.streams.statistics() == {"incoming": 2, "outgoing": 0, "lanes": 2}


async def test_the_message_lane_may_come_before_control(lanes: Lanes) -> None:
    """Packets are reordered; nothing depends on which stream is heard first."""
    lanes.streams.received(MESSAGE, b"\x02m", False)
    lanes.streams.received(CONTROL, b"\x01c", False)
    assert lanes.ear.heard == {Lane.MESSAGE: b"m", Lane.CONTROL: b"c"}


@pytest.mark.parametrize(
    ("stream_id", "data", "code"),
    [
        (8, b"\x00", Code.UNKNOWN_TYPE),
        (8, b"\x04rest", Code.UNKNOWN_TYPE),
        (8, b"\x03", Code.TYPE_MISMATCH),
        (6, b"\x01", Code.TYPE_MISMATCH),
        (6, b"\x02", Code.TYPE_MISMATCH),
        (8, b"\x01", Code.TOO_MANY_STREAMS),
        (8, b"\x02", Code.TOO_MANY_STREAMS),
    ],
)
async def test_t05_what_is_no_lane_is_refused_and_the_others_go_on(
    lanes: Lanes, stream_id: int, data: bytes, code: Code
) -> None:
    lanes.open_both()
    lanes.streams.received(stream_id, data, False)
    lanes.streams.received(stream_id, b"more of it", False)
    lanes.streams.received(stream_id, b"", True)
    assert lanes.peer.stops == {stream_id: code}
    assert lanes.peer.resets == ({} if stream_id & 2 else {stream_id: code})
    assert stream_id not in lanes.peer.granted or lanes.peer.granted[stream_id] == 1
    lanes.streams.received(CONTROL, b"on", False)
    assert lanes.ear.heard == {Lane.CONTROL: b"on"}
    assert not any(told[0] == "close" for told in lanes.ear.told)
    assert lanes.streams.statistics()["incoming"] == 2


async def test_a_stream_without_a_lane_byte_is_refused(lanes: Lanes) -> None:
    lanes.streams.received(8, b"", True)
    assert lanes.peer.resets == {8: Code.MALFORMED_FRAME}
    assert lanes.streams.statistics()["incoming"] == 0


async def test_whoever_is_refused_too_often_is_closed(lanes: Lanes, autojump_clock: MockClock) -> None:
    for number in range(REFUSALS):
        lanes.streams.received(number * 4, b"\x09", True)
    assert not lanes.ear.told
    await trio.sleep(60)
    for number in range(REFUSALS):
        lanes.streams.received(number * 4, b"\x09", True)
    assert not lanes.ear.told
    lanes.streams.received(4, b"\x09", True)
    assert lanes.ear.told == [("close", Code.TOO_MANY_STREAMS)]


@pytest.mark.parametrize("how", ["end", "reset", "stopped"])
async def test_the_end_of_control_ends_the_connection(lanes: Lanes, how: str) -> None:
    lanes.open_both()
    if how == "end":
        lanes.streams.received(CONTROL, b"", True)
    elif how == "reset":
        lanes.streams.was_reset(CONTROL, 1)
    else:
        lanes.streams.was_stopped(CONTROL, 1)
    assert lanes.ear.told[-1] == ("close", Code.OK)
    # what is owed to the peer can be said if it still listens
    lanes.streams.send_on(Lane.CONTROL, b"bye")
    assert lanes.peer.sent[CONTROL] == (b"bye" if how != "stopped" else b"")


@pytest.mark.parametrize("how", ["end", "reset", "stopped"])
async def test_the_message_lane_comes_and_goes(lanes: Lanes, how: str) -> None:
    lanes.open_both()
    lanes.streams.pause()
    lanes.streams.received(MESSAGE, b"abc", False)
    if how == "end":
        lanes.streams.received(MESSAGE, b"", True)
    elif how == "reset":
        lanes.streams.was_reset(MESSAGE, 1)
    else:
        lanes.streams.was_stopped(MESSAGE, 1)
        lanes.streams.received(MESSAGE, b"late", True)
    assert lanes.ear.told[-1] == ("closed", Lane.MESSAGE)
    assert lanes.ear.heard[Lane.MESSAGE] == b"abc"
    assert lanes.peer.granted[MESSAGE] == 4, "what was withheld is given back"
    assert MESSAGE in lanes.peer.finished
    lanes.streams.received(8, b"\x02again", False)
    assert lanes.ear.heard[Lane.MESSAGE] == b"abcagain"
    lanes.streams.was_stopped(MESSAGE, 1)  # a late word about the old one
    lanes.streams.send_on(Lane.MESSAGE, b"x")
    assert lanes.peer.sent[8] == b"x"


async def test_pausing_stops_the_credit_of_both_lanes_and_of_no_file(lanes: Lanes) -> None:
    lanes.open_both()
    lanes.streams.received(CONTROL, b"12", False)
    assert lanes.peer.granted == {CONTROL: 3, MESSAGE: 1}
    lanes.streams.pause()
    lanes.streams.received(CONTROL, b"345", False)
    lanes.streams.received(MESSAGE, b"6", False)
    lanes.streams.received(FILE, b"\x03data", False)
    lanes.ear.sinks[0].stream.grant(4)
    assert lanes.peer.granted == {CONTROL: 3, MESSAGE: 1, FILE: 5}
    lanes.streams.resume()
    lanes.streams.resume()
    assert lanes.peer.granted == {CONTROL: 6, MESSAGE: 2, FILE: 5}


async def test_a_file_gets_credit_by_its_sink_alone_and_can_be_stopped(lanes: Lanes) -> None:
    lanes.streams.received(FILE, b"\x03abc", False)
    (sink,) = lanes.ear.sinks
    assert lanes.peer.granted == {FILE: 1}
    sink.stream.grant(2)
    assert lanes.peer.granted == {FILE: 3}
    sink.stream.stop(Code.RATE_LIMITED)
    sink.stream.stop(Code.RATE_LIMITED)
    lanes.streams.received(FILE, b"late", True)
    assert lanes.peer.stops == {FILE: Code.RATE_LIMITED}
    assert (sink.heard, sink.end_of) == (b"abc", [])


async def test_the_last_bytes_of_a_file_are_granted_behind_its_end(lanes: Lanes) -> None:
    lanes.streams.received(FILE, b"\x03abc", True)
    lanes.ear.sinks[0].stream.grant(3)
    assert lanes.peer.granted == {FILE: 4}


async def test_a_file_given_up_and_one_that_nobody_wants(lanes: Lanes) -> None:
    lanes.streams.received(FILE, b"\x03abc", False)
    lanes.streams.was_reset(FILE, 77)
    assert lanes.ear.sinks[0].end_of == [77]
    lanes.ear.takes_files = False
    lanes.streams.received(6, b"\x03abc", False)
    assert lanes.peer.stops == {6: Code.TOO_MANY_STREAMS}


async def test_files_at_a_time_are_bounded(lanes: Lanes) -> None:
    for number in range(INCOMING + 1):
        lanes.streams.received(FILE + number * 4, b"\x03", False)
    assert len(lanes.ear.sinks) == INCOMING
    assert lanes.peer.stops == {FILE + INCOMING * 4: Code.TOO_MANY_STREAMS}
    lanes.ear.sinks[0].stream.stop(0)
    lanes.streams.received(FILE + 4, b"", True)
    for number in (100, 101, 102):
        lanes.streams.received(FILE + number * 4, b"\x03", False)
    assert len(lanes.ear.sinks) == INCOMING + 2


async def test_a_full_lane_says_so_and_says_when_it_is_not(lanes: Lanes) -> None:
    lanes.open_both()
    assert lanes.streams.send_on(Lane.MESSAGE, bytes(HIGH))
    assert not lanes.streams.send_on(Lane.MESSAGE, b"x")
    assert not lanes.streams.send_on(Lane.MESSAGE, b"x"), "what is sent all the same is kept"
    assert lanes.streams.send_on(Lane.CONTROL, b"x"), "each lane has its own room"
    assert lanes.streams.unsent_on(Lane.MESSAGE) == HIGH + 2
    lanes.streams.pumped()
    assert ("writable", Lane.MESSAGE) not in lanes.ear.told
    lanes.peer.take(MESSAGE)
    lanes.streams.pumped()
    lanes.streams.pumped()
    assert lanes.ear.told.count(("writable", Lane.MESSAGE)) == 1
    assert lanes.streams.send_on(Lane.MESSAGE, b"x")


async def test_flushing_waits_for_room(lanes: Lanes, nursery: trio.Nursery) -> None:
    lanes.open_both()
    lanes.streams.send_on(Lane.CONTROL, bytes(HIGH + 1))
    flushed = trio.Event()

    async def flush() -> None:
        await lanes.streams.room(Lane.CONTROL)
        flushed.set()

    nursery.start_soon(flush)
    await wait_all_tasks_blocked()
    lanes.streams.pumped()
    await wait_all_tasks_blocked()
    assert not flushed.is_set()
    lanes.peer.take(CONTROL)
    lanes.streams.pumped()
    with trio.fail_after(5):
        await flushed.wait()


async def test_flushing_a_link_that_is_gone_fails(lanes: Lanes, nursery: trio.Nursery) -> None:
    lanes.open_both()
    lanes.streams.send_on(Lane.CONTROL, bytes(HIGH + 1))
    failed = trio.Event()

    async def flush() -> None:
        with pytest.raises(LinkClosed):
            await lanes.streams.room(Lane.CONTROL)
        failed.set()

    nursery.start_soon(flush)
    await wait_all_tasks_blocked()
    lanes.streams.end()
    with trio.fail_after(5):
        await failed.wait()


async def test_before_the_peer_opened_control_nothing_is_sent(lanes: Lanes) -> None:
    assert lanes.streams.send_on(Lane.CONTROL, b"x")
    assert not lanes.peer.sent


async def test_a_stream_of_ours_waits_for_room(lanes: Lanes, nursery: trio.Nursery) -> None:
    stream = lanes.streams.open_stream()
    (stream_id,) = lanes.peer.sent
    assert lanes.peer.sent[stream_id] == b"\x03"
    with trio.fail_after(5):
        await stream.send(b"abc")
    sent = trio.Event()

    async def send() -> None:
        await stream.send(bytes(HIGH))
        sent.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    lanes.streams.pumped()
    await wait_all_tasks_blocked()
    assert not sent.is_set()
    lanes.peer.take(stream_id)
    lanes.streams.pumped()
    with trio.fail_after(5):
        await sent.wait()
    stream.finish()
    stream.reset(1)
    assert lanes.peer.finished == {stream_id}
    assert not lanes.peer.resets


async def test_a_finished_stream_counts_until_the_peer_has_it(lanes: Lanes) -> None:
    """Else a peer that acknowledges nothing could have us keep file after file."""
    for _ in range(OUTGOING):
        stream = lanes.streams.open_stream()
        await stream.send(b"a small file")
        stream.finish()
    lanes.streams.pumped()
    with pytest.raises(LinkClosed, match="too many"):
        lanes.streams.open_stream()
    for stream_id in lanes.peer.sent:
        lanes.peer.take(stream_id)
    lanes.streams.pumped()
    assert lanes.streams.statistics()["outgoing"] == 0
    lanes.streams.open_stream()


@pytest.mark.parametrize("how", ["stopped", "link"])
async def test_a_stream_of_ours_that_is_not_wanted(lanes: Lanes, how: str, nursery: trio.Nursery) -> None:
    stream = lanes.streams.open_stream()
    (stream_id,) = lanes.peer.sent
    failed = trio.Event()

    async def send() -> None:
        with pytest.raises(LinkClosed):
            await stream.send(bytes(HIGH + 1))
        failed.set()

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    if how == "stopped":
        lanes.streams.was_stopped(stream_id, 5)
    else:
        lanes.streams.end()
    with trio.fail_after(5):
        await failed.wait()
        with pytest.raises(LinkClosed):
            await stream.send(b"x")
    stream.finish()
    assert lanes.streams.statistics()["outgoing"] == 0


async def test_streams_of_ours_are_bounded(lanes: Lanes) -> None:
    streams = [lanes.streams.open_stream() for _ in range(OUTGOING)]
    with pytest.raises(LinkClosed, match="too many"):
        lanes.streams.open_stream()
    streams[0].reset(9)
    assert list(lanes.peer.resets.values()) == [9]
    lanes.streams.open_stream()
    lanes.peer.allowed = lanes.peer.opened
    streams[1].reset(9)
    with pytest.raises(LinkClosed, match="allows no further"):
        lanes.streams.open_stream()


async def test_when_the_link_goes_sinks_are_told_and_nobody_else_hears(lanes: Lanes) -> None:
    lanes.open_both()
    lanes.streams.received(FILE, b"\x03abc", False)
    told = len(lanes.ear.told)
    lanes.streams.end()
    lanes.streams.end()
    lanes.streams.received(CONTROL, b"late", True)
    lanes.streams.was_reset(MESSAGE, 1)
    lanes.streams.was_stopped(MESSAGE, 1)
    lanes.streams.pumped()
    assert len(lanes.ear.told) == told
    assert lanes.ear.sinks[0].end_of == [0]
    assert lanes.streams.statistics() == {"incoming": 0, "outgoing": 0, "lanes": 0}
    with pytest.raises(LinkClosed):
        lanes.streams.open_stream()
