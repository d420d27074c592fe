"""A WebTransport session as a link with lanes. No HTTP/3 frame, no message.

It is handed to be served once its handshake is complete, and is up once its CONNECT is accepted: until then it costs
one Connection, as a WebSocket does before its upgrade. What was sent too early waits in the session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from gateway.core.link import Link, LinkClosed
from gateway.protocol.http3 import H3Code
from gateway.transports.quic.lane_link import LAST_BYTES, LaneLink
from gateway.transports.quic.peer import QuicPeer
from gateway.transports.quic.streams import LaneStreams
from gateway.transports.webtransport.counts import WebTransportCounts
from gateway.transports.webtransport.http3 import Http3
from gateway.transports.webtransport.request import Answer, WebTransportRules

log = logging.getLogger("gateway.webtransport")

OPENING: Final = 5.0
"""Seconds from the connection's first packet to its CONNECT, all in all."""
REFUSING: Final = 1.0
"""Seconds that a refused client has to take its answer and go."""


class WebTransportLink(LaneLink):
    """A `LanedLink` over one session, which is all that its connection is for."""

    __slots__ = (
        "_closed",
        "_deadline",
        "_decided",
        "_parted",
        "_parting",
        "_peer",
        "_refused",
        "_serve",
        "http3",
        "leaving",
        "told",
    )

    transport = "webtransport"
    early = False
    """Never: a CONNECT that comes early is held until the handshake is complete."""
    ticket = ""
    """Not told: it would bind early data to a session, and nothing is taken early here."""

    def __init__(
        self, peer: QuicPeer, rules: WebTransportRules, serve: Callable[[Link], None], counts: WebTransportCounts
    ) -> None:
        """`serve(link)` is called once, when the handshake is complete; it must not wait."""
        super().__init__(peer.address)
        self.told: tuple[int, str] | None = None
        """Code and reason with which the client ended the session; code 0 when it gave none."""
        self.leaving = False
        """Whether the client said that it will leave (DRAIN_SESSION)."""
        self.http3 = Http3(peer, rules, self, counts)
        self._peer = peer
        self._serve: Callable[[Link], None] | None = serve
        self._deadline = peer.began + OPENING
        self._decided = trio.Event()
        self._parted = trio.Event()
        self._refused: Answer | None = None
        self._parting = False
        self._closed = False

    # -- as the host of a session --------------------------------------------------------------------------

    def handshaken(self) -> None:
        """There is a client to be served."""
        serve, self._serve = self._serve, None
        if serve is not None:
            serve(self)

    def established(self) -> None:
        """The session exists: `open` returns."""
        self._decided.set()

    def refused(self, answer: Answer) -> None:
        """The client was told that it may not have a session."""
        self._refused = answer
        self._decided.set()

    def datagram(self, data: bytes) -> None:
        """One datagram of the session."""
        if self._receiver is not None:
            self._receiver.datagram(data)

    def draining(self) -> None:
        """The client will leave."""
        self.leaving = True

    def parted(self, code: int, reason: str) -> None:
        """The client has ended the session."""
        self.told = code, reason
        log.debug("session_closed_by_client", extra={"code": code, "reason": reason})
        self._gone(f"closed by the client with {code}" if code else "closed by the client")

    def lost(self, reason: str) -> None:
        """The connection has ended."""
        self._gone(reason or "closed")

    def pumped(self) -> None:
        """All that arrived in this turn has been told."""
        if self._streams is not None:
            self._streams.pumped()
        session = self.http3.session
        if self._parting and session.id is not None and not session.unsent(session.id):
            self._parted.set()

    def _gone(self, reason: str) -> None:
        if self._lost:
            return
        self._lost = reason
        self._decided.set()
        self._parted.set()
        if self._streams is not None:
            self._streams.end()
            if self._receiver is not None:
                self._receiver.lost(reason)

    # -- as a Link -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Wait for the CONNECT, then tell what has come since.

        Raises:
            LinkClosed: none came in time, or it was refused, which the client has been told.
        """
        with trio.move_on_at(self._deadline):
            await self._decided.wait()
        if self._refused is not None:
            with trio.move_on_after(REFUSING):
                await self._parted.wait()
            raise LinkClosed(f"{self._refused.status}: {self._refused.reason}")
        receiver = self._receiver
        if self._lost or receiver is None:
            raise LinkClosed(self._lost or "closed")
        if not self._decided.is_set():
            raise LinkClosed("no CONNECT in time")
        # Nothing waits from here on: what came early is handled, then the caller goes on, then the next bytes come.
        self._streams = streams = LaneStreams(self.http3.session, receiver)
        self.http3.session.deliver(streams)
        self.http3.deliver_datagrams()

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Let the client acknowledge what was sent, for a second at most; end the session with `code`, and wait until
        the client has that, or has ended it, too."""
        self.parting = code, reason
        if self._streams is not None:
            with trio.move_on_after(LAST_BYTES):
                await self._streams.drained()
        self._say_close()
        await self._parted.wait()

    def abort(self) -> None:
        """Let go at once: the session is ended with `parting`, if that was not said, and the connection with it."""
        self._receiver = None
        self._decided.set()
        self._parted.set()
        if self._streams is not None:
            self._streams.end()
        if not self._closed:
            self._closed = True
            self._lost = self._lost or "closed"
            self._say_close()
            self.http3.fail(H3Code.NO_ERROR, "")

    def _say_close(self) -> None:
        if not self._parting:
            self._parting = True
            self.http3.session.say_close(*self.parting)

    # -- as a LanedLink ------------------------------------------------------------------------------------

    def tickets(self) -> tuple[str, ...]:
        """None that a session is bound to: see `ticket`."""
        return ()

    @property
    def max_datagram(self) -> int:
        """The longest frame that travels as a datagram now, in bytes; 0: none does."""
        if not self.http3.has_datagrams:
            return 0
        return max(0, self._peer.max_datagram - len(self.http3.session.prefix))

    def send_datagram(self, frame: bytes) -> bool:
        """Queue one datagram; False when it was dropped or is too long."""
        return self.http3.has_datagrams and self.http3.session.send_datagram(frame)

    def drain(self) -> None:
        """Ask the client to leave soon (DRAIN_SESSION); frames still flow both ways."""
        self.http3.session.say_drain()
