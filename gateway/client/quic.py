"""`quic://`: the lanes on streams of their own, ALPN `im-access`. Opens the link, early data included."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar, cast

import trio
from aioquic.quic.events import HandshakeCompleted, QuicEvent
from aioquic.tls import SessionTicket

from gateway.client.endpoint import Endpoint
from gateway.client.quic_engine import Engine
from gateway.client.quic_lanes import Framing, Incoming, Lanes, Outgoing
from gateway.client.quic_pump import Address, Pump
from gateway.client.racing import first
from gateway.client.tickets import Resumption, Ticket
from gateway.client.transport import LanedTransport, TransportFailed, why
from gateway.client.trust import Trust, Untrusted
from gateway.protocol.codes import Code
from gateway.protocol.types import Lane

ALPN: Final = "im-access"
INCOMING: Final = 16
"""Ephemeral streams that the server may have open towards us."""
ADDRESSES: Final = 4
"""Addresses of a name that are tried."""
BAD_CERTIFICATE: Final = 0x100 + 42

T = TypeVar("T", bound="QuicTransport")


class QuicTransport:
    """An open link, and what the pump tells: a `LanedTransport` and a `Handler`."""

    alpn = ALPN
    incoming_streams = INCOMING
    lanes = True

    def __init__(
        self, endpoint: Endpoint, address: tuple[int, Address], trust: Trust, resume: Resumption, nursery: trio.Nursery
    ) -> None:
        self.early_seq = 0
        self._endpoint = endpoint
        self._trust = trust
        self._resume = resume
        self._server = f"{endpoint.url} {trust.key}"
        self._ticket = resume.store.take(self._server)
        self._tickets: list[SessionTicket] = []
        self._login: tuple[str, int] | None = None
        family, sockaddr = address
        engine = Engine(
            alpn=self.alpn,
            host=endpoint.host,
            trust=trust,
            ticket=self._ticket.session if self._ticket is not None else None,
            keep_ticket=self._keep_ticket,
            incoming_streams=self.incoming_streams,
        )
        self._pump = Pump(engine, family, sockaddr, nursery)
        self._lanes = Lanes(self._pump, Framing())
        self.resumed = False
        """Whether TLS went on from a session that was there before."""

    # -- opening -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """From nothing to a link that carries frames; on failure, and when cancelled, nothing of it is left.

        Raises:
            TransportFailed: nobody there, not trusted, or refused.
        """
        up = False
        try:
            self._pump.start(self)
            self._open_early()
            await self._up()
            up = True
        finally:
            if not up:
                self._pump.close(Code.OK, "")
                if self._ticket is not None and not self._pump.heard:
                    self._resume.store.put(self._server, self._ticket)  # nobody has seen it: it still serves

    def _open_early(self) -> None:
        """Write what may go out before the handshake is complete, if a ticket allows anything to."""
        if self._ticket is None or not self._pump.engine.early:
            return
        early = self._resume.early(self._ticket.user_id)
        self._lanes.open()
        for lane, frames in ((Lane.CONTROL, early.control), (Lane.MESSAGE, early.messages)):
            if frames:
                self._lanes.write(lane, frames)
        self.early_seq = early.last_seq

    async def _up(self) -> None:
        while not self._pump.handshaken:
            await self._lanes.turn()
        if not self._lanes.opened:
            self._lanes.open()

    # -- what the pump tells -------------------------------------------------------------------------------

    def handle(self, event: QuicEvent) -> None:
        """The next event."""
        if isinstance(event, HandshakeCompleted):
            self.resumed = event.session_resumed
            self._check_pin()
        self.carried(event)

    def carried(self, event: QuicEvent) -> None:
        """An event of a stream or a datagram."""
        self._lanes.handle(event)

    def pumped(self) -> None:
        """Nothing more in this turn."""

    def ended(self, failure: TransportFailed) -> None:
        """The connection is over."""
        self._lanes.ended()

    def _check_pin(self) -> None:
        certificate = self._pump.engine.certificate
        if not certificate:
            return  # resumed: it was checked when the session began, and the ticket is kept under this trust only
        try:
            self._trust.check(certificate)
        except Untrusted as error:
            self._pump.fail(BAD_CERTIFICATE, TransportFailed(str(error), final=True))

    # -- sessions ------------------------------------------------------------------------------------------

    @property
    def resume_ticket(self) -> str:
        """What the server gave with the ticket that this link was opened with."""
        return self._ticket.resume_ticket if self._ticket is not None else ""

    def remember(self, resume_ticket: str, user_id: int) -> None:
        """The login succeeded: tickets of this connection resume this session."""
        self._login = (resume_ticket, user_id)
        tickets, self._tickets = self._tickets, []
        for each in tickets:
            self._keep_ticket(each)

    def _keep_ticket(self, session: SessionTicket) -> None:
        if self._login is None:
            self._tickets.append(session)
            del self._tickets[:-4]
            return
        resume_ticket, user_id = self._login
        self._resume.store.put(self._server, Ticket(session=session, resume_ticket=resume_ticket, user_id=user_id))

    # -- a LanedTransport's, the rest ------------------------------------------------------------------------

    async def send_all(self, data: bytes) -> None:
        """Send on the control lane."""
        await self._lanes.send_on(Lane.CONTROL, data)

    async def send_on(self, lane: int, data: bytes) -> None:
        """Send on a lane."""
        await self._lanes.send_on(lane, data)

    async def receive_some(self) -> bytes:
        """Whatever comes next, on any lane."""
        return (await self._lanes.receive_from())[1]

    async def receive_from(self) -> tuple[int, bytes]:
        """What comes next and where."""
        return await self._lanes.receive_from()

    def unacknowledged(self, lane: int) -> int:
        """Bytes that the server has not confirmed."""
        return self._lanes.unacknowledged(lane)

    @property
    def max_datagram(self) -> int:
        """The longest frame that travels as a datagram."""
        return self._lanes.max_datagram

    def send_datagram(self, frame: bytes) -> bool:
        """One frame as a datagram."""
        return self._lanes.send_datagram(frame)

    def open_stream(self) -> Outgoing:
        """A new ephemeral stream."""
        return self._lanes.open_stream()

    async def accept_stream(self) -> Incoming:
        """The next one from the server."""
        return await self._lanes.accept_stream()

    async def migrate(self, local: tuple[str, int] | None = None) -> None:
        """Go on from another local address."""
        await trio.lowlevel.checkpoint()
        self._lanes.check()
        while not self._pump.engine.confirmed:
            await self._lanes.turn()
        try:
            self._pump.rebind(local)
        except OSError as error:
            raise TransportFailed(f"cannot go on from {local or 'another port'}: {why(error)}") from None

    @property
    def local(self) -> tuple[str, int]:
        """Our address and port of this moment."""
        return self._pump.local

    async def aclose(self) -> None:
        """Wait until the server has what was written, and say goodbye."""
        try:
            await self._lanes.drained()
        finally:
            self._pump.close(Code.OK, "")


async def open_quic(endpoint: Endpoint, trust: Trust, resume: Resumption, nursery: trio.Nursery) -> LanedTransport:
    """Connect. The caller holds a deadline.

    Raises:
        TransportFailed: nobody there, not trusted, or it does not speak this protocol.
    """
    return await open_at_any(QuicTransport, endpoint, trust, resume, nursery)


async def open_at_any(
    kind: Callable[[Endpoint, tuple[int, Address], Trust, Resumption, trio.Nursery], T],
    endpoint: Endpoint,
    trust: Trust,
    resume: Resumption,
    nursery: trio.Nursery,
) -> T:
    """Open a transport at one of the addresses that the endpoint's name has.

    Raises:
        TransportFailed: at none of them.
    """

    async def attempt(address: tuple[int, Address]) -> T:
        transport = kind(endpoint, address, trust, resume, nursery)
        await transport.open()
        return transport

    async def discard(transport: T) -> None:
        await transport.aclose()

    addresses = await _addresses(endpoint)
    attempts: list[Callable[[], Awaitable[T]]] = [partial(attempt, address) for address in addresses]
    return (await first(attempts, discard))[1]


async def _addresses(endpoint: Endpoint) -> list[tuple[int, Address]]:
    try:
        found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise TransportFailed(f"cannot find {endpoint.host}: {why(error)}") from None
    return [(int(family), cast(Address, sockaddr)) for family, _, _, _, sockaddr in found][:ADDRESSES]
