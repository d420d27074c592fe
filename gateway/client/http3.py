"""The client's half of HTTP/3, as far as one WebTransport session needs it: settings, one CONNECT, its capsules.

Sans-I/O: events of QUIC come in, what has to be written is asked of `Wire`, and what becomes of the session is kept
here to be looked at. Nothing dynamic of QPACK is used, so no stream waits for another (`gateway.protocol.qpack`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from gateway.protocol.http3 import (
    FORBIDDEN_FRAMES,
    MAX_REASON,
    Capsule,
    FrameType,
    H3Code,
    H3Failure,
    Manner,
    Reader,
    Setting,
    StreamType,
    close_capsule,
    frame,
    parse_close,
    parse_settings,
    settings_frame,
)
from gateway.protocol.qpack import DecoderStream, check_encoder_stream, decode_headers, encode_headers
from gateway.protocol.varints import read_varint, varint
from gateway.protocol.websocket import SUBPROTOCOL

MAX_SETTINGS: Final = 4_096
MAX_HEADERS: Final = 16_384
"""Bytes of an answer's header fields, and of its body, of which the beginning is shown to people."""
MAX_BODY: Final = 200

SETTINGS: Final[dict[int, int]] = {
    Setting.QPACK_MAX_TABLE_CAPACITY: 0,
    Setting.MAX_FIELD_SECTION_SIZE: MAX_HEADERS,
    Setting.QPACK_BLOCKED_STREAMS: 0,
    Setting.ENABLE_CONNECT_PROTOCOL: 1,
    Setting.H3_DATAGRAM: 1,
    Setting.WEBTRANSPORT_DRAFT02: 1,
    Setting.WEBTRANSPORT_DRAFT07: 1,
    Setting.WEBTRANSPORT_DRAFT13: 1,
    Setting.WEBTRANSPORT_DRAFT15: 1,
}
OFFERS: Final = (
    Setting.WEBTRANSPORT_DRAFT02, Setting.WEBTRANSPORT_DRAFT07, Setting.WEBTRANSPORT_DRAFT13,
    Setting.WEBTRANSPORT_DRAFT15,
)  # fmt: skip
"""Any of these in a server's settings means that it takes sessions."""


