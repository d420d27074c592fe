"""What resumes a session: TLS tickets with what the gateway said at the login that they belong to. No I/O here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from aioquic.tls import SessionTicket

KEPT = 4
"""Tickets kept for one server: the newest ones."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """One ticket. It serves once: the server refuses it the second time, and an observer could link the two."""

    session: SessionTicket
    """TLS' part."""
    resume_ticket: str = ""
    """AuthResponse's."""
    user_id: int = 0
    """Whose session it resumes: nobody else's messages may be sent by it."""


class TicketStore(Protocol):
    """Where tickets are kept between two connections. A store belongs to one user on one device."""

    def put(self, server: str, ticket: Ticket) -> None:
        """Keep a ticket for the server with this name."""

    def take(self, server: str) -> Ticket | None:
        """The newest ticket of this server that is still valid; it is forgotten here."""


class MemoryTickets:
    """The store of a client that was given none: forgotten with it."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Ticket]] = {}

    def put(self, server: str, ticket: Ticket) -> None:
        """Keep it; the oldest of more than four is forgotten."""
        self._kept.setdefault(server, deque(maxlen=KEPT)).append(ticket)

    def take(self, server: str) -> Ticket | None:
        """The newest valid one."""
        kept = self._kept.get(server)
        while kept:
            ticket = kept.pop()
            if ticket.session.is_valid:
                return ticket
        return None


class Early(msgspec.Struct, frozen=True):
    """What goes out before the handshake is complete."""

    control: bytes = b""
    messages: bytes = b""
    last_seq: int = 0
    """The highest seq used in it."""


def nothing(user_id: int) -> Early:
    """Nothing goes out early."""
    return Early()


class Resumption(msgspec.Struct, frozen=True):
    """What the transports that can resume are given."""

    store: TicketStore
    early: Callable[[int], Early] = nothing
    """Asked with the user id of the ticket, when there is one that lets data go out early."""
