"""What came over HTTP/3 and what became of it, on all connections of an endpoint: numbers, and their accounts."""

from __future__ import annotations

from collections import Counter

from gateway.core.books import Account


class WebTransportCounts:
    """Counters since the start; those called `waiting` and `held` go down again."""

    def __init__(self) -> None:
        self.requests = 0
        """Whole requests."""
        self.accepted = 0
        self.refused: Counter[int] = Counter()
        """By HTTP status."""
        self.malformed = 0
        self.given_up = 0
        """CONNECTs that ended before they could be answered."""
        self.waiting = 0
        self.streams = 0
        """Streams of the client's that named a session."""
        self.streams_taken = 0
        self.streams_rejected = 0
        """Of no session, of another one, or more than are held."""
        self.streams_ended = 0
        """Reset, or lost with their session, before anybody took them."""
        self.streams_held = 0
        self.datagrams = 0
        self.datagrams_taken = 0
        self.datagrams_dropped = 0
        """Of no session, of another one, or more than are held."""
        self.datagrams_held = 0

    def books(self) -> list[Account]:
        """The accounts, now."""
        requests = {"accepted": self.accepted, "malformed": self.malformed, "given_up": self.given_up}
        refused = {f"refused_{status}": count for status, count in sorted(self.refused.items())}
        return [
            Account("h3_requests", self.requests, {**requests, **refused, "waiting": self.waiting}),
            Account(
                "h3_streams",
                self.streams,
                {
                    "taken": self.streams_taken,
                    "rejected": self.streams_rejected,
                    "ended": self.streams_ended,
                    "held": self.streams_held,
                },
            ),
            Account(
                "h3_datagrams",
                self.datagrams,
                {"taken": self.datagrams_taken, "dropped": self.datagrams_dropped, "held": self.datagrams_held},
            ),
        ]
