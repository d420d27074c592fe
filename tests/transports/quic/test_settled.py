"""A connection that has settled: whatever it does the short way comes out as it would the long way."""

from __future__ import annotations

import random

import pytest
from aioquic.quic.connection import QuicReceiveContext
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.recovery import QuicPacketNumberWindow
from aioquic.tls import Epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.quic_lean import Window, pull_varint
from gateway.protocol.varints import varint
from gateway.transports.quic.tickets import Tickets
from tests.transports.quic.pair import CLIENT, SERVER, Pair, stream_frame
from tests.transports.quic.pair import varint as varints


def settled(**fields: object) -> Pair:
    pair = Pair(**fields).connect()  # type: ignore[arg-type]
    for _ in range(3):
        pair.step()
    assert pair.server._settled
    return pair


def data_of(events: list[QuicEvent], stream_id: int = 0) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, StreamDataReceived) and e.stream_id == stream_id)


# -- what it is made of --------------------------------------------------------------------------------------


@given(st.integers(0, 2**62 - 1))
def test_integers_are_as_aioquic_writes_them(value: int) -> None:
    assert varint(value) == varints(value)
    assert pull_varint(b"x" + varint(value) + b"y", 1) == (value, 1 + len(varint(value)))


@given(st.lists(st.integers(0, 2_000), max_size=400))
def test_the_window_takes_no_duplicate_for_new(numbers: list[int]) -> None:
    ours, theirs, seen = Window(), QuicPacketNumberWindow(), set[int]()
    for number in numbers:
        if number in seen:
            assert number in ours
        elif seen and number > max(seen) - 128:
            assert (number in ours) == (number in theirs)
        seen.add(number)
        ours.add(number)
        theirs.add(number)


# -- both ways, over a bad path ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_everything_arrives_once_and_in_order_over_a_bad_path(seed: int) -> None:
    """Loss of 8 %, duplicates, and order turned around, in both directions."""
    luck = random.Random(seed)
    pair = settled()
    late: list[tuple[bytes, bool]] = []

    def lost(data: bytes, from_server: bool) -> bool:
        fate = luck.random()
        if fate < 0.08:
            return True
        if fate < 0.16:
            late.append((data, from_server))
            return fate < 0.12  # late, or twice
        return False

    pair.lost = lost
    up, down = luck.randbytes(150_000), luck.randbytes(150_000)
    pair.client.send_stream_data(0, up[:75_000])
    pair.client.send_stream_data(4, up, True)
    pair.step()
    sent = 0
    for number in range(3_000):
        if sent < len(down) and number % 3 == 0:
            pair.server.send_stream_data(1, down[sent : sent + 7_000], sent + 7_000 >= len(down))
            sent += 7_000
        if number == 50:
            pair.client.send_stream_data(0, up[75_000:])
        pair.step(0.004)
        luck.shuffle(late)
        while late and luck.random() < 0.5:
            data, from_server = late.pop()
            if from_server:
                pair.client.receive_datagram(data, SERVER, pair.now)
            else:
                pair.server.receive_datagram(data, CLIENT, pair.now)
        if data_of(pair.told, 1) == down and data_of(pair.heard) == up and data_of(pair.heard, 4) == up:
            break
    assert data_of(pair.told, 1) == down
    assert data_of(pair.heard) == up
    assert data_of(pair.heard, 4) == up
    assert pair.verdict is None
    assert pair.server._settled


def test_what_is_lost_at_the_end_is_sent_again() -> None:
    pair = settled()
    pair.lost = lambda _data, from_server: from_server
    pair.server.send_stream_data(1, b"lost", True)
    pair.step()
    pair.lost = lambda _data, _from_server: False
    for _ in range(20):
        pair.step()
    assert data_of(pair.told, 1) == b"lost"
    assert pair.server._loss._cc.bytes_in_flight == 0


# -- acknowledgements ----------------------------------------------------------------------------------------


def test_an_echo_carries_the_acknowledgement() -> None:
    pair = settled()
    pair.client.send_stream_data(0, b"ping")
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.server.receive_datagram(data, CLIENT, pair.now)
    pair.server.send_stream_data(0, b"pong")
    (packet,) = pair.answer()
    assert len(packet) < 60
    assert not pair.client._spaces[Epoch.ONE_RTT].sent_packets


def test_without_an_answer_it_waits_and_comes_in_time() -> None:
    pair = settled()
    pair.client.send_stream_data(0, b"ping")
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.server.receive_datagram(data, CLIENT, pair.now)
    assert pair.answer() == []
    assert pair.now < pair.server.deadline() <= pair.now + 0.025
    pair.now += 0.025
    pair.server.handle_timer(pair.now)
    assert len(pair.answer()) == 1
    assert not pair.client._spaces[Epoch.ONE_RTT].sent_packets


