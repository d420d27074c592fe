"""One HTTP/3 connection: what is kept, what is held, what is refused, and with which code it ends."""

from __future__ import annotations

import pytest

from gateway.core.books import Account
from gateway.protocol.http3 import (
    Capsule,
    FrameType,
    H3Code,
    Setting,
    StreamType,
    close_capsule,
    frame,
    parse_settings,
    settings_frame,
    to_h3,
)
from gateway.protocol.varints import varint
from gateway.transports.webtransport.http3 import IDLE_FRAMES
from gateway.transports.webtransport.kinds import MAX_HEADERS
from gateway.transports.webtransport.session import HELD_BYTES, HELD_DATAGRAMS, HELD_STREAMS
from tests.transports.webtransport.fake import CONTROL, DECODER, ENCODER, ORIGIN, Client, FakeSink, request

BIDI = varint(FrameType.WEBTRANSPORT_STREAM)
UNI = varint(StreamType.WEBTRANSPORT)


def capsule(kind: int, value: bytes) -> bytes:
    return frame(FrameType.DATA, frame(kind, value))


def test_the_server_says_its_settings_first_and_none_that_promises_session_flow_control() -> None:
    client = Client()
    said = client.peer.sent[3]
    assert said[:2] == b"\x00\x04"
    settings = parse_settings(said[3:])
    assert {Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM, 0x2B603742, 0xC671706A, 0x14E9CD29} <= set(settings)
    assert settings[Setting.QPACK_MAX_TABLE_CAPACITY] == 0
    assert not {0x2B61, 0x2B64, 0x2B65} & set(settings)


def test_a_client_that_lets_us_open_nothing_is_closed() -> None:
    client = Client()
    client.peer.refuses = True
    client.http3.start()
    assert client.peer.closed is not None
    assert client.peer.closed[0] == H3Code.STREAM_CREATION_ERROR


# -- the session's beginning -----------------------------------------------------------------------------------


def test_a_session_byte_by_byte() -> None:
    client = Client()
    client.shake()
    for stream_id, data in ((CONTROL, b"\x00" + settings_frame({0x33: 1})), (0, request(origin=ORIGIN))):
        for byte in data:
            client.say(stream_id, bytes((byte,)))
    assert client.answer()[0] == 200
    assert client.host.notes == ["handshaken", "established"]
    sink = FakeSink()
    client.http3.session.deliver(sink)
    for byte in BIDI + b"\x00" + b"\x01hello":
        client.say(4, bytes((byte,)))
    assert b"".join(data for _, data, _ in sink.notes if isinstance(data, bytes)) == b"\x01hello"


def test_t20_a_connect_before_settings_or_in_early_data_waits() -> None:
    client = Client()
    client.peer.early = True
    client.connect()
    assert 0 not in client.peer.sent
    client.settle()
    assert 0 not in client.peer.sent
    client.shake()
    assert client.answer()[0] == 200


def test_t20_a_second_session_is_refused_and_the_first_lives() -> None:
    client = Client()
    sink = client.established()
    client.connect(8)
    status, _, body = client.answer(8)
    assert (status, body) == (429, "one session to a connection: open another connection\n")
    client.say(4, BIDI + b"\x00\x01")
    assert sink.notes == [(4, b"\x01", False)]
    client.say(12, BIDI + b"\x08\x01")
    assert client.peer.stops[12] == client.peer.resets[12] == H3Code.BUFFERED_STREAM_REJECTED


def test_also_while_the_first_still_waits() -> None:
    client = Client()
    client.connect(0)
    client.connect(4)
    assert client.answer(4)[0] == 429
    client.settle()
    assert client.answer(0)[0] == 200


def test_a_connect_that_is_given_up_makes_room_for_another() -> None:
    client = Client()
    client.connect(0)
    client.reset(0, H3Code.REQUEST_CANCELLED)
    client.settle()
    client.connect(4)
    assert client.answer(4)[0] == 200
    assert 0 not in client.peer.sent


def test_t09_a_refused_origin_is_told_to_the_host_and_a_wrong_path_is_not() -> None:
    client = Client()
    client.settle()
    client.connect(0, _path="/")
    assert client.host.notes == []
    client.connect(4, origin="https://evil.example")
    assert client.host.notes == [403]


# -- what comes before the session ---------------------------------------------------------------------------------


