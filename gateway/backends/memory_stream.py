"""A stream inside one process: what MemoryBus keeps for takers, bounded, deduplicated, until it is settled.

It keeps the promises of DurableBus but one: it lives no longer than its bus. Nothing here may reach a file or a socket.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from gateway.core.ports import Confirmation, StreamItem

log = logging.getLogger("gateway.bus")

DUPLICATE_WINDOW: Final = 120.0
"""Seconds in which a key is remembered."""
UNSETTLED: Final = 1_024
"""Items that one taker holds at a time."""
MAX_DELIVERIES: Final = 20
FIRST_DELAY: Final = 0.1
"""Seconds until an item that a handler failed on comes again; it doubles up to LAST_DELAY."""
LAST_DELAY: Final = 10.0


class _Item:
    """A StreamItem."""

    __slots__ = ("_stream", "attempt", "number", "payload", "taking")

    def __init__(self, stream: MemoryStream, number: int, payload: bytes) -> None:
        self._stream = stream
        self.number = number
        self.payload = payload
        self.attempt = 0
        self.taking: _Taking | None = None

    def settle(self) -> None:
        """It need not come again."""
        if self._let_go():
            self._stream.forget(self)

    def put_back(self, delay: float = 0.0) -> None:
        """It is to come again after `delay` seconds."""
        if self._let_go():
            self._stream.keep(self, delay)

    def _let_go(self) -> bool:
        taking, self.taking = self.taking, None
        return taking is not None and taking.unsettled.pop(self.number, None) is not None


class _Taking:
    """A Consumption."""

    def __init__(self, stream: MemoryStream, handler: Callable[[StreamItem], None]) -> None:
        self._stream = stream
        self.handler = handler
        self.unsettled: dict[int, _Item] = {}

    def close(self) -> None:
        """Take nothing more."""
        if self in self._stream.takings:
            self._stream.takings.remove(self)

    def abandon(self) -> None:
        """Close, and put back whatever is not settled."""
        self.close()
        for item in list(self.unsettled.values()):
            item.put_back()


class MemoryStream:
    """Payloads in the order offered. `turn` hands them on; whoever owns it calls that when `rung` was called."""

    def __init__(self, rung: Callable[[], None], *, max_messages: int, max_bytes: int) -> None:
        """
        Args:
            rung: called when there is something for `turn` to do.
            max_messages: payloads that may be in it; further ones are REFUSED.
            max_bytes: bytes of them, likewise.
        """
        self._rung = rung
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.takings: list[_Taking] = []
        self._ready: list[tuple[int, _Item]] = []
        self._later: list[tuple[float, int, _Item]] = []
        self._words: deque[tuple[Callable[[Confirmation], None], Confirmation]] = deque()
        self._keys: dict[str, float] = {}
        self._number = self._turn = 0
        self.messages = self.bytes = 0
        """What it holds, taken or not."""
        self.dropped = 0
        """Items given up: handed out MAX_DELIVERIES times, and nobody settled them."""

    def offer(self, payload: bytes, key: str, done: Callable[[Confirmation], None]) -> bool:
        """Keep it, or not; `done` is told by the next `turn`. False when as many words wait as may."""
        if len(self._words) >= self._max_messages:
            return False
        now = trio.current_time()
        while self._keys and next(iter(self._keys.values())) <= now:
            del self._keys[next(iter(self._keys))]
        if key in self._keys:
            became = Confirmation.REPEATED
        elif self.messages >= self._max_messages or self.bytes + len(payload) > self._max_bytes:
            became = Confirmation.REFUSED
        else:
            became = Confirmation.CONFIRMED
            self._keys[key] = now + DUPLICATE_WINDOW
            self._number += 1
            self.messages += 1
            self.bytes += len(payload)
            self.keep(_Item(self, self._number, payload), 0.0)
        self._words.append((done, became))
        self._rung()
        return True

    def take(self, handler: Callable[[StreamItem], None]) -> _Taking:
        """One more taker."""
        taking = _Taking(self, handler)
        self.takings.append(taking)
        self._rung()
        return taking

    def keep(self, item: _Item, delay: float) -> None:
        """It waits for a taker, from `delay` seconds on; among all that wait the oldest is first."""
        if delay > 0:
            heapq.heappush(self._later, (trio.current_time() + delay, item.number, item))
        else:
            heapq.heappush(self._ready, (item.number, item))
        self._rung()

    def forget(self, item: _Item) -> None:
        """It is done."""
        self.messages -= 1
        self.bytes -= len(item.payload)
        self._rung()  # its taker has room

    @property
    def speaking(self) -> bool:
        """Whether words wait to be told."""
        return bool(self._words)

    @property
    def due(self) -> float:
        """When `turn` has something to do without being rung for."""
        return self._later[0][0] if self._later else float("inf")

    def turn(self, most: int) -> None:
        """Tell words and hand on items, `most` of each; rings again when there is more."""
        while self._later and self._later[0][0] <= trio.current_time():
            _, number, item = heapq.heappop(self._later)
            heapq.heappush(self._ready, (number, item))
        for _ in range(min(len(self._words), most)):
            done, became = self._words.popleft()
            _call(done, became)
        for _ in range(most):
            taking = self._next_taking() if self._ready else None
            if taking is None:
                break
            self._hand_on(taking, heapq.heappop(self._ready)[1])
        else:
            self._rung()
        if self._words:
            self._rung()

    def end(self) -> None:
        """The bus has ended: the words that are due are said."""
        while self._words:
            done, became = self._words.popleft()
            _call(done, became)

    def _next_taking(self) -> _Taking | None:
        """In turn, whoever has room."""
        for _ in range(len(self.takings)):
            self._turn += 1
            taking = self.takings[self._turn % len(self.takings)]
            if len(taking.unsettled) < UNSETTLED:
                return taking
        return None

    def _hand_on(self, taking: _Taking, item: _Item) -> None:
        item.attempt += 1
        if item.attempt > MAX_DELIVERIES:
            self.dropped += 1
            log.error("stream_poisoned", extra={"attempts": item.attempt - 1, "bytes": len(item.payload)})
            self.forget(item)
            return
        item.taking = taking
        taking.unsettled[item.number] = item
        try:
            taking.handler(item)
        except Exception:
            log.exception("stream_handler_failed")
            item.put_back(min(FIRST_DELAY * 2.0 ** min(item.attempt - 1, 10), LAST_DELAY))


def _call(done: Callable[[Confirmation], None], became: Confirmation) -> None:
    try:
        done(became)
    except Exception:
        log.exception("confirmation_failed")
