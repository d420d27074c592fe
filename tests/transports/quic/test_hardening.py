"""What is overridden of aioquic, each beside what the library does by itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import Epoch

from gateway.protocol.codes import Code
from gateway.transports.quic import privates
from gateway.transports.quic.budget import Act, Rate
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.hardening import ACTIVE_IDS, GAPS_MOST
from gateway.transports.quic.tickets import Tickets
from tests.transports.quic.pair import LIBERAL, Pair, stream_frame, varint
from tests.transports.quic.world import SECRET

STORM = 500


def held(pair: Pair) -> int:
    """Bytes that the server keeps of what arrived out of order."""
    return sum(len(stream.receiver._buffer) for stream in pair.server._streams.values())


def deafen(pair: Pair) -> None:
    """The client hears no more: it would complain of answers to what it never asked."""
    pair.lost = lambda _data, from_server: from_server


def limited(act: Act) -> tuple[Rate, ...]:
    return tuple(Rate(10, 20) if each is act else LIBERAL for each in Act)


# -- T18: credit ---------------------------------------------------------------------------------------------


def sparse(pair: Pair, rounds: int) -> None:
    """One byte at the farthest offset that the credit allows, again and again."""
    deafen(pair)
    for _ in range(rounds):
        stream = pair.server._streams.get(0)
        limit = stream.max_stream_data_local if stream is not None else pair.server._local_max_stream_data_bidi_remote
        pair.attack(stream_frame(0, limit - 1, b"x"))
        pair.step()
        if pair.verdict is not None:
            break


def test_t18_credit_follows_what_is_delivered() -> None:
    pair = Pair().connect()
    sparse(pair, 13)
    assert held(pair) <= 262_144
    assert pair.server._streams[0].max_stream_data_local == 262_144


def test_t18_unpatched_credit_follows_what_is_seen() -> None:
    pair = Pair(plain=True).connect()
    sparse(pair, 5)
    assert held(pair) >= 16 * 1024 * 1024


def test_t18_over_all_streams_the_connection_window_is_the_most() -> None:
    pair = Pair().connect()
    deafen(pair)
    for stream_id in range(0, 400, 4):
        pair.attack(stream_frame(stream_id, 262_143, b"x"))
        pair.step()
    assert pair.verdict == (QuicErrorCode.FLOW_CONTROL_ERROR, 0x0E)
    assert held(pair) <= 1_048_576


@pytest.mark.parametrize("size", [1_000, 1_500_000])
def test_what_is_taken_can_be_sent_again(size: int) -> None:
    pair = Pair().connect()
    pair.client.send_stream_data(0, bytes(size), True)
    for _ in range(2_000):
        pair.step(0.002)
        if sum(len(event.data) for event in pair.heard if isinstance(event, StreamDataReceived)) == size:
            break
    else:
        pytest.fail("not all of it arrived")
    assert pair.verdict is None


def test_many_streams_after_each_other_use_no_credit_up() -> None:
    pair = Pair().connect()
    for number in range(120):
        pair.client.send_stream_data(4 * number, bytes(40_000), True)
        for _ in range(20):
            pair.step(0.005)
            pair.server.abandon_sending(4 * number, 0)
    received = sum(len(event.data) for event in pair.heard if isinstance(event, StreamDataReceived))
    assert received == 120 * 40_000


def filled(pair: Pair) -> int:
    """Let the client send all that it may; how much the server has got."""
    for _ in range(400):
        pair.step(0.005)
    return sum(len(event.data) for event in pair.heard if isinstance(event, StreamDataReceived))


def test_a_manual_stream_gets_what_is_granted() -> None:
    pair = Pair().connect()
    pair.client.send_stream_data(0, b"\x03" + bytes(2_000_000), True)
    pair.step()
    pair.server.credit.take_over(0)
    assert filled(pair) <= 262_144 + 32_768  # what was delivered by itself before it was taken over counts too
    before = filled(pair)
    assert pair.server.credit.grant(0, before)
    assert before < filled(pair) <= before + 262_144
    pair.server.credit.grant(0, 10_000_000)  # more than was delivered
    assert filled(pair) <= 3 * 262_144


def test_what_is_held_of_one_stream_is_missing_to_the_others_until_it_ends() -> None:
    pair = Pair(window=262_144).connect()
    pair.client.send_stream_data(0, bytes(10), False)
    pair.step()
    pair.server.credit.take_over(0)
    pair.client.send_stream_data(0, bytes(2_000_000), False)
    filled(pair)
    assert pair.server.credit.held == 262_144
    pair.client.send_stream_data(4, b"hello", True)
    filled(pair)
    assert 4 not in {event.stream_id for event in pair.heard if isinstance(event, StreamDataReceived)}
    pair.client.reset_stream(0, 7)
    filled(pair)
    assert pair.server.credit.held == 0
    assert 4 in {event.stream_id for event in pair.heard if isinstance(event, StreamDataReceived)}


def test_a_stopped_stream_gets_no_further_credit_and_holds_none() -> None:
    pair = Pair(window=262_144).connect()
    pair.client.send_stream_data(0, bytes(10), False)
    pair.step()
    pair.server.credit.take_over(0)
    assert pair.server.abandon_reading(0, 9)
    assert not pair.server.abandon_reading(0, 9)
    limit = pair.server._streams[0].max_stream_data_local
    for offset in range(10, limit, 1_000):
        pair.attack(stream_frame(0, offset, bytes(min(1_000, limit - offset))))
        pair.answer()
    pair.step()
    assert pair.server._streams[0].max_stream_data_local == limit
    assert pair.server.credit.held == 0


# -- memory before anybody is known --------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_t12_a_far_byte_of_the_handshake(plain: bool) -> None:
    pair = Pair(plain=plain).connect()
    receiver = pair.server._crypto_streams
    pair.attack(b"\x06" + varint(500_000, 1) + b"x")
    if plain:
        assert max(len(stream.receiver._buffer) for stream in receiver.values()) > 400_000
    else:
        assert pair.verdict == (QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, 0x06)


# -- T21: acknowledgements -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_t21_an_acknowledgement_of_what_was_never_sent(plain: bool) -> None:
    pair = Pair(plain=plain).connect()
    pair.server.send_stream_data(1, b"hello", False)
    pair.lost = lambda _data, _from_server: True
    pair.answer()
    window = pair.server._loss.congestion_window
    pair.attack(b"\x02" + varint(5_000, 0, 0, 0))
    assert pair.server._loss.congestion_window <= window
    if plain:
        assert pair.verdict is None
        assert pair.server._spaces[Epoch.ONE_RTT].largest_acked_packet == 5_000
    else:
        assert pair.verdict == (QuicErrorCode.PROTOCOL_VIOLATION, 0x02)


# -- T16 and T17: storms -------------------------------------------------------------------------------------


def pieces(pair: Pair) -> None:
    deafen(pair)
    for piece in range(GAPS_MOST + 50):
        pair.attack(stream_frame(0, 2 * piece + 1, b"x"))
        pair.answer()
        if pair.verdict is not None:
            break


def test_pieces_that_lie_apart_are_bounded() -> None:
    pair = Pair().connect()
    pieces(pair)
    assert pair.verdict == (QuicErrorCode.INTERNAL_ERROR, 0x0E)


def test_unpatched_any_number_of_pieces_is_kept() -> None:
    pair = Pair(plain=True).connect()
    pieces(pair)
    assert pair.verdict is None
    assert len(pair.server._streams[0].receiver._ranges) == GAPS_MOST + 50


def streams(pair: Pair) -> None:
    for number in range(STORM):
        pair.attack(stream_frame(4 * number, 0, b"x", fin=True) + b"\x05" + varint(4 * number, 0))


def resets(pair: Pair) -> None:
    for number in range(STORM):
        pair.attack(b"\x04" + varint(4 * number, 7, 0))


def stops(pair: Pair) -> None:
    for number in range(STORM):
        pair.attack(b"\x05" + varint(4 * number, 7))


def new_ids(pair: Pair) -> None:
    deafen(pair)
    for number in range(8, 8 + STORM):
        sent = pair.server._packet_number - 1
        everything = b"\x02" + varint(sent, 0, 0, sent)
        pair.attack(b"\x18" + varint(number, number) + b"\x08" + number.to_bytes(8, "big") + bytes(16) + everything)
        pair.now += 0.001
        pair.answer()


def retirements(pair: Pair) -> None:
    for number in range(STORM):
        mine = pair.client._peer_cid.sequence_number
        pair.attack(b"\x19" + varint(number) if number != mine else b"\x01")
        pair.answer()


def challenges(pair: Pair) -> None:
    for number in range(STORM):
        pair.attack(b"\x1a" + number.to_bytes(8, "big"))
        pair.answer()


STORMS = {
    "t17_streams": (Act.OPEN, streams),
    "t17_resets": (Act.RESET, resets),
    "t17_stops": (Act.RESET, stops),
    "t16_new_ids": (Act.IDENTIFY, new_ids),
    "t16_retirements": (Act.IDENTIFY, retirements),
    "t16_challenges": (Act.CHALLENGE, challenges),
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_storm_ends_the_connection(storm: str) -> None:
    act, attack = STORMS[storm]
    pair = Pair(rates=limited(act), bidirectional=10 * STORM).connect()
    attack(pair)
    pair.step()
    assert pair.verdict == (Code.RATE_LIMITED, None)


@pytest.mark.parametrize("storm", [name for name in STORMS if name != "t17_streams"])
def test_unpatched_a_storm_goes_on(storm: str) -> None:
    pair = Pair(plain=True)
    pair.server._local_max_streams_bidi.value = pair.server._local_max_streams_bidi.sent = 10 * STORM
    pair.connect()
    STORMS[storm][1](pair)
    assert pair.verdict is None


@pytest.mark.parametrize("storm", STORMS)
def test_what_a_client_does_in_a_minute_ends_nothing(storm: str) -> None:
    act, attack = STORMS[storm]
    pair = Pair(rates=limited(act), bidirectional=10 * STORM).connect()
    inner = pair.attack

    def slowly(frames: bytes) -> None:
        pair.now += 0.1
        inner(frames)

    pair.attack = slowly  # type: ignore[method-assign]
    attack(pair)
    assert pair.verdict is None


# -- connection ids ------------------------------------------------------------------------------------------


def test_ids_are_of_our_layout_and_their_tokens_are_known_after_a_restart() -> None:
    told: list[tuple[bytes, Any]] = []
    pair = Pair(issued=lambda cid, peer: told.append((cid, peer))).connect()
    again = ConnectionIds(SECRET)
    theirs = [pair.client._peer_cid, *pair.client._peer_cid_available]
    assert len(theirs) == ACTIVE_IDS
    assert [each.stateless_reset_token for each in theirs] == [again.reset_token(each.cid) for each in theirs]
    assert all(again.is_ours(each.cid) for each in theirs)
    assert told == [(each.cid, pair.owner) for each in theirs[1:]]


def test_unpatched_tokens_are_random() -> None:
    pair = Pair(plain=True).connect()
    assert not ConnectionIds(SECRET).is_ours(pair.client._peer_cid.cid)


# -- sending -------------------------------------------------------------------------------------------------


def test_a_datagram_that_does_not_fit_is_refused_and_blocks_nothing() -> None:
    pair = Pair().connect()
    room = pair.server.datagram_room
    assert not pair.server.offer_datagram(bytes(room + 1))
    assert pair.server.offer_datagram(bytes(room))
    assert pair.server.offer_datagram(b"small")
    pair.step()
    got = [len(event.data) for event in pair.told if isinstance(event, DatagramFrameReceived)]
    assert got == [room, 5]


def test_unpatched_it_stays_at_the_head_of_the_queue() -> None:
    pair = Pair(plain=True).connect()
    pair.server.send_datagram_frame(bytes(1_190))
    pair.server.send_datagram_frame(b"small")
    for _ in range(5):
        pair.step()
    assert len(pair.server._datagrams_pending) == 2


def test_datagrams_that_wait_are_bounded() -> None:
    pair = Pair().connect()
    assert sum(pair.server.offer_datagram(b"x") for _ in range(1_000)) == 64


def test_a_close_comes_after_what_was_queued() -> None:
    pair = Pair().connect()
    pair.server.send_stream_data(1, b"last words", False)
    pair.server.part(4403, "so long")
    pair.step()
    pair.step()
    assert any(isinstance(event, StreamDataReceived) and event.data == b"last words" for event in pair.told)
    closed = pair.client._close_event
    assert closed is not None
    assert (closed.error_code, closed.frame_type, closed.reason_phrase) == (4403, None, "so long")


def test_streams_of_ours_are_limited_by_the_peer() -> None:
    pair = Pair().connect()
    claimed = [pair.server.claim_stream(True) for _ in range(200)]
    assert claimed[:3] == [3, 7, 11]
    assert claimed.index(None) == 128


# -- early data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [True, False])
def test_early_data_by_a_ticket_that_serves_once(allowed: bool) -> None:
    tickets = Tickets(10, clock=lambda: 0.0)
    first = Pair(tickets=tickets, early_data=allowed).connect()
    for _ in range(3):
        first.step()
    (ticket,) = first.tickets
    assert first.owner.tickets_issued
    early = []
    for _ in range(2):
        again = Pair(tickets=tickets, ticket=ticket, early_data=allowed)
        again.client.connect(("127.0.0.1", 8443), again.now)
        again.client.send_stream_data(0, b"early", False)
        for data, _ in again.client.datagrams_to_send(again.now):
            again.server.receive_datagram(data, b"\x02\x00\x30\x39\x7f\x00\x00\x01", again.now)
        again.answer()
        early.append(any(isinstance(event, StreamDataReceived) for event in again.heard))
        if early == [allowed]:
            assert again.owner.ticket == first.owner.tickets_issued[0]
    assert early == [allowed, False]


# -- the privates --------------------------------------------------------------------------------------------


def test_a_missing_private_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert privates.missing() == []
    monkeypatch.delattr(QuicConnection, "_write_stream_limits")
    assert privates.missing() == ["QuicConnection._write_stream_limits"]
    with pytest.raises(ImportError, match=r"exactly, found .*, which lacks QuicConnection\._write_stream_limits: pip"):
        privates.check()


def test_another_version_fails_at_import() -> None:
    program = "import aioquic; aioquic.__version__ = '1.8.0'; import gateway.transports.quic.hardening"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: gateway needs aioquic 1.7.2 exactly, found 1.8.0: pip install it"
    )
