"""What a NatsBus counts. Numbers only."""

from __future__ import annotations

import msgspec


class NatsBusStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a NatsBus has done and holds."""

    published: int
    """Payloads taken; each of them is confirmed, held, dropped, or was held when `run` ended."""
    controls: int
    """Of them, those of the bus's own: words about items of a stream, to its server."""
    refused: int
    """Payloads that `publish` said no to."""
    confirmed: int
    """Payloads that the server has."""
    dropped: int
    """Payloads taken that no server wanted: over its own limit."""
    received: int
    """Payloads that arrived."""
    overrun: int
    """Payloads dropped on arrival, because as many waited for handlers as may."""
    handed_on: int
    failures: int
    """Exceptions out of handlers."""
    held_messages: int
    """Payloads taken and not yet confirmed; what the bound counts."""
    held_bytes: int
    waiting_messages: int
    """Payloads that arrived and wait for their handlers."""
    waiting_bytes: int
    subscriptions: int
    connections: int
    """Clients that were connected, one after another."""
    round_trip: float
    """Seconds of the last PING."""
