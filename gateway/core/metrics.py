"""Counts of what happened on this node, as plain numbers; `console` exposes them. No label, no user id."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the latency buckets in seconds; 0.1 is the alert of the design."""


class Latency:
    """A histogram in seconds. `counts[i]` belongs to `BOUNDS[i]`, not cumulated; the last is above them all."""

    __slots__ = ("counts", "total")

    bounds = BOUNDS

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count `times` observations of the same length."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times


class Metrics:
    """Counters since the start, and gauges that are read where they stand."""

    def __init__(self) -> None:
        self.connections = 0
        """Open now, authenticated or not."""
        self.sessions = 0
        """Authenticated now."""
        self.accepted = 0
        self.messages_received = 0
        """Message frames from clients that were handed to the bus."""
        self.messages_sent = 0
        """Deliveries queued to connections (one each)."""
        self.auth_success = 0
        self.auth_failed: Counter[int] = Counter()
        """By code."""
        self.refused: Counter[int] = Counter()
        """Requests refused, by code."""
        self.closed: Counter[int] = Counter()
        """Connections ended, by code; 0 is the peer's own leaving."""
        self.signals_conflated = 0
        self.signals_dropped = 0
        self.undelivered = 0
        """Downstreams that found no connection here."""
        self.expired = 0
        """Downstreams that came after their `expires_at`."""
        self.malformed_downstream = 0
        self.events_published = 0
        """Words of our own about sessions: online, kicked, offline."""
        self.events_refused = 0
        """Of these, refused by the bus and lost."""
        self.events_received = 0
        """User events from the bus, our own among them; each is one of the next four."""
        self.events_elsewhere = 0
        """About users who are not here."""
        self.events_presence = 0
        self.events_delivered = 0
        """Given to the user's connections, once for all of them."""
        self.events_malformed = 0
        self.throttled = 0
        """Times that reading was paused for the message rate."""
        self.faults = 0
        """Connections that an exception of ours ended."""
        self.latency = Latency()
        """From a frame's arrival to its hand-over to the bus, or downstream to the socket."""
