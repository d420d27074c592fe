"""The client's half of HTTP/3, without a network: what it asks for, and what a server may not answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.client.http3 import Http3Client
from gateway.protocol.http3 import (
    Capsule,
    FrameType,
    H3Code,
    H3Failure,
    Setting,
    StreamType,
    close_capsule,
    frame,
    parse_close,
    settings_frame,
)
from gateway.protocol.qpack import decode_headers, encode_headers
from gateway.protocol.varints import varint

CONTROL, ENCODER, SESSION_STREAM = 3, 7, 15
SETTINGS: dict[int, int] = {Setting.ENABLE_CONNECT_PROTOCOL: 1, Setting.H3_DATAGRAM: 1, Setting.WEBTRANSPORT_DRAFT02: 1}
Act = Callable[[Http3Client], object]


class Wire:
    """What the client wrote."""

    def __init__(self) -> None:
        self.written: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.refused: dict[int, int] = {}
        self._next = {True: 2, False: 0}

    def new_stream(self, *, unidirectional: bool) -> int:
        stream_id = self._next[unidirectional]
        self._next[unidirectional] += 4
        return stream_id

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.written[stream_id] = self.written.get(stream_id, b"") + data
        if end:
            self.ended.add(stream_id)

    def refuse(self, stream_id: int, code: int) -> None:
        self.refused[stream_id] = code


def begun(settings: dict[int, int] | None = None) -> tuple[Http3Client, Wire]:
    """A client that has the server's settings."""
    wire = Wire()
    client = Http3Client(wire, "a.test", "/im")
    client.start()
    data = varint(StreamType.CONTROL) + settings_frame(SETTINGS if settings is None else settings)
    assert client.opened(CONTROL, data, False) is None
    return client, wire


def answered(status: bytes = b"200") -> tuple[Http3Client, Wire]:
    client, wire = begun()
    client.connect_received(frame(FrameType.HEADERS, encode_headers([(b":status", status)])), False)
    return client, wire


def test_the_connect_waits_for_the_settings_of_the_server() -> None:
    wire = Wire()
    client = Http3Client(wire, "a.test", "/im")
    client.start()
    assert [*wire.written] == [2]
    assert wire.written[2].startswith(b"\0\4")
    for byte in varint(StreamType.CONTROL) + settings_frame(SETTINGS):
        assert client.session_id < 0
        client.opened(CONTROL, bytes((byte,)), False)
    request = wire.written[client.session_id]
    headers = dict(decode_headers(request[3:] if request[1] & 0x40 else request[2:], 10_000))
    assert headers[b":method"] == b"CONNECT"
    assert headers[b":protocol"] == b"webtransport"
    assert headers[b":path"] == b"/im"
    assert headers[b":authority"] == b"a.test"
    assert headers[b"wt-available-protocols"] == b'"im.v1"'


@pytest.mark.parametrize(
    "settings", [{}, {Setting.ENABLE_CONNECT_PROTOCOL: 1}, {Setting.H3_DATAGRAM: 1, Setting.WEBTRANSPORT_DRAFT15: 1}]
)
def test_a_server_without_webtransport(settings: dict[int, int]) -> None:
    with pytest.raises(H3Failure) as caught:
        begun(settings)
    assert caught.value.code == H3Code.SETTINGS_ERROR


def test_an_answer_piece_by_piece_and_an_interim_one() -> None:
    client, _ = begun()
    data = frame(FrameType.HEADERS, encode_headers([(b":status", b"103")]))
    data += frame(0x21, b"grease") + frame(FrameType.HEADERS, encode_headers([(b":status", b"200")]))
    for byte in data:
        assert client.status == 0
        client.connect_received(bytes((byte,)), False)
    assert client.status == 200


def test_a_refusal_is_read_but_not_without_end() -> None:
    client, _ = answered(b"404")
    for _ in range(100):
        client.connect_received(frame(FrameType.DATA, b"nothing here "), False)
    assert client.status == 404
    assert client.body.startswith(b"nothing here nothing")
    assert len(client.body) == 200
    client.was_stopped()
    client.was_reset(client.session_id)
    assert client.parting is None


