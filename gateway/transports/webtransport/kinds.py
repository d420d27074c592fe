"""What a stream of an HTTP/3 connection can be, and what its bytes mean then. Each is the state of one stream.

None of them is told more after it has raised: that is the connection's end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.protocol.http3 import (
    FORBIDDEN_FRAMES,
    MAX_REASON,
    Capsule,
    FrameType,
    H3Code,
    H3Failure,
    Manner,
    Reader,
    StreamType,
    parse_settings,
)
from gateway.protocol.qpack import DecoderStream, check_encoder_stream
from gateway.protocol.varints import read_varint

if TYPE_CHECKING:
    from gateway.transports.webtransport.http3 import Http3

MAX_HEADERS: Final = 16_384
"""Bytes of a request's header fields, as they come and as they are meant: as much as a WebSocket upgrade may have."""
MAX_SETTINGS: Final = 1_024
"""Bytes of a SETTINGS frame: browsers send about 40."""


class Unwanted:
    """A stream. By itself, one that is not wanted: what still comes of it is dropped."""

    __slots__ = ()

    def feed(self, data: bytes, end: bool) -> None:
        """The next bytes."""

    def reset(self, code: int) -> None:
        """The peer gave up."""


class Opening(Unwanted):
    """One that has not said yet what it is."""

    __slots__ = ("_h3", "_head", "_id")

    def __init__(self, h3: Http3, stream_id: int) -> None:
        self._h3 = h3
        self._id = stream_id
        self._head = b""

    def feed(self, data: bytes, end: bool) -> None:
        head = self._head = self._head + data
        kind = read_varint(head)
        if kind is None:
            if end and not self._id & 2:
                self._h3.become(self._id, Request(self._h3, self._id), head, end)
            return
        signal = StreamType.WEBTRANSPORT if self._id & 2 else FrameType.WEBTRANSPORT_STREAM
        if kind[0] == signal:
            session = read_varint(head, kind[1])
            if session is not None:
                at = session[1]
                self._h3.become_session_stream(self._id, session[0], at, head[at:], end)
        elif not self._id & 2:
            self._h3.become(self._id, Request(self._h3, self._id), head, end)
        elif kind[0] in (StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER):
            feed = _reader_of(kind[0], self._h3)
            self._h3.become_critical(self._id, kind[0], Critical(feed), head[kind[1] :], end)
        elif kind[0] == StreamType.PUSH:
            raise H3Failure(H3Code.STREAM_CREATION_ERROR, "only servers push")
        else:
            self._h3.refuse(self._id, H3Code.STREAM_CREATION_ERROR)


class Critical(Unwanted):
    """Control, or one of QPACK's: it lives as long as the connection."""

    __slots__ = ("_feed",)

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed

    def feed(self, data: bytes, end: bool) -> None:
        self._feed(data)
        if end:
            self.reset(0)

    def reset(self, code: int) -> None:
        raise H3Failure(H3Code.CLOSED_CRITICAL_STREAM, "control and QPACK streams do not end")


def _reader_of(kind: int, h3: Http3) -> Callable[[bytes], None]:
    if kind == StreamType.CONTROL:
        return _Control(h3).feed
    return check_encoder_stream if kind == StreamType.QPACK_ENCODER else DecoderStream().feed


class _Control:
    """The client's control stream (RFC 9114 section 6.2.1)."""

    __slots__ = ("_h3", "_reader")

    def __init__(self, h3: Http3) -> None:
        self._h3 = h3
        self._reader = Reader(self._judge)

    def feed(self, data: bytes) -> None:
        for _, payload in self._reader.feed(data):
            self._h3.got_settings(parse_settings(payload))

    def _judge(self, kind: int, length: int) -> Manner:
        if kind == FrameType.SETTINGS:
            if self._h3.settings is not None:
                raise H3Failure(H3Code.FRAME_UNEXPECTED, "SETTINGS come once")
            if length > MAX_SETTINGS:
                raise H3Failure(H3Code.EXCESSIVE_LOAD, f"SETTINGS have at most {MAX_SETTINGS} bytes")
            return Manner.GATHER
        if self._h3.settings is None:
            raise H3Failure(H3Code.MISSING_SETTINGS, "SETTINGS come first")
        if kind in _NOT_ON_CONTROL:
            raise H3Failure(H3Code.FRAME_UNEXPECTED, f"frame {kind:#x} on the control stream")
        if kind == FrameType.CANCEL_PUSH:
            raise H3Failure(H3Code.ID_ERROR, "nothing was pushed")
        self._h3.idle()
        return Manner.SKIP


