"""The time of the Trio run, cheaply: it is read for every chunk that a client sends."""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway._clock import MonotonicClock


def run_clock() -> Callable[[], float]:
    """What trio.current_time gives in this run, as a callable that costs a tenth of it.

    Trio's own clock is an offset (an attribute, kept since Trio 0.11) on the system's monotonic clock; any other, a
    test's virtual one, is asked itself.
    """
    clock = trio.lowlevel.current_clock()
    offset = getattr(clock, "offset", None)
    if isinstance(offset, float):
        fast = MonotonicClock(offset)
        if abs(fast() - clock.current_time()) < 0.05:
            return fast
    return clock.current_time
