"""TLS session tickets that this process has issued: bounded in number and age, each good once. No session lives here.

Single use is what keeps 0-RTT data from being replayed at this node: whoever shows a ticket takes it out, whether
the handshake then succeeds or not. Another worker or node knows nothing of it, and makes a full handshake instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import trio
from aioquic.tls import SessionTicket

LIFETIME: Final = 86_400.0
"""Seconds: what aioquic tells clients; a ticket kept longer would never be shown."""


def name_of(label: bytes) -> str:
    """What a ticket is called where sessions are bound to it: a digest, so that a name opens nothing."""
    return sha256(label).hexdigest()[:32]


class Tickets:
    """The store. About a kilobyte is kept for each ticket."""

    def __init__(
        self, capacity: int, lifetime: float = LIFETIME, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        """
        Args:
            capacity: tickets kept; with one more the oldest goes. 0 issues none, and nobody resumes.
            lifetime: seconds that a ticket may be redeemed.
            clock: monotonic seconds.
        """
        self.issued = 0
        self.redeemed = 0
        self.refused = 0
        """Shown and not known: used before, too old, pushed out, of another process, or made up."""
        self._capacity = capacity
        self._lifetime = lifetime
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, SessionTicket]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def enabled(self) -> bool:
        """Whether tickets are issued at all."""
        return self._capacity > 0

    def keep(self, ticket: SessionTicket) -> str:
        """Remember a ticket that was just sent to a client; returns its name."""
        now = self._clock()
        while self._kept:  # in the order of issue: stop at the first that may stay
            until, _ = self._kept[next(iter(self._kept))]
            if len(self._kept) < self._capacity and until > now:
                break
            self._kept.popitem(last=False)
        self._kept[ticket.ticket] = now + self._lifetime, ticket
        self.issued += 1
        return name_of(ticket.ticket)

    def redeem(self, label: bytes) -> SessionTicket | None:
        """Take out the ticket that a client shows; None makes it a full handshake."""
        until, ticket = self._kept.pop(label, (0.0, None))
        if ticket is None or until <= self._clock():
            self.refused += 1
            return None
        self.redeemed += 1
        return ticket

    def statistics(self) -> dict[str, int]:
        """What is kept, and what became of all others."""
        return {"kept": len(self._kept), "issued": self.issued, "redeemed": self.redeemed, "refused": self.refused}
