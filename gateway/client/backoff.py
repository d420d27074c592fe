"""How long to wait before the next attempt: exponential with full jitter. No clock and no task lives here."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Each delay is random between 0 and a bound that doubles up to `cap`.

    Full jitter, because after a node's end many clients begin at the same moment: it spreads them evenly.
    """

    def __init__(self, base: float, cap: float, random: Callable[[], float]) -> None:
        self._base = base
        self._cap = cap
        self._random = random
        self._failures = 0

    def reset(self) -> None:
        """The connection proved itself: begin with short delays again."""
        self._failures = 0

    def delay(self) -> float:
        """Seconds to wait now; the next one is longer."""
        bound = min(self._cap, self._base * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return bound * self._random()