def test_streams_and_datagrams_before_the_session_are_held_and_delivered_in_order() -> None:
    client = Client()
    client.shake()
    client.say(4, BIDI + b"\x00\x01one")
    client.say(14, UNI + b"\x00\x03file")
    client.say(14, b" end", True)
    client.say(8, BIDI + b"\x00")
    client.datagram(b"\x00early")
    client.datagram(b"\x01stranger")
    client.settle()
    client.connect()
    client.say(4, b" two")
    sink = FakeSink()
    client.http3.session.deliver(sink)
    client.http3.deliver_datagrams()
    assert sink.notes == [(4, b"\x01one two", False), (14, b"\x03file end", True)]
    assert client.host.notes == ["handshaken", "established", b"early"]
    client.say(8, b"\x02")
    assert sink.notes[2:] == [(8, b"\x02", False)]
    client.datagram(b"\x00more")
    assert client.host.notes[-1] == b"more"


def test_what_is_held_is_bounded_in_streams_bytes_and_datagrams() -> None:
    client = Client()
    for index in range(HELD_STREAMS + 1):
        client.say(4 + 4 * index, BIDI + b"\x00x")
    last = 4 + 4 * HELD_STREAMS
    assert client.peer.stops == client.peer.resets == {last: H3Code.BUFFERED_STREAM_REJECTED}
    client.say(4, b"y" * HELD_BYTES)
    assert set(client.peer.stops) == {last, 4}
    client.say(4, b"more of it", True)
    assert client.http3.session.statistics()["held_bytes"] == HELD_STREAMS - 1
    for _ in range(HELD_DATAGRAMS + 5):
        client.datagram(b"\x00x")
    assert client.counts.datagrams_dropped == 5
    assert client.peer.closed is None


def test_held_streams_of_another_session_are_refused_when_ours_begins() -> None:
    client = Client()
    client.shake()
    client.settle()
    client.say(8, BIDI + b"\x04x")
    client.connect()
    assert client.peer.stops == {8: H3Code.BUFFERED_STREAM_REJECTED}
    client.say(8, b"y")
    assert client.http3.session.statistics() == {"sending": 0, "held": 0, "held_bytes": 0}


def test_nothing_is_left_of_held_strangers_that_had_ended() -> None:
    client = Client()
    client.shake()
    client.settle()
    client.say(8, BIDI + b"\x04x", True)
    client.say(14, UNI + b"\x04x", True)
    client.connect()
    assert client.peer.resets == {8: H3Code.BUFFERED_STREAM_REJECTED}
    assert client.http3.statistics()["streams"] == 1, "the CONNECT"


def test_a_held_stream_that_is_reset_is_forgotten() -> None:
    client = Client()
    client.say(4, BIDI + b"\x00abc")
    client.reset(4, to_h3(1))
    assert client.http3.session.statistics() == {"sending": 0, "held": 0, "held_bytes": 0}


# -- the session's life ------------------------------------------------------------------------------------------


def test_nothing_is_left_of_streams_that_have_ended() -> None:
    client = Client()
    client.established()
    before = client.http3.statistics()
    for index in range(1, 300):
        client.say(4 * index, BIDI + b"\x00\x03data", index % 2 == 0)
        client.say(CONTROL + 12 + 4 * index, UNI + b"\x00\x03data", True)
        client.say(CONTROL + 12_000 + 4 * index, varint(0x21), True)
        if index % 2:
            client.reset(4 * index, to_h3(7))
    assert client.http3.statistics() == before
    assert before["streams"] == 1, "the CONNECT"


def test_codes_of_streams_are_the_applications_both_ways() -> None:
    client = Client()
    sink = client.established()
    session = client.http3.session
    client.say(4, BIDI + b"\x00\x02")
    client.stop(4, to_h3(4304))
    client.reset(4, to_h3(4000))
    assert sink.notes[1:] == [(4, "stopped", 4304), (4, "reset", 4000)]
    session.stop(8, 4304)
    session.reset(8, 4303)
    assert (client.peer.stops[8], client.peer.resets[8]) == (to_h3(4304), to_h3(4303))


def test_the_header_of_a_stream_is_granted_when_its_credit_is_taken_over() -> None:
    client = Client()
    client.established()
    client.say(14, UNI + b"\x00\x03")
    client.http3.session.manual(14)
    client.http3.session.grant(14, 1)
    assert client.peer.granted == {14: len(UNI) + 2}


