"""One HTTP/3 connection: its critical streams, its requests, and whose the other streams are. No lane, task or clock.

An own layer, and not aioquic's: that one keeps an object for every stream of a session, knows no capsule and no error
code of WebTransport, and loses what comes before its CONNECT. What we need of HTTP/3 is small: requests without bodies
in, short answers out, and one CONNECT that stays. There is no dynamic QPACK table, so no stream waits for another.

What is kept of a stream is forgotten when the peer's half of it ends; QUIC bounds how many halves are open.
"""

from __future__ import annotations

from typing import Final, Protocol

from aioquic.quic.events import (
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from gateway.core.link import LinkClosed
from gateway.protocol.http3 import (
    Capsule,
    FrameType,
    H3Code,
    H3Failure,
    Setting,
    StreamType,
    frame,
    parse_close,
    settings_frame,
)
from gateway.protocol.qpack import decode_headers, encode_headers
from gateway.protocol.varints import read_varint, varint
from gateway.transports.quic.peer import QuicPeer
from gateway.transports.webtransport.counts import WebTransportCounts
from gateway.transports.webtransport.kinds import MAX_HEADERS, Opening, SessionStream, Unwanted
from gateway.transports.webtransport.request import Answer, MalformedRequest, WebTransportRules, judge
from gateway.transports.webtransport.session import Session

IDLE_FRAMES: Final = 1_000
"""Frames and capsules without any effect that one connection may send: each costs us more than it costs the peer."""
SESSIONS: Final = 16
"""Told to drafts that count them: any number says that sessions are to be had. A second one is refused all the same."""

SETTINGS: Final[dict[int, int]] = {
    Setting.QPACK_MAX_TABLE_CAPACITY: 0,
    Setting.MAX_FIELD_SECTION_SIZE: MAX_HEADERS,
    Setting.QPACK_BLOCKED_STREAMS: 0,
    Setting.ENABLE_CONNECT_PROTOCOL: 1,
    Setting.H3_DATAGRAM: 1,
    Setting.WEBTRANSPORT_DRAFT02: 1,
    Setting.WEBTRANSPORT_DRAFT07: SESSIONS,
    Setting.WEBTRANSPORT_DRAFT13: SESSIONS,
    Setting.WEBTRANSPORT_DRAFT15: 1,
}
"""What we say first. With these, and without the settings of session flow control (0x2b61, 0x2b64, 0x2b65), which we
have not got, Chromium, quinn and picoquic all open sessions."""
_HELLO: Final = varint(StreamType.CONTROL) + settings_frame(SETTINGS)


class SessionHost(Protocol):
    """Who is told what becomes of the session: a link. Synchronous; never raises."""

    def handshaken(self) -> None:
        """The handshake is complete: nothing that comes from now on is a replay."""

    def established(self) -> None:
        """A CONNECT was accepted: the session exists."""

    def datagram(self, data: bytes) -> None:
        """A datagram of the session."""

    def refused(self, answer: Answer) -> None:
        """A CONNECT was refused, which its client has been told."""

    def parted(self, code: int, reason: str) -> None:
        """The client has ended the session."""

    def draining(self) -> None:
        """The client will end the session soon."""

    def pumped(self) -> None:
        """The events of this turn have been handled."""

    def lost(self, reason: str) -> None:
        """The connection has ended, or ends now."""


class Http3:
    """A `PeerHandler` for one connection with ALPN `h3`."""

    __slots__ = (
        "_asked",
        "_counts",
        "_critical",
        "_failed",
        "_host",
        "_idle",
        "_peer",
        "_rules",
        "_streams",
        "session",
        "settings",
    )

    def __init__(self, peer: QuicPeer, rules: WebTransportRules, host: SessionHost, counts: WebTransportCounts) -> None:
        self._peer = peer
        self._rules = rules
        self._host = host
        self._counts = counts
        self.session = Session(peer, counts)
        self.settings: dict[int, int] | None = None
        """The client's, once they have come."""
        self._streams: dict[int, Unwanted] = {}
        """Streams whose peer may still send."""
        self._critical: dict[int, int] = {}
        """Control and QPACK streams of the client, by type."""
        self._asked: tuple[int, Answer] | None = None
        """A CONNECT that is good and waits for the client's SETTINGS, or for the end of the handshake."""
        self._idle = 0
        self._failed = False

    def start(self) -> None:
        """Open the control stream: the first thing that an HTTP/3 server says."""
        try:
            control = self._peer.open_stream(True)
        except LinkClosed:
            self.fail(H3Code.STREAM_CREATION_ERROR, "a client lets its server open three streams")
            return
        self._peer.send(control, _HELLO)

    # -- as a PeerHandler ------------------------------------------------------------------------------------

    def handle(self, event: QuicEvent) -> None:
        """The next event of QUIC."""
        if self._failed:
            return
        try:
            if isinstance(event, StreamDataReceived):
                self._received(event.stream_id, event.data, event.end_stream)
            elif isinstance(event, DatagramFrameReceived):
                self._datagram(event.data)
            elif isinstance(event, StreamReset):
                self._was_reset(event.stream_id, event.error_code)
            elif isinstance(event, StopSendingReceived):
                if event.stream_id == self.session.id:
                    self.part(0, "the client stopped its CONNECT")
                else:
                    self.session.was_stopped(event.stream_id, event.error_code)
            elif isinstance(event, HandshakeCompleted):
                self._host.handshaken()
                self.decide()
        except H3Failure as failure:
            self.fail(failure.code, failure.reason)

    def pumped(self) -> None:
        """The events of this turn have been handled."""
        self._host.pumped()

    def ended(self, code: int, reason: str) -> None:
        """The connection is over."""
        self._over(reason or f"closed with {code:#x}")

    # -- the end ---------------------------------------------------------------------------------------------

    def fail(self, code: H3Code, reason: str) -> None:
        """The peer broke the rules of HTTP/3, or nothing is left to do here: the connection ends."""
        self._peer.close(code, reason)
        self._over(reason)

    def _over(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._give_up()
            self.session.end()
            self._streams.clear()
            self._host.lost(reason)

    def part(self, code: int, reason: str) -> None:
        """The client has ended the session: answer, and let go of its streams."""
        session = self.session
        if session.over or session.id is None:
            return
        session.answer_close()
        for stream_id in session.end():
            self._peer.stop(stream_id, H3Code.SESSION_GONE)
            if stream_id in self._streams:
                self._streams[stream_id] = Unwanted()
        self._host.parted(code, reason)

    # -- streams ---------------------------------------------------------------------------------------------

    def _received(self, stream_id: int, data: bytes, end: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id & 1:  # ours: the answers of a bidirectional stream that the session opened
                self.session.received(stream_id, data, end)
                return
            stream = self._streams[stream_id] = Opening(self, stream_id)
        stream.feed(data, end)
        if end:
            self._streams.pop(stream_id, None)

    def _was_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.reset(code)
        elif stream_id & 1:
            self.session.was_reset(stream_id, code)

    def become(self, stream_id: int, stream: Unwanted, data: bytes, end: bool) -> None:
        """What a stream is has turned out: it gets what came of it so far."""
        self._streams[stream_id] = stream
        stream.feed(data, end)

    def become_critical(self, stream_id: int, kind: int, stream: Unwanted, data: bytes, end: bool) -> None:
        """A client has one of each, for as long as the connection lives.

        Raises:
            H3Failure: it has one already.
        """
        if kind in self._critical:
            raise H3Failure(H3Code.STREAM_CREATION_ERROR, f"a second stream of type {kind}")
        self._critical[kind] = stream_id
        self.become(stream_id, stream, data, end)

    def become_session_stream(self, stream_id: int, session_id: int, header: int, data: bytes, end: bool) -> None:
        """A stream of a session, perhaps of one that is not there yet.

        Raises:
            H3Failure: it names what cannot be a session.
        """
        if session_id & 3:
            raise H3Failure(H3Code.ID_ERROR, f"stream {session_id} carries no session")
        refusal = self.session.refusal(session_id)
        self._counts.streams += 1
        if refusal is not None:
            self._counts.streams_rejected += 1
            self.refuse(stream_id, refusal)
            return
        self.session.opened(stream_id, session_id, header)
        self.become(stream_id, SessionStream(self, stream_id), data, end)

    def refuse(self, stream_id: int, code: H3Code) -> None:
        """Say that a stream is not wanted, and drop what still comes of it."""
        self._peer.stop(stream_id, code)
        if not stream_id & 2:
            self._peer.reset(stream_id, code)
        self._streams[stream_id] = Unwanted()

    def idle(self) -> None:
        """A frame or capsule that changes nothing came.

        Raises:
            H3Failure: too many of them.
        """
        self._idle += 1
        if self._idle > IDLE_FRAMES:
            raise H3Failure(H3Code.EXCESSIVE_LOAD, "too many frames without effect")

    def session_stream(self, stream_id: int, data: bytes, end: bool) -> None:
        """Bytes of a stream of the session."""
        if not self.session.received(stream_id, data, end):
            self.refuse(stream_id, H3Code.BUFFERED_STREAM_REJECTED)

    def _datagram(self, data: bytes) -> None:
        quarter = read_varint(data)
        if quarter is None or quarter[0] >= 1 << 60:
            raise H3Failure(H3Code.DATAGRAM_ERROR, "a datagram begins with the quarter of a stream's id")
        self._counts.datagrams += 1
        if self.session.datagrams is not None:
            self.session.hold_datagram(data)
        else:
            self._route(quarter[0] * 4, data[quarter[1] :])

    def _route(self, session_id: int, data: bytes) -> None:
        if not self.session.over and session_id == self.session.id:
            self._counts.datagrams_taken += 1
            self._host.datagram(data)
        else:
            self._counts.datagrams_dropped += 1

    def deliver_datagrams(self) -> None:
        """From now on somebody takes datagrams: first what was held."""
        for data in self.session.take_datagrams():
            quarter = read_varint(data)
            if quarter is not None:
                self._route(quarter[0] * 4, data[quarter[1] :])

    # -- requests ----------------------------------------------------------------------------------------------

    def got_settings(self, settings: dict[int, int]) -> None:
        """The client's SETTINGS came, once."""
        self.settings = settings
        self.decide()

    @property
    def has_datagrams(self) -> bool:
        """Whether the client takes datagrams of HTTP/3."""
        return self.settings is not None and self.settings.get(Setting.H3_DATAGRAM) == 1

    def requested(self, stream_id: int, block: bytes) -> bool:
        """A request is complete. True: its stream stays, for a session; it is answered when nothing is missing."""
        headers = decode_headers(block, MAX_HEADERS)
        self._counts.requests += 1
        try:
            answer = judge(headers, self._rules)
        except MalformedRequest:
            self._counts.malformed += 1
            self.refuse(stream_id, H3Code.MESSAGE_ERROR)
            return False
        if answer.accepted and (self._asked is not None or self.session.id is not None):
            answer = Answer(429, "one session to a connection: open another connection")
            self._answer(stream_id, answer)
            return False
        if answer.accepted:
            self._asked = (stream_id, answer)
            self._counts.waiting += 1
            self.decide()
            return True
        self._answer(stream_id, answer)
        if answer.status in (400, 403) and self.session.id is None and self._asked is None:
            self._host.refused(answer)
        return False

    def decide(self) -> None:
        """Accept the CONNECT that waits, as soon as nothing is missing.

        Never before the client's SETTINGS (the draft's section 3.1), nor in early data: it may be a replay.
        """
        if self._asked is None or self.session.id is not None or self.settings is None or self._peer.early:
            return
        stream_id, answer = self._asked
        self._counts.waiting -= 1
        self._counts.accepted += 1
        self._peer.send(stream_id, frame(FrameType.HEADERS, encode_headers(answer.fields)))
        for stranger in self.session.accept(stream_id):
            ended = stranger not in self._streams
            self.refuse(stranger, H3Code.BUFFERED_STREAM_REJECTED)
            if ended:
                del self._streams[stranger]
        self._host.established()

    def _give_up(self) -> None:
        """A CONNECT that waits is of no interest any more."""
        if self._asked is not None and self.session.id is None:
            self._asked = None
            self._counts.waiting -= 1
            self._counts.given_up += 1

    def _answer(self, stream_id: int, answer: Answer) -> None:
        self._counts.refused[answer.status] += 1
        data = frame(FrameType.HEADERS, encode_headers(answer.fields)) + frame(FrameType.DATA, answer.body)
        self._peer.send(stream_id, data, True)
        self._peer.stop(stream_id, H3Code.NO_ERROR)  # whatever the body is, it changes nothing
        self._streams[stream_id] = Unwanted()

    def request_ended(self, stream_id: int) -> None:
        """The stream of the request that may be the session has ended or was reset."""
        if self._asked is not None and self._asked[0] == stream_id:
            if self.session.id is None:
                self._give_up()
            else:
                self.part(0, "the client ended its CONNECT")

    def capsule(self, kind: int, value: bytes) -> None:
        """A capsule of the session."""
        if kind == Capsule.CLOSE_SESSION:
            self.part(*parse_close(value))
        else:
            self._host.draining()

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept."""
        return {"streams": len(self._streams) - len(self._critical), **self.session.statistics()}
