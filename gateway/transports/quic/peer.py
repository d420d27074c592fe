"""One QUIC connection as a link sees it: guarded sends, credit, one way to end. No lane and no message lives here.

Everything is synchronous and on the Trio thread; only `wait_closed` waits. Nothing raises for what a peer did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import trio
from aioquic.quic.events import QuicEvent

from gateway.core.link import LinkClosed

if TYPE_CHECKING:
    from gateway.transports.quic.hardening import HardenedConnection


class PeerHandler(Protocol):
    """Who is told of what one connection does: a link. Synchronous; what it raises ends this connection only."""

    def handle(self, event: QuicEvent) -> None:
        """The next event, in order. The end and connection ids are not among them."""

    def pumped(self) -> None:
        """The events of this turn have been handled, and what was queued has gone as far as it may go now."""

    def ended(self, code: int, reason: str) -> None:
        """The connection is over, called once. `code` is the application's error code, ours or the peer's; 0 where
        there was none (idle timeout, an error of the transport, forgotten by `abort`)."""


class Carrier(Protocol):
    """What a peer asks of its endpoint."""

    def schedule(self, peer: QuicPeer) -> None:
        """Pump it at the end of this batch, or soon when there is none."""

    def forget(self, peer: QuicPeer) -> None:
        """Send nothing more of it, and unregister it."""


class QuicPeer:
    """One connection inside the pump. The endpoint makes it; a link is built upon it."""

    __slots__ = (
        "_carrier",
        "_closed",
        "address",
        "alpn",
        "armed",
        "began",
        "due",
        "faulty",
        "half_open",
        "handler",
        "original",
        "over",
        "quic",
        "since",
        "ticket",
        "tickets_issued",
    )

    def __init__(self, quic: HardenedConnection, address: str, carrier: Carrier) -> None:
        self.quic = quic
        self.address = address
        """The peer's IP address as text, without port; that of the first datagram, whatever migrates later."""
        self.alpn = ""
        """The negotiated protocol, known before the handler is made."""
        self.ticket = ""
        """Names the TLS ticket by which the peer resumed; empty without one."""
        self.tickets_issued: tuple[str, ...] = ()
        self.handler: PeerHandler | None = None
        self.over = False
        """Whether `ended` was told."""
        self.due = False
        """The carrier's: to be pumped when the batch ends."""
        self.armed: list[Any] | None = None
        """The carrier's: when its timer looks at this peer next."""
        self.began = 0.0
        """When its first packet came (Trio's clock): a deadline that counts from then is one in total."""
        self.since = 0.0
        """The carrier's: when it began, and from then on when its handshake was complete."""
        self.original = b""
        """The carrier's: the connection id that the client chose, as long as it is good for anything."""
        self.half_open = True
        """The carrier's: its handshake is among those counted as unfinished."""
        self.faulty = False
        """The carrier's: something raised before."""
        self._carrier = carrier
        self._closed: trio.Event | None = None

    @property
    def early(self) -> bool:
        """Whether the handshake is not complete: what comes now may be a replay."""
        return not self.quic.complete

    def tickets(self) -> tuple[str, ...]:
        """Names of the TLS tickets issued to the peer so far."""
        return self.tickets_issued

    # -- sending: never raises, never waits ------------------------------------------------------------------

    def touch(self) -> None:
        """Something was queued on `quic`: have it transmitted at the end of the batch, or soon when there is none."""
        if not self.over:
            self._carrier.schedule(self)

    def send(self, stream_id: int, data: bytes, fin: bool = False) -> bool:
        """Queue bytes of a stream; False when the peer stopped the stream, or it has finished, or all is over.

        Nothing limits what is queued: look at `unsent`.
        """
        if self.over:
            return False
        try:
            self.quic.send_stream_data(stream_id, data, fin)
        except Exception:  # aioquic's RuntimeError, ValueError, AssertionError: the stream is of no more use
            return False
        self._carrier.schedule(self)
        return True

    def send_datagram(self, data: bytes) -> bool:
        """Queue one datagram; False when it is too long for the peer or the path, or too many wait already."""
        if self.over or not self.quic.offer_datagram(data):
            return False
        self._carrier.schedule(self)
        return True

    @property
    def max_datagram(self) -> int:
        """The longest datagram that can be sent now, in bytes; 0: none."""
        return 0 if self.over else self.quic.datagram_room

    def unsent(self, stream_id: int) -> int:
        """Bytes of this stream that are queued and have not been acknowledged; 0 for a stream that is no more."""
        return self.quic.unacknowledged(stream_id)

    def open_stream(self, unidirectional: bool) -> int:
        """The id of a new stream of ours, whose first bytes `send` sends.

        Raises:
            LinkClosed: all is over, or the peer allows no further stream now.
        """
        if self.over:
            raise LinkClosed("closed")
        stream_id = self.quic.claim_stream(unidirectional)
        if stream_id is None:
            raise LinkClosed("the peer allows no further stream")
        return stream_id

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending on a stream; idempotent, also for one that is no more."""
        if not self.over and self.quic.abandon_sending(stream_id, code):
            self._carrier.schedule(self)

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on a stream (STOP_SENDING); idempotent, also for one that is no more."""
        if not self.over and self.quic.abandon_reading(stream_id, code):
            self._carrier.schedule(self)

    # -- credit ----------------------------------------------------------------------------------------------

    def manual(self, stream_id: int) -> None:
        """From now on this stream's peer may send only as much further as `grant` says.

        What `grant` sums up to is counted from the first byte of the stream: grant its lane byte too.
        """
        self.quic.credit.take_over(stream_id)

    def grant(self, stream_id: int, count: int) -> None:
        """So many bytes of a `manual` stream were dealt with. More than was delivered is not granted."""
        if not self.over and self.quic.credit.grant(stream_id, count):
            self._carrier.schedule(self)

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self, code: int, reason: str = "") -> None:
        """Say `code` to the peer (CONNECTION_CLOSE), after what is queued as far as it may go; `ended` follows."""
        if not self.over:
            self.quic.part(code, reason)
            self._carrier.schedule(self)

    def abort(self) -> None:
        """Forget the connection at once; nothing is sent, the handler hears nothing further. Idempotent."""
        if not self.over:
            self.handler = None
            self._carrier.forget(self)

    def finish(self, code: int, reason: str) -> None:
        """The carrier's: it is over. Tells the handler and whoever waits, once."""
        if self.over:
            return
        self.over = True
        if self._closed is not None:
            self._closed.set()
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.ended(code, reason)

    async def wait_closed(self) -> None:
        """Return when it is over: CONNECTION_CLOSE has been sent or received, or it was forgotten."""
        if not self.over:
            if self._closed is None:
                self._closed = trio.Event()
            await self._closed.wait()
        else:
            await trio.lowlevel.checkpoint()