class Answers:
    def __init__(self) -> None:
        self.notes: list[object] = []

    def feed(self, data: bytes) -> None:
        self.notes.append(data)

    def end(self) -> None:
        self.notes.append("end")

    def reset(self, code: int) -> None:
        self.notes.append(code)


def test_streams_that_we_open_work_in_both_directions() -> None:
    client = Client()
    client.established()
    session = client.http3.session
    ours, other, third = Answers(), Answers(), Answers()
    stream_id = session.open_bidirectional(ours)
    assert (stream_id, client.peer.sent[stream_id]) == (1, BIDI + b"\x00")
    session.send(stream_id, b"question", True)
    client.say(1, b"ans")
    client.say(1, b"wer", True)
    assert ours.notes == [b"ans", b"wer", "end"]
    client.reset(session.open_bidirectional(other), to_h3(5))
    session.open_bidirectional(third)
    client.say(0, capsule(Capsule.CLOSE_SESSION, b"\0\0\0\0"))
    assert (other.notes, third.notes) == ([5], [0])
    assert client.peer.sent[session_uni(client)] == UNI + b"\x00"


def session_uni(client: Client) -> int:
    fresh = Client()
    fresh.established()
    stream_id = fresh.http3.session.open_stream(True)
    client.peer.sent[stream_id] = fresh.peer.sent[stream_id]
    return stream_id


def test_datagrams_carry_the_quarter_of_the_sessions_stream() -> None:
    client = Client()
    client.shake()
    client.settle()
    client.connect(400)
    client.http3.deliver_datagrams()
    assert client.http3.session.send_datagram(b"typing")
    assert client.peer.datagrams == [varint(100) + b"typing"]
    client.datagram(varint(100) + b"seen")
    client.datagram(varint(0) + b"somebody else's")
    assert client.host.notes[2:] == [b"seen"]
    assert client.counts.datagrams_dropped == 1


# -- the session's end ---------------------------------------------------------------------------------------------


def test_the_client_closes_with_a_code_and_its_streams_are_let_go() -> None:
    client = Client()
    client.established()
    client.say(4, BIDI + b"\x00\x01")
    client.say(0, frame(FrameType.DATA, close_capsule(4200, "bye")))
    assert client.host.notes[-1] == (4200, "bye")
    assert 0 in client.peer.finished
    assert client.peer.stops[4] == H3Code.SESSION_GONE
    client.say(4, b"late", True)
    client.say(8, BIDI + b"\x00\x01")
    assert client.peer.stops[8] == H3Code.SESSION_GONE
    assert client.host.notes[-1] == (4200, "bye")


@pytest.mark.parametrize("how", ["fin", "reset", "stop"])
def test_a_connect_stream_that_ends_is_a_close_without_code(how: str) -> None:
    client = Client()
    client.established()
    if how == "fin":
        client.say(0, b"", True)
    elif how == "reset":
        client.reset(0, H3Code.REQUEST_CANCELLED)
    else:
        client.stop(0, H3Code.REQUEST_CANCELLED)
    note = client.host.notes[-1]
    assert isinstance(note, tuple)
    assert note[0] == 0


def test_we_close_with_a_code_and_hear_the_clients_end() -> None:
    client = Client()
    client.established()
    before = len(client.peer.sent[0])
    client.http3.session.say_drain()
    client.http3.session.say_close(4303, "slow")
    assert client.peer.sent[0][before:] == capsule(Capsule.DRAIN_SESSION, b"") + frame(0, close_capsule(4303, "slow"))
    assert 0 in client.peer.finished
    client.say(0, b"", True)
    assert client.host.notes[-1] == (0, "the client ended its CONNECT")


def test_the_clients_drain_is_told_and_unknown_capsules_are_passed_over_in_pieces() -> None:
    client = Client()
    client.established()
    data = capsule(0x190B4D3D, b"x" * 70) + capsule(Capsule.DRAIN_SESSION, b"") + frame(0x21, b"grease")
    for byte in data:
        client.say(0, bytes((byte,)))
    assert client.host.notes[-1] == "draining"


# -- threat 20: H3 error codes -------------------------------------------------------------------------------------

