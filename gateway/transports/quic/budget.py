"""How often a peer may do what costs us more than it. A rate with a burst for each kind; no time of its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from aioquic.quic.connection import QuicConnectionError

from gateway.protocol.codes import Code


class Act(IntEnum):
    """What is counted."""

    OPEN = 0
    """Opening a stream."""
    RESET = 1
    """RESET_STREAM and STOP_SENDING."""
    IDENTIFY = 2
    """NEW_CONNECTION_ID and RETIRE_CONNECTION_ID: each makes us send a frame, and keep something."""
    CHALLENGE = 3
    """PATH_CHALLENGE: answered by 1,200 bytes, whatever it came in."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, and so many at once after silence."""

    rate: float
    burst: float


class Budget:
    """What one connection has left of each kind. Two numbers each, made when first needed."""

    __slots__ = ("_left", "_rates")

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        self._rates = rates
        self._left: dict[Act, tuple[float, float]] | None = None

    def spend(self, act: Act, now: float, frame_type: int, count: int = 1) -> None:
        """Count `count` of them.

        Raises:
            QuicConnectionError: too many; the connection ends, saying 4302.
        """
        if self._left is None:
            self._left = {}
        rate = self._rates[act]
        left, since = self._left.get(act, (rate.burst, now))
        left = min(rate.burst, left + (now - since) * rate.rate) - count
        self._left[act] = (left, now)
        if left < 0:
            # Without a frame type it is an application's close, whose code says what to do about it.
            raise QuicConnectionError(Code.RATE_LIMITED, None, f"too many: {act.name.lower()}")  # type: ignore[arg-type]
