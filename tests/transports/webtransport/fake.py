"""A QUIC connection without a network, and an HTTP/3 client's side of it."""

from __future__ import annotations

from typing import cast

from aioquic.quic.events import (
    DatagramFrameReceived,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from gateway.core.link import LinkClosed
from gateway.protocol.http3 import FrameType, Manner, Reader, StreamType, frame, settings_frame
from gateway.protocol.qpack import Headers, decode_headers, encode_headers
from gateway.protocol.varints import varint
from gateway.transports.quic.peer import QuicPeer
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport.counts import WebTransportCounts
from gateway.transports.webtransport.http3 import Http3
from gateway.transports.webtransport.request import Answer, WebTransportRules

ORIGIN = "https://chat.example.org"
CONTROL, ENCODER, DECODER = 2, 6, 10
"""Unidirectional streams that the client opens first."""


class FakePeer:
    """Records what is queued."""

    def __init__(self) -> None:
        self.address = "127.0.0.1"
        self.began = 0.0
        self.early = False
        self.max_datagram = 1200
        self.sent: dict[int, bytes] = {}
        self.finished: list[int] = []
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.granted: dict[int, int] = {}
        self.datagrams: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.refuses = False
        self._next = {False: 1, True: 3}

    @property
    def quic(self) -> QuicPeer:
        """As what needs one sees it."""
        return cast(QuicPeer, self)

    def send(self, stream_id: int, data: bytes, fin: bool = False) -> bool:
        if stream_id in self.finished or self.closed is not None:
            return False
        self.sent[stream_id] = self.sent.get(stream_id, b"") + data
        if fin:
            self.finished.append(stream_id)
        return True

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.setdefault(stream_id, code)

    def stop(self, stream_id: int, code: int) -> None:
        self.stops.setdefault(stream_id, code)

    def send_datagram(self, data: bytes) -> bool:
        self.datagrams.append(data)
        return True

    def open_stream(self, unidirectional: bool) -> int:
        if self.refuses:
            raise LinkClosed("no stream")
        stream_id = self._next[unidirectional]
        self._next[unidirectional] += 4
        return stream_id

    def manual(self, stream_id: int) -> None:
        self.granted[stream_id] = 0

    def grant(self, stream_id: int, count: int) -> None:
        self.granted[stream_id] += count

    def unsent(self, stream_id: int) -> int:
        return 0

    def close(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = code, reason


class FakeHost:
    """A SessionHost that takes notes; with `sink`, an established session is delivered to it."""

    def __init__(self) -> None:
        self.notes: list[object] = []

    def handshaken(self) -> None:
        self.notes.append("handshaken")

    def established(self) -> None:
        self.notes.append("established")

    def datagram(self, data: bytes) -> None:
        self.notes.append(data)

    def refused(self, answer: Answer) -> None:
        self.notes.append(answer.status)

    def parted(self, code: int, reason: str) -> None:
        self.notes.append((code, reason))

    def draining(self) -> None:
        self.notes.append("draining")

    def pumped(self) -> None:
        pass

    def lost(self, reason: str) -> None:
        self.notes.append(f"lost: {reason}")


class FakeSink:
    """A SessionSink that takes notes."""

    def __init__(self) -> None:
        self.notes: list[tuple[object, ...]] = []

    def received(self, stream_id: int, data: bytes, end: bool) -> None:
        self.notes.append((stream_id, data, end))

    def was_reset(self, stream_id: int, code: int) -> None:
        self.notes.append((stream_id, "reset", code))

    def was_stopped(self, stream_id: int, code: int) -> None:
        self.notes.append((stream_id, "stopped", code))


class Client:
    """Says what an HTTP/3 client would, straight to an Http3."""

    def __init__(self, *, rules: WebTransportRules | None = None) -> None:
        self.peer = FakePeer()
        self.host = FakeHost()
        self.rules = rules or WebTransportRules(WebTransportSettings(origins=(ORIGIN,)))
        self.counts = WebTransportCounts()
        self.http3 = Http3(self.peer.quic, self.rules, self.host, self.counts)
        self.http3.start()

    def say(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Bytes of a stream."""
        self.http3.handle(StreamDataReceived(data=data, end_stream=end, stream_id=stream_id))

    def reset(self, stream_id: int, code: int) -> None:
        self.http3.handle(StreamReset(error_code=code, stream_id=stream_id))

    def stop(self, stream_id: int, code: int) -> None:
        self.http3.handle(StopSendingReceived(error_code=code, stream_id=stream_id))

    def datagram(self, data: bytes) -> None:
        self.http3.handle(DatagramFrameReceived(data=data))

    def shake(self) -> None:
        """The handshake completes."""
        self.peer.early = False
        self.http3.handle(HandshakeCompleted(alpn_protocol="h3", early_data_accepted=False, session_resumed=False))

    def settle(self, settings: dict[int, int] | None = None) -> None:
        """SETTINGS as Chromium's."""
        settings = {0x33: 1, 0x2B603742: 1} if settings is None else settings
        self.say(CONTROL, varint(StreamType.CONTROL) + settings_frame(settings))

    def connect(self, stream_id: int = 0, /, **fields: str) -> None:
        """A CONNECT for a session; `origin=...` and the like add fields, or replace them with `_path` for `:path`."""
        self.say(stream_id, request(**fields))

    def established(self) -> FakeSink:
        """Open a session and take what it brings."""
        self.shake()
        self.settle()
        self.connect()
        sink = FakeSink()
        self.http3.session.deliver(sink)
        self.http3.deliver_datagrams()
        return sink

    def answer(self, stream_id: int = 0) -> tuple[int, dict[str, str], str]:
        """Status, fields and body of what a request was answered."""
        return response(self.peer.sent[stream_id])


def request(**fields: str) -> bytes:
    """A HEADERS frame; CONNECT to /im unless told otherwise. An empty text leaves the field out."""
    plain = {"_method": "CONNECT", "_protocol": "webtransport", "_scheme": "https", "_authority": "gw", "_path": "/im"}
    named = {
        name.replace("_", ":", 1) if name.startswith("_") else name: text for name, text in (plain | fields).items()
    }
    headers = [(name.replace("_", "-").encode(), text.encode()) for name, text in named.items() if text]
    return headers_frame(headers)


def headers_frame(headers: Headers) -> bytes:
    return frame(FrameType.HEADERS, encode_headers(headers))


def response(data: bytes) -> tuple[int, dict[str, str], str]:
    """Status, fields and body."""
    frames = list(Reader(lambda kind, length: Manner.GATHER).feed(data))
    headers = {name.decode(): value.decode() for name, value in decode_headers(frames[0][1], 65_536)}
    return int(headers.pop(":status")), headers, b"".join(body for kind, body in frames if kind == 0).decode()