def test_streams_and_datagrams_of_the_session_and_of_others() -> None:
    client, wire = answered()
    head = varint(StreamType.WEBTRANSPORT) + varint(client.session_id)
    assert client.opened(SESSION_STREAM, head[:1], False) is None
    assert client.opened(SESSION_STREAM, head[1:] + b"\3file", False) == b"\3file"
    assert client.opened(19, varint(StreamType.WEBTRANSPORT) + varint(400), False) is None
    assert client.opened(23, varint(0x21), False) is None
    assert client.opened(27, varint(StreamType.PUSH), False) is None
    assert wire.refused == {
        19: H3Code.BUFFERED_STREAM_REJECTED,
        23: H3Code.STREAM_CREATION_ERROR,
        27: H3Code.STREAM_CREATION_ERROR,
    }
    assert client.datagram(client.datagram_prefix + b"frame") == b"frame"
    assert client.datagram(varint(99) + b"frame") is None
    with pytest.raises(H3Failure):
        client.datagram(b"")


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_the_server_ends_the_session(cut: int) -> None:
    client, _ = answered()
    data = frame(FrameType.DATA, frame(Capsule.DRAIN_SESSION, b"") + close_capsule(4202, "out"))
    for at in range(0, len(data), cut):
        assert client.parting is None
        client.connect_received(data[at : at + cut], False)
    assert client.parting == (4202, "out")
    client.connect_received(frame(FrameType.DATA, close_capsule(4400, "again")), True)
    assert client.parting == (4202, "out")


@pytest.mark.parametrize(
    "end",
    [
        lambda client: client.connect_received(b"", True),
        lambda client: client.was_reset(client.session_id),
        lambda client: client.was_stopped(),
    ],
)
def test_an_end_without_words(end: Act) -> None:
    client, _ = answered()
    end(client)
    assert client.parting is not None
    assert client.parting[0] == 0


def test_we_end_the_session_once() -> None:
    client, wire = answered()
    before = len(wire.written[client.session_id])
    client.close(4400, "bye")
    said = wire.written[client.session_id][before:]
    assert client.session_id in wire.ended
    assert said[0] == FrameType.DATA
    capsule = said[2:]
    assert parse_close(capsule[3:]) == (4400, "bye")
    client, wire = answered()
    client.connect_received(b"", True)
    client.close(4400, "bye")
    assert not wire.ended


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda it: it.opened(CONTROL, settings_frame(SETTINGS), False), H3Code.FRAME_UNEXPECTED),
        (lambda it: it.opened(CONTROL, frame(FrameType.DATA, b""), False), H3Code.FRAME_UNEXPECTED),
        (lambda it: it.opened(CONTROL, frame(0x2, b""), False), H3Code.FRAME_UNEXPECTED),
        (lambda it: it.opened(CONTROL, b"", True), H3Code.CLOSED_CRITICAL_STREAM),
        (lambda it: it.was_reset(CONTROL), H3Code.CLOSED_CRITICAL_STREAM),
        (lambda it: it.opened(19, varint(StreamType.CONTROL), False), H3Code.STREAM_CREATION_ERROR),
        (lambda it: it.opened(ENCODER, b"\x02\x3f\xe1\x1f", False), H3Code.QPACK_ENCODER_STREAM_ERROR),
        (lambda it: it.opened(ENCODER, b"\x03\x80", False), H3Code.QPACK_DECODER_STREAM_ERROR),
        (lambda it: it.connect_received(frame(FrameType.SETTINGS, b""), False), H3Code.FRAME_UNEXPECTED),
        (lambda it: it.connect_received(varint(FrameType.HEADERS) + varint(1 << 40), False), H3Code.EXCESSIVE_LOAD),
        (lambda it: it.connect_received(frame(FrameType.HEADERS, b"\xff" * 9), False), None),
        (
            lambda it: it.connect_received(frame(FrameType.HEADERS, encode_headers([(b"a", b"b")])), False),
            H3Code.MESSAGE_ERROR,
        ),
        (
            lambda it: it.connect_received(frame(FrameType.HEADERS, encode_headers([(b":status", b"2000")])), False),
            H3Code.MESSAGE_ERROR,
        ),
        (lambda it: it.connect_received(b"", True), H3Code.REQUEST_INCOMPLETE),
    ],
)
def test_what_a_server_may_not_do(act: Act, code: H3Code | None) -> None:
    client, _ = begun()
    with pytest.raises(H3Failure) as caught:
        act(client)
    assert code is None or caught.value.code == code


def test_settings_come_first() -> None:
    client = Http3Client(Wire(), "a.test", "/im")
    with pytest.raises(H3Failure) as caught:
        client.opened(CONTROL, varint(StreamType.CONTROL) + frame(0x21, b""), False)
    assert caught.value.code == H3Code.MISSING_SETTINGS


@pytest.mark.parametrize("capsule", [close_capsule(1, "")[:2] + b"\0", frame(Capsule.CLOSE_SESSION, bytes(2000))])
def test_a_bad_capsule(capsule: bytes) -> None:
    client, _ = answered()
    with pytest.raises(H3Failure):
        client.connect_received(frame(FrameType.DATA, frame(Capsule.CLOSE_SESSION, b"abc") + capsule), False)
