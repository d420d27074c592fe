"""At most one line per kind of event per second: a flood of clients is no flood of lines."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

INTERVAL = 1.0
"""Seconds between two lines of one kind."""
MOST_KINDS = 1024
"""Kinds remembered; far more than the code has, so that nothing a client sends can fill memory."""

Kind = tuple[str, int, str, str]


class RateLimit(logging.Filter):
    """Lets the first line of each kind in a second through; the next one says how many were left out, `suppressed`.

    A kind is logger, level, message and, if given, the field `kind`: what happens seldom but several times
    at once (one line per listener at start) names itself apart with it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: OrderedDict[Kind, tuple[float, int]] = OrderedDict()
        self.suppressed = 0
        """Lines left out since the start."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; marks it when others were not."""
        kind = (record.name, record.levelno, str(record.msg)[:256], str(getattr(record, "kind", ""))[:64])
        now = self._clock()
        since, left_out = self._seen.get(kind, (float("-inf"), 0))
        if now - since < INTERVAL:
            self._seen[kind] = (since, left_out + 1)
            self.suppressed += 1
            return False
        self._seen[kind] = (now, 0)
        self._seen.move_to_end(kind)
        if len(self._seen) > MOST_KINDS:
            self._seen.popitem(last=False)
        if left_out:
            record.suppressed = left_out
        return True