ERRORS: list[tuple[str, int, bytes, bool, H3Code]] = [
    ("no SETTINGS first", CONTROL, b"\x00" + frame(FrameType.GOAWAY, b"\0"), False, H3Code.MISSING_SETTINGS),
    ("SETTINGS twice", CONTROL, b"\x00" + settings_frame({}) * 2, False, H3Code.FRAME_UNEXPECTED),
    ("a setting of HTTP/2", CONTROL, b"\x00" + settings_frame({2: 1}), False, H3Code.SETTINGS_ERROR),
    ("a setting twice", CONTROL, b"\x00\x04\x04\x33\x01\x33\x01", False, H3Code.SETTINGS_ERROR),
    ("a switch of 2", CONTROL, b"\x00" + settings_frame({0x33: 2}), False, H3Code.SETTINGS_ERROR),
    ("long SETTINGS", CONTROL, b"\x00\x04" + varint(1_025), False, H3Code.EXCESSIVE_LOAD),
    ("endless SETTINGS", CONTROL, b"\x00\x04" + varint((1 << 62) - 1), False, H3Code.EXCESSIVE_LOAD),
    ("SETTINGS within a setting", CONTROL, b"\x00\x04\x01\x33", False, H3Code.FRAME_ERROR),
    ("the control stream ends", CONTROL, b"\x00" + settings_frame({}), True, H3Code.CLOSED_CRITICAL_STREAM),
    ("DATA on control", CONTROL, b"\x00" + settings_frame({}) + frame(0, b""), False, H3Code.FRAME_UNEXPECTED),
    ("CANCEL_PUSH", CONTROL, b"\x00" + settings_frame({}) + frame(3, b"\0"), False, H3Code.ID_ERROR),
    ("a frame of HTTP/2", CONTROL, b"\x00" + settings_frame({}) + frame(6, b""), False, H3Code.FRAME_UNEXPECTED),
    ("a push stream", CONTROL, b"\x01", False, H3Code.STREAM_CREATION_ERROR),
    ("QPACK sets a capacity", ENCODER, b"\x02\x3f\xe1\x1f", False, H3Code.QPACK_ENCODER_STREAM_ERROR),
    ("QPACK inserts", ENCODER, b"\x02\xc0\x01x", False, H3Code.QPACK_ENCODER_STREAM_ERROR),
    ("QPACK acknowledges", DECODER, b"\x03\x80", False, H3Code.QPACK_DECODER_STREAM_ERROR),
    ("QPACK counts an insert", DECODER, b"\x03\x01", False, H3Code.QPACK_DECODER_STREAM_ERROR),
    ("the encoder's stream ends", ENCODER, b"\x02", True, H3Code.CLOSED_CRITICAL_STREAM),
    ("headers over 16 KiB", 0, b"\x01" + varint(MAX_HEADERS + 1), False, H3Code.EXCESSIVE_LOAD),
    ("headers that mean 16 KiB", 0, frame(1, b"\0\0" + b"\xd1" * 900), False, H3Code.EXCESSIVE_LOAD),
    ("headers that are none", 0, frame(1, b"\0\0\x23abc"), False, H3Code.QPACK_DECOMPRESSION_FAILED),
    ("headers of a dynamic table", 0, frame(1, b"\x02\0\x80"), False, H3Code.QPACK_DECOMPRESSION_FAILED),
    ("DATA before HEADERS", 0, frame(0, b"x"), False, H3Code.FRAME_UNEXPECTED),
    ("SETTINGS in a request", 0, settings_frame({}), False, H3Code.FRAME_UNEXPECTED),
    ("0x41 within a request", 0, frame(0x21, b"") + b"\x40\x41\x00", False, H3Code.FRAME_ERROR),
    ("a request cut in a frame", 0, b"\x01\x05ab", True, H3Code.FRAME_ERROR),
    ("a stream of no session", 4, BIDI + b"\x02x", False, H3Code.ID_ERROR),
    ("a stream of a stream of ours", 14, UNI + b"\x01x", False, H3Code.ID_ERROR),
]


