"""Connection ids: 63 bits, ordered by time, repeated by no restart and no other worker (protocol section 6)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

TAG_BITS = 9
COUNT_BITS = 12
EPOCH_MS = 1_577_836_800_000
"""2020-01-01 UTC: 42 bits of milliseconds from there last until 2159."""


class ConnectionIds:
    """Makes ids: 42 bits of milliseconds, 9 of a tag drawn at start, 12 counted within the millisecond.

    The clock is only ever followed forwards: when it jumps back, ids go on from the highest time seen.
    """

    def __init__(self, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._wall_ms = wall_ms
        self._tag = secrets.randbits(TAG_BITS)
        self._last = 0
        self._count = 0

    def issue(self) -> int:
        """A new id, greater than every id issued before."""
        moment = max(self._wall_ms() - EPOCH_MS, self._last)
        if moment > self._last:
            self._last, self._count = moment, 0
        elif self._count == (1 << COUNT_BITS) - 1:
            self._last, self._count = moment + 1, 0
        else:
            self._count += 1
        return (self._last << TAG_BITS | self._tag) << COUNT_BITS | self._count


def secret_id() -> str:
    """128 random bits as 22 URL-safe characters: session ids, boot ids."""
    return secrets.token_urlsafe(16)