def test_the_second_packet_is_acknowledged_at_once_and_a_gap_too() -> None:
    pair = settled()
    pair.attack(b"\x01")
    assert pair.answer() == []
    pair.attack(b"\x01")
    assert len(pair.answer()) == 1
    pair.client._packet_number += 3
    pair.attack(b"\x01")
    assert len(pair.answer()) == 1


def test_acknowledgements_alone_are_not_acknowledged() -> None:
    pair = settled()
    for _ in range(10):
        pair.attack(b"\x02" + varints(pair.server._packet_number - 1, 0, 0, 0))
        assert pair.answer() == []
    assert pair.server.deadline() > pair.now + 10


def test_duplicates_are_dropped_and_nobody_hears_of_forgeries() -> None:
    pair = settled()
    packet = pair.forge(stream_frame(0, 0, b"hello"))
    for _ in range(3):
        pair.server.receive_datagram(packet, CLIENT, pair.now)
    for at in range(len(packet)):
        pair.server.receive_datagram(packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :], CLIENT, pair.now)
    for size in range(len(packet)):
        pair.server.receive_datagram(packet[:size], CLIENT, pair.now)
    pair.answer()
    assert data_of(pair.heard) == b"hello"
    assert pair.verdict is None


def skipping(pair: Pair) -> int:
    """Have the server leave a number out; which."""
    pair.server._skip_at = pair.server._packet_number
    pair.server.send_stream_data(1, b"x")
    pair.step()
    assert pair.server._skipped > 0
    return int(pair.server._skipped)


@pytest.mark.parametrize("ranges", [1, 2])
def test_t21_who_acknowledges_what_was_left_out_has_not_seen_the_rest_either(ranges: int) -> None:
    pair = settled()
    skipped = skipping(pair)
    assert pair.verdict is None
    sent = pair.server._packet_number - 1
    window = pair.server._loss.congestion_window
    both = varints(sent, 0, 0, sent - skipped + 1) if ranges == 1 else varints(sent, 0, 1, sent - skipped, 0, 1)
    pair.attack(b"\x02" + both)
    assert pair.verdict == (QuicErrorCode.PROTOCOL_VIOLATION, 2)
    assert pair.server._loss.congestion_window == window


def test_numbers_left_out_harm_nobody() -> None:
    pair = settled()
    for number in range(30):
        if number % 3 == 0:
            skipping(pair)
        pair.server.send_stream_data(1, bytes(5_000))
        pair.client.send_stream_data(0, b"x")
        pair.step()
    for _ in range(5):
        pair.step()
    assert len(data_of(pair.told, 1)) == 150_010
    assert data_of(pair.heard) == b"x" * 30
    assert pair.verdict is None
    assert pair.server._loss._cc.bytes_in_flight == 0


# -- frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (b"", QuicErrorCode.PROTOCOL_VIOLATION),
        (b"\x1f", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x40\x1f", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\xff", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x08", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x0a\x00\x05abc", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x0f\x00\x80", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x31\x05abc", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x02\x00", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x02\x00\x00\x00\x05", QuicErrorCode.FRAME_ENCODING_ERROR),
        (b"\x07\x01x", QuicErrorCode.PROTOCOL_VIOLATION),
        (b"\x1e", QuicErrorCode.PROTOCOL_VIOLATION),
        (stream_frame(1, 0, b"x"), QuicErrorCode.STREAM_STATE_ERROR),
        (stream_frame(3, 0, b"x"), QuicErrorCode.STREAM_STATE_ERROR),
        (stream_frame(400, 0, b"x"), QuicErrorCode.STREAM_LIMIT_ERROR),
        (stream_frame(0, 2**61, b"x"), QuicErrorCode.FLOW_CONTROL_ERROR),
        (stream_frame(0, 2**62 - 1, b"x"), QuicErrorCode.FRAME_ENCODING_ERROR),
        (stream_frame(0, 0, b"x", fin=True) + stream_frame(0, 1, b"y"), QuicErrorCode.FINAL_SIZE_ERROR),
        (b"\x06\x00\x04" + b"\x14\x00\x00\x00", QuicErrorCode.CRYPTO_ERROR + 10),
    ],
)
def test_what_breaks_the_rules_ends_the_connection_by_its_code(frames: bytes, error: int) -> None:
    pair = settled()
    number, pair.client._packet_number = pair.client._packet_number, pair.client._packet_number + 1
    crypto = pair.client._cryptos[Epoch.ONE_RTT]
    head = bytes([0x43]) + pair.client._peer_cid.cid + number.to_bytes(4, "big")
    pair.server.receive_datagram(crypto.encrypt_packet(head, frames, number), CLIENT, pair.now)
    assert pair.verdict is not None
    assert pair.verdict[0] == error
    assert len(pair.answer()) == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_any_frames_do_the_same_to_ours_and_to_aioquics(frames: bytes) -> None:
    """What one takes the other takes; what one refuses the other refuses."""
    verdicts = []
    for pair in (PLAIN, OURS):
        before = (pair.server._close_event, pair.server._state, pair.server._close_pending)
        context = pair.context()
        try:
            pair.server._payload_received(context, frames)
        except Exception as error:
            verdicts.append(getattr(error, "error_code", repr(error)))
        else:
            verdicts.append(0)
        pair.server._close_event, pair.server._state, pair.server._close_pending = before
    if verdicts[0] != verdicts[1]:
        stricter = {QuicErrorCode.PROTOCOL_VIOLATION, QuicErrorCode.CRYPTO_BUFFER_EXCEEDED}
        assert verdicts[1] in stricter, verdicts