@pytest.mark.parametrize(
    ("stream_id", "data", "end", "code"), [each[1:] for each in ERRORS], ids=[e[0] for e in ERRORS]
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_t20_what_breaks_http3_ends_the_connection_with_its_code(
    stream_id: int, data: bytes, end: bool, code: H3Code, step: int
) -> None:
    client = Client()
    for at in range(0, len(data), step):
        client.say(stream_id, data[at : at + step], end and at + step >= len(data))
    assert client.peer.closed is not None
    assert client.peer.closed[0] == code
    notes = [*client.host.notes]
    client.settle()
    client.connect(40)
    assert 40 not in client.peer.sent
    assert client.host.notes == notes == [f"lost: {client.peer.closed[1]}"]
    assert client.http3.statistics()["held"] == 0


def test_t20_critical_streams_come_once_and_are_not_reset() -> None:
    client = Client()
    client.settle()
    client.say(14, b"\x00")
    assert client.peer.closed is not None
    assert client.peer.closed[0] == H3Code.STREAM_CREATION_ERROR
    client = Client()
    client.settle()
    client.reset(CONTROL, 0)
    assert client.peer.closed is not None
    assert client.peer.closed[0] == H3Code.CLOSED_CRITICAL_STREAM


def test_t20_frames_and_capsules_without_effect_run_out() -> None:
    client = Client()
    client.settle()
    client.say(CONTROL, frame(0x21, b"") * IDLE_FRAMES)
    assert client.peer.closed is None
    client.say(CONTROL, frame(0x21, b""))
    assert client.peer.closed is not None
    assert client.peer.closed[0] == H3Code.EXCESSIVE_LOAD
    client = Client()
    client.established()
    client.say(0, capsule(0x21, b"") * (IDLE_FRAMES + 1))
    assert client.peer.closed is not None
    assert client.peer.closed[0] == H3Code.EXCESSIVE_LOAD


def test_t20_a_close_capsule_with_too_long_a_reason() -> None:
    client = Client()
    client.established()
    client.say(0, capsule(Capsule.CLOSE_SESSION, b"\0\0\0\0" + b"x" * 1025))
    assert client.peer.closed is not None
    assert client.peer.closed[0] == H3Code.MESSAGE_ERROR


def test_t20_datagrams_that_name_no_stream() -> None:
    for data in (b"", b"\x40", varint(1 << 60)):
        client = Client()
        client.established()
        client.datagram(data)
        assert client.peer.closed is not None
        assert client.peer.closed[0] == H3Code.DATAGRAM_ERROR


def test_small_breaches_cost_their_stream_alone() -> None:
    client = Client()
    sink = client.established()
    client.say(8, b"", True)
    client.say(12, frame(0x21, b"x"), True)
    client.say(18, varint(0x1234) + b"unknown")
    client.say(22, b"\x40", True)
    assert client.peer.resets == {8: H3Code.REQUEST_INCOMPLETE, 12: H3Code.REQUEST_INCOMPLETE}
    assert client.peer.stops[18] == H3Code.STREAM_CREATION_ERROR
    client.say(4, BIDI + b"\x00\x01")
    assert sink.notes == [(4, b"\x01", False)]
    assert client.peer.closed is None


# -- counting ------------------------------------------------------------------------------------------------------


def ends(account: Account) -> dict[str, int]:
    assert account.balanced, account
    return {name: count for name, count in account.became.items() if count}


def test_everything_that_came_is_accounted_for() -> None:
    client = Client()
    client.shake()
    client.say(4, BIDI + b"\x00x")
    client.say(8, BIDI + b"\x04x")
    client.say(12, BIDI + b"\x00x")
    client.say(16, BIDI + b"\x00x")
    client.reset(16, to_h3(0))
    client.datagram(b"\x00x")
    client.datagram(b"\x01x")
    client.connect(0)
    requests, streams, datagrams = client.counts.books()
    assert ends(requests) == {"waiting": 1}
    assert (ends(streams), ends(datagrams)) == ({"held": 3, "ended": 1}, {"held": 2})
    client.settle()
    client.connect(20, _path="/")
    client.connect(24)
    client.connect(28, _authority="")
    client.http3.session.deliver(FakeSink())
    client.http3.deliver_datagrams()
    client.say(32, BIDI + b"\x00x")
    client.say(36, BIDI + b"\x08x")
    client.datagram(b"\x05x")
    requests, streams, datagrams = client.counts.books()
    assert ends(requests) == {"accepted": 1, "refused_404": 1, "refused_429": 1, "malformed": 1}
    assert (ends(streams), ends(datagrams)) == ({"taken": 3, "rejected": 2, "ended": 1}, {"taken": 1, "dropped": 2})


def test_what_was_held_when_the_connection_ended_is_accounted_for() -> None:
    client = Client()
    client.say(4, BIDI + b"\x00x")
    client.datagram(b"\x00x")
    client.connect(0)
    client.http3.ended(0, "gone")
    requests, streams, datagrams = client.counts.books()
    assert (ends(requests), ends(streams), ends(datagrams)) == ({"given_up": 1}, {"ended": 1}, {"dropped": 1})
