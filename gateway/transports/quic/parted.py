"""What is left of a connection that has ended: who still asks for it hears why, for a while. No connection lives here.

RFC 9000 section 10.2 keeps the state of a closed connection for three times its probe timeout. This keeps a packet
and the connection ids, one hundredth of it.
"""

from __future__ import annotations

from typing import Final

from gateway.transports.quic.pump import Timer

LASTS: Final = 3.0
"""Seconds: three probe timeouts of a path with a round trip of 300 ms and as much jitter."""


class Parted:
    """Answers late packets of one connection with its last one, ever more rarely."""

    __slots__ = ("_address", "_farewell", "_heard", "armed", "cids", "due")

    def __init__(self, cids: tuple[bytes, ...], farewell: bytes, address: bytes) -> None:
        """`farewell`: the packet that carried our CONNECTION_CLOSE; empty when the peer has closed, and knows."""
        self.cids = cids
        self.armed: Timer | None = None
        self.due = False
        self._farewell = farewell
        self._address = address
        self._heard = 0

    def answer(self, address: bytes) -> bytes | None:
        """What to send to `address` in return for a packet from there: after the 1st, 2nd, 4th, 8th, and so on."""
        if not self._farewell or address != self._address:  # an address that was never validated gets nothing
            return None
        self._heard += 1
        return self._farewell if self._heard & (self._heard - 1) == 0 else None
