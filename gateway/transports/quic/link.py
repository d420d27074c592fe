"""The raw QUIC link (ALPN `im-access`): events of one connection into lanes. No message, no packet, no socket.

It is handed to be served once its handshake is complete, or as soon as 0-RTT data has come; until the Connection
opens it, events are kept, which is one turn of the scheduler and no more than the first credit allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from aioquic.quic.events import (
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from gateway.core.link import Link, LinkClosed
from gateway.transports.quic.lane_link import LAST_BYTES, LaneLink
from gateway.transports.quic.peer import QuicPeer
from gateway.transports.quic.streams import LaneStreams

ALPN: Final = "im-access"
LONGEST_REASON: Final = 256
"""Bytes of a reason on the wire: CONNECTION_CLOSE must fit one packet."""


class QuicLink(LaneLink):
    """A `LanedLink` over one QUIC connection, and its `PeerHandler`."""

    __slots__ = ("_before", "_peer", "_serve", "early")

    transport = "quic"

    def __init__(self, peer: QuicPeer, serve: Callable[[Link], None]) -> None:
        """`serve(link)` is called once, when there is something to serve; it must not wait."""
        super().__init__(peer.address)
        self.early = True
        """Until HandshakeCompleted has been told in its turn: what is fed before may be a replay."""
        self._peer = peer
        self._serve: Callable[[Link], None] | None = serve
        self._before: list[QuicEvent] = []

    # -- as a PeerHandler ----------------------------------------------------------------------------------

    def handle(self, event: QuicEvent) -> None:
        """The next event, in order."""
        if self._streams is not None:
            self._tell(self._streams, event)
        elif isinstance(event, HandshakeCompleted) and not self._before:
            self.early = False  # nothing came early, nothing is to be confirmed
            self._hand_over()
        else:
            self._before.append(event)
            self._hand_over()

    def pumped(self) -> None:
        """All that arrived in this turn has been told."""
        if self._streams is not None:
            self._streams.pumped()

    def ended(self, code: int, reason: str) -> None:
        """The connection is over."""
        self._lost = reason or (f"closed with {code}" if code else "closed")
        if self._streams is not None:
            self._streams.end()
            if self._receiver is not None:
                self._receiver.lost(self._lost)

    def _hand_over(self) -> None:
        serve, self._serve = self._serve, None
        if serve is not None:
            serve(self)

    def _tell(self, streams: LaneStreams, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            streams.received(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, DatagramFrameReceived):
            if self._receiver is not None:
                self._receiver.datagram(event.data)
        elif isinstance(event, StreamReset):
            streams.was_reset(event.stream_id, event.error_code)
        elif isinstance(event, StopSendingReceived):
            streams.was_stopped(event.stream_id, event.error_code)
        elif isinstance(event, HandshakeCompleted):
            self.early = False
            if self._receiver is not None:
                self._receiver.confirmed()

    # -- as a Link -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Tell what has come since the link was handed over; it is up already.

        Raises:
            LinkClosed: the connection has ended meanwhile.
        """
        await trio.lowlevel.checkpoint()
        receiver = self._receiver
        if self._lost or receiver is None:
            raise LinkClosed(self._lost or "closed")
        self._streams = streams = LaneStreams(self._peer, receiver)
        before, self._before = self._before, []
        for event in before:
            self._tell(streams, event)

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Let the peer acknowledge what was sent, for a second at most, and send CONNECTION_CLOSE with `code`."""
        self.parting = code, reason
        if self._streams is not None:
            with trio.move_on_after(LAST_BYTES):
                await self._streams.drained()
        self._close()
        await self._peer.wait_closed()

    def abort(self) -> None:
        """Let go at once. Where the peer was told nothing, one CONNECTION_CLOSE still goes out: it costs a packet,
        and without it every further packet of the peer would cost a stateless reset."""
        self._receiver = None
        self._before.clear()
        if self._streams is not None:
            self._streams.end()
        self._close()

    def _close(self) -> None:
        code, reason = self.parting
        self._peer.close(code, reason.encode()[:LONGEST_REASON].decode(errors="ignore"))

    # -- as a LanedLink ------------------------------------------------------------------------------------

    @property
    def ticket(self) -> str:
        """Names the TLS ticket by which the peer resumed; empty without one."""
        return self._peer.ticket

    def tickets(self) -> tuple[str, ...]:
        """Names of the TLS tickets issued on this connection so far."""
        return self._peer.tickets()

    @property
    def max_datagram(self) -> int:
        """The longest frame that travels as a datagram now, in bytes; 0: none does."""
        return self._peer.max_datagram

    def send_datagram(self, frame: bytes) -> bool:
        """Queue one datagram; False when it was dropped or is too long."""
        return self._peer.send_datagram(frame)
