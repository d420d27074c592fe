"""One WebTransport session: its streams and datagrams, held while nobody can take them, refused when it is over.

Knows stream ids, headers and error codes; no HTTP/3 frame beside the capsules that it sends, and no lane.
"""

from __future__ import annotations

from typing import Final, Protocol

from gateway.core.link import LinkClosed, StreamSink
from gateway.protocol.http3 import Capsule, FrameType, H3Code, StreamType, close_capsule, frame, from_h3, to_h3
from gateway.protocol.varints import varint
from gateway.transports.quic.peer import QuicPeer
from gateway.transports.webtransport.counts import WebTransportCounts

HELD_STREAMS: Final = 16
"""Streams held until the session can take them (the draft's section 4.6): a client that does not wait for the answer
to its CONNECT opens two."""
HELD_BYTES: Final = 131_072
"""Bytes held on them together: a login and what may wait behind it, twice."""
HELD_DATAGRAMS: Final = 16


class SessionSink(Protocol):
    """Who takes what the session brings: `LaneStreams`. Synchronous; never raises."""

    def received(self, stream_id: int, data: bytes, end: bool) -> None:
        """The next bytes of a stream of the peer's."""

    def was_reset(self, stream_id: int, code: int) -> None:
        """The peer gave up sending on a stream."""

    def was_stopped(self, stream_id: int, code: int) -> None:
        """The peer takes no more on a stream."""