class Fresh(Pair):
    """A pair whose server's frames are handled without packets."""

    def context(self) -> QuicReceiveContext:
        return QuicReceiveContext(
            epoch=Epoch.ONE_RTT,
            host_cid=self.server.host_cid,
            network_path=self.server._network_paths[0],
            quic_logger_frames=None,
            time=self.now,
            version=None,
        )


PLAIN, OURS = Fresh(plain=True).connect(), Fresh().connect()


def test_padding_and_all_kinds_in_one_packet() -> None:
    pair = settled()
    frames = b"\0\0" + stream_frame(0, 0, b"one") + b"\x31\x03two" + b"\x01" + b"\0" + b"\x30three"
    pair.attack(frames)
    pair.answer()
    assert data_of(pair.heard) == b"one"
    assert [e.data for e in pair.heard if isinstance(e, DatagramFrameReceived)] == [b"two", b"three"]


# -- what else there is --------------------------------------------------------------------------------------


def test_keys_are_updated_by_either_side() -> None:
    pair = settled()
    for number, side in enumerate((pair.client, pair.server, pair.client)):
        side.request_key_update()
        for _ in range(3):
            pair.client.send_stream_data(0, b"x")
            pair.step()
            pair.server.send_stream_data(1, b"y")
            pair.step()
        assert pair.server._cryptos[Epoch.ONE_RTT].recv.key_phase == (number + 1) % 2
    assert data_of(pair.heard) == b"x" * 9
    assert data_of(pair.told, 1) == b"y" * 9


def test_late_packets_of_the_handshake_are_passed_over() -> None:
    pair = Pair()
    kept: list[bytes] = []

    def keep(data: bytes, from_server: bool) -> bool:
        if not from_server and data[0] & 0x80:
            kept.append(data)
        return False

    pair.lost = keep
    pair.connect()
    pair.lost = lambda _data, _from_server: False
    for _ in range(3):
        pair.step()
    assert kept
    for data in kept:
        pair.server.receive_datagram(data, CLIENT, pair.now)
        pair.server.receive_datagram(data[:7], CLIENT, pair.now)
    long = kept[-1][: 1 + 4 + 1 + 10 + 1 + 8] + b"\x40\x20" + bytes(32)
    pair.server.receive_datagram(bytes([0xE0]) + long[1:] + pair.forge(stream_frame(0, 0, b"behind")), CLIENT, pair.now)
    pair.answer()
    assert pair.verdict is None
    assert data_of(pair.heard) == b"behind"


def test_what_was_for_the_handshake_is_gone() -> None:
    pair = settled(tickets=Tickets(10, clock=lambda: 0.0))
    server = pair.server
    assert [*server._spaces] == [*server._crypto_streams] == [Epoch.ONE_RTT]
    assert not server._cryptos_initial
    assert not server._crypto_buffers
    assert not hasattr(server, "_QuicConnection__frame_handlers")
    assert pair.tickets


def test_the_flow_control_of_the_peer_is_kept() -> None:
    pair = settled()
    pair.server.send_stream_data(1, bytes(5_000_000))
    for _ in range(100):
        pair.answer()
        pair.now += 0.001
    limit = pair.server._streams[1].max_stream_data_remote
    assert pair.server._streams[1].sender.highest_offset <= limit
    assert pair.server._remote_max_data_used <= pair.server._remote_max_data


def test_streams_that_send_at_once_take_turns() -> None:
    pair = settled()
    for stream_id in (1, 5, 9):
        pair.server.send_stream_data(stream_id, bytes(30_000))
    for _ in range(10):
        pair.step(0.01)
        got = [len(data_of(pair.told, stream_id)) for stream_id in (1, 5, 9)]
        assert max(got) - min(got) <= 3_000
    assert got == [30_000] * 3


def test_the_deadline_is_aioquics() -> None:
    pair = settled()
    for number in range(60):
        if number % 2:
            pair.server.send_stream_data(1, bytes(500 * number))
        if number % 3:
            pair.client.send_stream_data(0, bytes(700))
        pair.step(0.005)
        assert pair.server.deadline() == pytest.approx(pair.server.get_timer())