class Wire(Protocol):
    """What is written. Nothing of it raises."""

    def new_stream(self, *, unidirectional: bool) -> int:
        """A new stream of ours."""

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Bytes of a stream of ours."""

    def refuse(self, stream_id: int, code: int) -> None:
        """Read no more of a stream of the server."""


class Http3Client:
    """One connection. Whatever raises H3Failure ends it."""

    def __init__(self, wire: Wire, authority: str, path: str) -> None:
        self.session_id = -1
        """The stream of the CONNECT, once it was sent."""
        self.status = 0
        """The server's answer to it."""
        self.body = b""
        """What it said when it refused."""
        self.parting: tuple[int, str] | None = None
        """The server has ended the session: its code and reason."""
        self._wire = wire
        self._request = [
            (b":method", b"CONNECT"),
            (b":protocol", b"webtransport"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            (b"wt-available-protocols", f'"{SUBPROTOCOL}"'.encode()),
            (b"sec-webtransport-http3-draft02", b"1"),
        ]
        self._settings: dict[int, int] | None = None
        self._answer = Reader(self._judge_answer)
        self._capsules = Reader(self._judge_capsule)
        self._heads: dict[int, bytes] = {}
        self._critical: dict[int, tuple[int, Callable[[bytes], None]]] = {}

    def start(self) -> None:
        """The handshake is complete: say our settings. The CONNECT waits for the server's (RFC 9220 section 3)."""
        control = self._wire.new_stream(unidirectional=True)
        self._wire.put(control, varint(StreamType.CONTROL) + settings_frame(SETTINGS))

    @property
    def prefix(self) -> bytes:
        """What a bidirectional stream of the session begins with."""
        return varint(FrameType.WEBTRANSPORT_STREAM) + varint(self.session_id)

    @property
    def stream_prefix(self) -> bytes:
        """What a unidirectional one does."""
        return varint(StreamType.WEBTRANSPORT) + varint(self.session_id)

    @property
    def datagram_prefix(self) -> bytes:
        """What a datagram does."""
        return varint(self.session_id // 4)

    def close(self, code: int, reason: str) -> None:
        """End the session."""
        if self.status == 200 and self.parting is None:
            self._wire.put(self.session_id, frame(FrameType.DATA, close_capsule(code, reason)), end=True)

    # -- what comes ----------------------------------------------------------------------------------------

    def connect_received(self, data: bytes, end: bool) -> None:
        """Bytes of the CONNECT's stream."""
        for kind, value in self._answer.feed(data):
            if kind == FrameType.HEADERS:
                self._answered(value)
            elif self.status == 200:
                for capsule, content in self._capsules.feed(value):
                    if capsule == Capsule.CLOSE_SESSION:
                        self.parting = self.parting or parse_close(content)
            else:
                self.body = (self.body + value)[:MAX_BODY]
        if end and self.status == 200 and self.parting is None:
            self.parting = (0, "")
        elif end and not self.status:
            raise H3Failure(H3Code.REQUEST_INCOMPLETE, "no answer to the CONNECT")

    def opened(self, stream_id: int, data: bytes, end: bool) -> bytes | None:
        """Bytes of a unidirectional stream that has not turned out to be of our session: what follows the header
        when it does now, else None."""
        if stream_id in self._critical:
            if end:
                raise H3Failure(H3Code.CLOSED_CRITICAL_STREAM, "a critical stream ended")
            self._critical[stream_id][1](data)
            return None
        head = self._heads.pop(stream_id, b"") + data
        kind = read_varint(head)
        if kind is None or (kind[0] == StreamType.WEBTRANSPORT and read_varint(head, kind[1]) is None):
            if not end:
                self._heads[stream_id] = head
            return None
        if kind[0] == StreamType.WEBTRANSPORT:
            session = read_varint(head, kind[1])
            if session is not None and session[0] == self.session_id:
                return head[session[1] :]
            self._wire.refuse(stream_id, H3Code.BUFFERED_STREAM_REJECTED)
        elif kind[0] in (StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER):
            self._begin_critical(stream_id, kind[0], head[kind[1] :])
        else:
            self._wire.refuse(stream_id, H3Code.STREAM_CREATION_ERROR)
        return None

    def datagram(self, data: bytes) -> bytes | None:
        """What a datagram of our session carries; None: of another."""
        quarter = read_varint(data)
        if quarter is None:
            raise H3Failure(H3Code.DATAGRAM_ERROR, "a datagram without a session")
        return data[quarter[1] :] if quarter[0] * 4 == self.session_id else None

    def was_reset(self, stream_id: int) -> None:
        """The server reset a stream that is not the session's own."""
        if stream_id in self._critical:
            raise H3Failure(H3Code.CLOSED_CRITICAL_STREAM, "a critical stream was reset")
        self._heads.pop(stream_id, None)
        if stream_id == self.session_id and self.status in (0, 200):
            self.parting = self.parting or (0, "the server reset the session")

    def was_stopped(self) -> None:
        """The server reads no more of the CONNECT. With a refusal it says so, too, and that is in order."""
        if self.status == 200:
            self.parting = self.parting or (0, "the server stopped the session")

    # -- inside --------------------------------------------------------------------------------------------

    def _begin_critical(self, stream_id: int, kind: int, rest: bytes) -> None:
        if any(kind == known for known, _ in self._critical.values()):
            raise H3Failure(H3Code.STREAM_CREATION_ERROR, f"a second stream of type {kind}")
        feed: Callable[[bytes], None] = check_encoder_stream
        if kind == StreamType.QPACK_DECODER:
            feed = DecoderStream().feed
        elif kind == StreamType.CONTROL:
            control = Reader(self._judge_control)

            def feed_control(data: bytes) -> None:
                for frame_kind, value in control.feed(data):
                    if frame_kind == FrameType.SETTINGS:
                        self._got_settings(value)

            feed = feed_control
        self._critical[stream_id] = (kind, feed)
        feed(rest)

    def _got_settings(self, payload: bytes) -> None:
        settings = self._settings = parse_settings(payload)
        if not settings.get(Setting.ENABLE_CONNECT_PROTOCOL) and not settings.get(Setting.WEBTRANSPORT_DRAFT02):
            raise H3Failure(H3Code.SETTINGS_ERROR, "the server takes no CONNECT of WebTransport")
        if not any(settings.get(each) for each in OFFERS):
            raise H3Failure(H3Code.SETTINGS_ERROR, "the server has no WebTransport")
        self.session_id = self._wire.new_stream(unidirectional=False)
        self._wire.put(self.session_id, frame(FrameType.HEADERS, encode_headers(self._request)))

    def _answered(self, block: bytes) -> None:
        if self.status:
            return  # trailers, which mean nothing here
        status = dict(decode_headers(block, MAX_HEADERS)).get(b":status", b"")
        if not status.isdigit() or len(status) != 3:
            raise H3Failure(H3Code.MESSAGE_ERROR, "an answer without a status")
        if status[:1] != b"1":
            self.status = int(status)

    def _judge_answer(self, kind: int, length: int) -> Manner:
        if kind in FORBIDDEN_FRAMES or kind in (FrameType.SETTINGS, FrameType.GOAWAY, FrameType.MAX_PUSH_ID):
            raise H3Failure(H3Code.FRAME_UNEXPECTED, f"frame {kind:#x} on a request")
        if kind == FrameType.HEADERS:
            if length > MAX_HEADERS:
                raise H3Failure(H3Code.EXCESSIVE_LOAD, "an answer of too many header fields")
            return Manner.GATHER
        return Manner.FLOW if kind == FrameType.DATA else Manner.SKIP

    def _judge_capsule(self, kind: int, length: int) -> Manner:
        if kind != Capsule.CLOSE_SESSION:
            return Manner.SKIP
        if length > 4 + MAX_REASON:
            raise H3Failure(H3Code.MESSAGE_ERROR, "a reason that is too long")
        return Manner.GATHER

    def _judge_control(self, kind: int, length: int) -> Manner:
        if self._settings is None and kind != FrameType.SETTINGS:
            raise H3Failure(H3Code.MISSING_SETTINGS, "settings come first")
        if kind in FORBIDDEN_FRAMES or kind in (FrameType.DATA, FrameType.HEADERS, FrameType.PUSH_PROMISE):
            raise H3Failure(H3Code.FRAME_UNEXPECTED, f"frame {kind:#x} on the control stream")
        if kind != FrameType.SETTINGS:
            return Manner.SKIP
        if self._settings is not None or length > MAX_SETTINGS:
            raise H3Failure(H3Code.FRAME_UNEXPECTED, "settings come once and are short")
        return Manner.GATHER