class Session:
    """At most one to a connection. What is sent on its streams goes through it: it is LaneStreams' `Streams`."""

    __slots__ = (
        "_held",
        "_held_bytes",
        "_own",
        "_peer",
        "_sink",
        "counts",
        "datagrams",
        "headers",
        "id",
        "over",
    )

    def __init__(self, peer: QuicPeer, counts: WebTransportCounts) -> None:
        self._peer = peer
        self.counts = counts
        self.id: int | None = None
        """The stream of its CONNECT, once that was accepted."""
        self.over = False
        self.headers: dict[int, int] = {}
        """Bytes of WebTransport's own in front of each stream that the peer is sending: credit counts them, too."""
        self.datagrams: list[bytes] | None = []
        """Held until somebody takes them, each with its session's quarter stream id still on it; None from then on."""
        self._sink: SessionSink | None = None
        self._held: dict[int, _Held] = {}
        self._held_bytes = 0
        self._own: dict[int, StreamSink] = {}
        """Whom the answers on bidirectional streams of ours are for."""

    # -- what the peer sends ---------------------------------------------------------------------------------

    def refusal(self, session_id: int) -> H3Code | None:
        """Why a stream that names `session_id` is not wanted now; None when it is, or may be."""
        if self.over:
            return H3Code.SESSION_GONE
        if self.id is not None and session_id != self.id:
            return H3Code.BUFFERED_STREAM_REJECTED
        if self._sink is None and len(self._held) >= HELD_STREAMS:
            return H3Code.BUFFERED_STREAM_REJECTED
        return None

    def opened(self, stream_id: int, session_id: int, header: int) -> None:
        """The peer opened a stream that names `session_id`, with a header of so many bytes."""
        self.headers[stream_id] = header
        if self._sink is None:
            self._held[stream_id] = _Held(session_id)
            self.counts.streams_held += 1
        else:
            self.counts.streams_taken += 1

    def received(self, stream_id: int, data: bytes, end: bool) -> bool:
        """The next bytes of a stream. False: there is no room to hold them, and it is forgotten here."""
        own = self._own.get(stream_id)
        if own is not None:
            if data:
                own.feed(data)
            if end:
                del self._own[stream_id]
                own.end()
            return True
        sink = self._sink
        if sink is not None:
            if data or end:
                sink.received(stream_id, data, end)
            if end:
                self.headers.pop(stream_id, None)
            return True
        held = self._held.get(stream_id)
        if held is None:
            return True
        if self._held_bytes + len(data) > HELD_BYTES:
            self._let_go(stream_id)
            self.counts.streams_rejected += 1
            return False
        self._held_bytes += len(data)
        held.data += data
        held.end = end
        return True

    def was_reset(self, stream_id: int, code: int) -> None:
        """The peer gave up sending on a stream; `code` is HTTP/3's."""
        self.headers.pop(stream_id, None)
        own = self._own.pop(stream_id, None)
        if own is not None:
            own.reset(from_h3(code) or 0)
        elif self._sink is not None:
            self._sink.was_reset(stream_id, from_h3(code) or 0)
        elif self._let_go(stream_id):
            self.counts.streams_ended += 1

    def was_stopped(self, stream_id: int, code: int) -> None:
        """The peer takes no more on a stream."""
        if self._sink is not None:
            self._sink.was_stopped(stream_id, from_h3(code) or 0)

    def deliver(self, sink: SessionSink) -> None:
        """From now on somebody takes the streams: first what was held, in the order in which the streams came."""
        self._sink = sink
        held, self._held, self._held_bytes = self._held, {}, 0
        self.counts.streams_held -= len(held)
        self.counts.streams_taken += len(held)
        for stream_id, each in held.items():
            self.received(stream_id, bytes(each.data), each.end)

    def accept(self, session_id: int) -> list[int]:
        """The session exists. Returns the held streams that named another one: they are forgotten here."""
        self.id = session_id
        strangers = [stream_id for stream_id, held in self._held.items() if held.session_id != session_id]
        for stream_id in strangers:
            self._let_go(stream_id)
        self.counts.streams_rejected += len(strangers)
        return strangers

    def end(self) -> list[int]:
        """The session is over. Returns the streams on which the peer may still be sending."""
        self.over = True
        left = [*self.headers, *self._own]
        own, self._own = self._own, {}
        for sink in own.values():
            sink.reset(0)
        self.headers.clear()
        self.counts.streams_held -= len(self._held)
        self.counts.streams_ended += len(self._held)
        self._held.clear()
        self._held_bytes = 0
        self.counts.datagrams_dropped += len(self.take_datagrams())
        return left

    def hold_datagram(self, data: bytes) -> None:
        """Keep a datagram that came before anybody takes it, or drop it."""
        if self.datagrams is None or len(self.datagrams) >= HELD_DATAGRAMS:
            self.counts.datagrams_dropped += 1
        else:
            self.counts.datagrams_held += 1
            self.datagrams.append(data)

    def take_datagrams(self) -> list[bytes]:
        """What was held; from now on nothing is."""
        held, self.datagrams = self.datagrams or [], None
        self.counts.datagrams_held -= len(held)
        return held

    def _let_go(self, stream_id: int) -> bool:
        """Whether it was held."""
        held = self._held.pop(stream_id, None)
        self.headers.pop(stream_id, None)
        if held is None:
            return False
        self._held_bytes -= len(held.data)
        self.counts.streams_held -= 1
        return True

    # -- what we send ------------------------------------------------------------------------------------------

    def send(self, stream_id: int, data: bytes, fin: bool = False) -> bool:
        """Queue bytes of a stream; False when the peer stopped it or it is gone."""
        return self._peer.send(stream_id, data, fin)

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending on a stream."""
        self._peer.reset(stream_id, to_h3(code))

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on a stream."""
        self._peer.stop(stream_id, to_h3(code))

    def manual(self, stream_id: int) -> None:
        """From now on the peer gets credit on a stream by `grant` alone; its header is granted here."""
        self._peer.manual(stream_id)
        self._peer.grant(stream_id, self.headers.get(stream_id, 0))

    def grant(self, stream_id: int, count: int) -> None:
        """So many bytes of a stream were consumed."""
        self._peer.grant(stream_id, count)

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that are queued and not acknowledged."""
        return self._peer.unsent(stream_id)

    def open_stream(self, unidirectional: bool) -> int:
        """The id of a new stream, whose header is sent.

        Raises:
            LinkClosed: the peer allows none now, or the session is over.
        """
        if self.over or self.id is None:
            raise LinkClosed("no session")
        stream_id = self._peer.open_stream(unidirectional)
        kind = StreamType.WEBTRANSPORT if unidirectional else FrameType.WEBTRANSPORT_STREAM
        self._peer.send(stream_id, varint(kind) + varint(self.id))
        return stream_id

    def open_bidirectional(self, answers: StreamSink) -> int:
        """The id of a new stream whose answers `answers` takes. No lane of the protocol needs one.

        Raises:
            LinkClosed: the peer allows none now, or the session is over.
        """
        stream_id = self.open_stream(False)
        self._own[stream_id] = answers
        return stream_id

    def send_datagram(self, data: bytes) -> bool:
        """Queue one datagram of the session; False when it was dropped."""
        return self.id is not None and not self.over and self._peer.send_datagram(self.prefix + data)

    @property
    def prefix(self) -> bytes:
        """What each datagram of the session begins with: its stream's id, by four."""
        return varint((self.id or 0) // 4)

    def say_drain(self) -> None:
        """Ask the client to open no further session here and to leave soon (DRAIN_SESSION)."""
        self._capsule(frame(Capsule.DRAIN_SESSION, b""), False)

    def say_close(self, code: int, reason: str) -> None:
        """End the session (CLOSE_SESSION, then the stream's end)."""
        self._capsule(close_capsule(code, reason), True)

    def answer_close(self) -> None:
        """The client has ended it: end our half."""
        if self.id is not None:
            self._peer.send(self.id, b"", True)

    def _capsule(self, capsule: bytes, last: bool) -> None:
        if self.id is not None and not self.over:
            self._peer.send(self.id, frame(FrameType.DATA, capsule), last)

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept."""
        return {"sending": len(self.headers), "held": len(self._held), "held_bytes": self._held_bytes}


class _Held:
    """What came on one stream before anybody could take it."""

    __slots__ = ("data", "end", "session_id")

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.data = bytearray()
        self.end = False