_NOT_ON_CONTROL: Final = FORBIDDEN_FRAMES | {
    FrameType.DATA,
    FrameType.HEADERS,
    FrameType.PUSH_PROMISE,
    FrameType.WEBTRANSPORT_STREAM,
}
_NOT_ON_REQUESTS: Final = FORBIDDEN_FRAMES | {
    FrameType.CANCEL_PUSH,
    FrameType.SETTINGS,
    FrameType.PUSH_PROMISE,
    FrameType.GOAWAY,
    FrameType.MAX_PUSH_ID,
}


class Request(Unwanted):
    """A request; once it is accepted, the session's capsules."""

    __slots__ = ("_capsules", "_h3", "_headers", "_id", "_reader")

    def __init__(self, h3: Http3, stream_id: int) -> None:
        self._h3 = h3
        self._id = stream_id
        self._headers = False
        self._reader = Reader(self._judge)
        self._capsules: Reader | None = None

    def feed(self, data: bytes, end: bool) -> None:
        for kind, payload in self._reader.feed(data):
            if kind == FrameType.HEADERS:
                if not self._h3.requested(self._id, payload):
                    return
                self._capsules = Reader(self._judge_capsule)
            elif self._capsules is not None:
                for capsule in self._capsules.feed(payload):
                    self._h3.capsule(*capsule)
        if not end:
            return
        if self._reader.partial:
            raise H3Failure(H3Code.FRAME_ERROR, "a stream that ends within a frame")
        if self._capsules is None:
            self._h3.refuse(self._id, H3Code.REQUEST_INCOMPLETE)
        self._h3.request_ended(self._id)

    def reset(self, code: int) -> None:
        self._h3.request_ended(self._id)

    def _judge(self, kind: int, length: int) -> Manner:
        if kind == FrameType.WEBTRANSPORT_STREAM:
            raise H3Failure(H3Code.FRAME_ERROR, "0x41 stands at the beginning of a stream")
        if kind in _NOT_ON_REQUESTS:
            raise H3Failure(H3Code.FRAME_UNEXPECTED, f"frame {kind:#x} in a request")
        if kind == FrameType.HEADERS:
            if self._headers:
                raise H3Failure(H3Code.FRAME_UNEXPECTED, "a CONNECT has no trailers")
            if length > MAX_HEADERS:
                raise H3Failure(H3Code.EXCESSIVE_LOAD, f"header fields have at most {MAX_HEADERS} bytes")
            self._headers = True
            return Manner.GATHER
        if kind == FrameType.DATA and not self._headers:
            raise H3Failure(H3Code.FRAME_UNEXPECTED, "DATA before HEADERS")
        if kind != FrameType.DATA or length == 0:
            self._h3.idle()
        return Manner.FLOW if kind == FrameType.DATA else Manner.SKIP

    def _judge_capsule(self, kind: int, length: int) -> Manner:
        if kind == Capsule.CLOSE_SESSION:
            if length > MAX_REASON + 4:
                raise H3Failure(H3Code.MESSAGE_ERROR, f"a reason has at most {MAX_REASON} bytes")
            return Manner.GATHER
        self._h3.idle()
        return Manner.GATHER if kind == Capsule.DRAIN_SESSION and length == 0 else Manner.SKIP


class SessionStream(Unwanted):
    """A stream of the session: what comes is the lanes'."""

    __slots__ = ("_h3", "_id")

    def __init__(self, h3: Http3, stream_id: int) -> None:
        self._h3 = h3
        self._id = stream_id

    def feed(self, data: bytes, end: bool) -> None:
        self._h3.session_stream(self._id, data, end)

    def reset(self, code: int) -> None:
        self._h3.session.was_reset(self._id, code)
