"""The Trio side of a durable uplink, outwards: payloads that a stream is to keep, until it has said what became of it.

No server is known here; what is written when is `nats_stream.py`'s, on the asyncio thread. A parcel is given up at its
deadline, whatever the server does.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadClosed
from gateway.core.ports import Confirmation
from gateway.core.wake import Wake

log = logging.getLogger("gateway.bus")

SLICE: Final = 256
"""Answers told until other tasks have their turn."""


class Parcel:
    """One payload on its way into a stream. `written` is the asyncio side's, the rest Trio's."""

    __slots__ = ("deadline", "done", "key", "number", "over", "payload", "writings", "written")

    def __init__(
        self, number: int, payload: bytes, key: str, deadline: float, done: Callable[[Confirmation], None]
    ) -> None:
        self.number = number
        self.payload = payload
        self.key = key
        self.deadline = deadline
        self.done = done
        self.over = False
        """Somebody has been told what became of it."""
        self.written = False
        """A server may have it. Set before `over` is looked at, so that what is given up unwritten stays unwritten."""
        self.writings = 0


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream was asked to keep since the start: `offered` is the sum of the others but `turned_away`."""

    offered: int
    confirmed: int
    repeated: int
    refused: int
    """Not kept: the stream is full or gone, or no server was there in time."""
    unknown: int
    """May be kept: no word came in time."""
    waiting: int
    turned_away: int
    """Payloads that were not taken: as many waited for their word as may."""
    waiting_bytes: int


class Parcels:
    """All that wait for the stream's word, oldest first, bounded in number and bytes."""

    def __init__(self, thread: AsyncioThread, *, patience: float, most: int, most_bytes: int) -> None:
        """
        Args:
            thread: where the asyncio side runs.
            patience: seconds that the stream has for its word.
            most: parcels that may wait for it.
            most_bytes: bytes that those may have together.
        """
        self._thread = thread
        self._patience = patience
        self._most = most
        self._most_bytes = most_bytes
        self._held = 0
        self._order: deque[Parcel] = deque()
        """Oldest first; those in the midst may be over already."""
        self._bytes = 0
        self._number = 0
        self._turned_away = 0
        self._became = dict.fromkeys(Confirmation, 0)
        self._oldest = trio.Event()
        self._answers: deque[tuple[Parcel, Confirmation]] = deque()
        self._woken = False
        self._bell = Wake()
        self.settled = 0
        """Parcels whose word was told, in any order."""

    @property
    def offered(self) -> int:
        """Parcels taken since the start."""
        return self._number

    def statistics(self) -> StreamStatistics:
        """Counts since the start, and what waits now."""
        became = self._became
        return StreamStatistics(
            offered=self._number,
            confirmed=became[Confirmation.CONFIRMED],
            repeated=became[Confirmation.REPEATED],
            refused=became[Confirmation.REFUSED],
            unknown=became[Confirmation.UNKNOWN],
            waiting=self._held,
            turned_away=self._turned_away,
            waiting_bytes=self._bytes,
        )

    def offer(self, payload: bytes, key: str, done: Callable[[Confirmation], None]) -> Parcel | None:
        """Take one; None when the bound is reached."""
        if self._held >= self._most or self._bytes + len(payload) > self._most_bytes:
            self._turned_away += 1
            return None
        self._number += 1
        parcel = Parcel(self._number, payload, key, trio.current_time() + self._patience, done)
        if not self._order:
            self._oldest.set()
        self._order.append(parcel)
        self._held += 1
        self._bytes += len(payload)
        return parcel

    def turn_away(self) -> None:
        """Count one that was not even offered."""
        self._turned_away += 1

    def answered(self, parcel: Parcel, became: Confirmation) -> None:
        """On the asyncio thread: the stream's word. One wake-up for all that come together."""
        self._answers.append((parcel, became))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(AsyncioThreadClosed):
                self._thread.call_trio(self._bell.wake)

    async def run(self, told: Callable[[], None]) -> None:
        """Tell what became of each, until cancelled; `told` is called after each batch of news."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell, told)
            nursery.start_soon(self._expire, told)

    def end(self) -> None:
        """The bus has ended: of what still waits nobody will say more."""
        self._answers.clear()
        self._woken = False
        while self._order:
            self._give_up(self._order[0])

    async def _tell(self, told: Callable[[], None]) -> None:
        while True:
            self._woken = False  # before the queue is read: whoever appends later wakes again
            if not self._answers:
                await self._bell.wait()
                continue
            for _ in range(min(len(self._answers), SLICE)):
                self._close(*self._answers.popleft())
            told()
            await trio.lowlevel.checkpoint()

    async def _expire(self, told: Callable[[], None]) -> None:
        while True:
            if not self._order:
                self._oldest = trio.Event()
                await self._oldest.wait()
            await trio.sleep_until(self._order[0].deadline if self._order else 0)
            now = trio.current_time()
            while self._order and self._order[0].deadline <= now:
                self._give_up(self._order[0])
            told()

    def _give_up(self, parcel: Parcel) -> None:
        parcel.over = True  # first: then nobody writes it who has not said so already
        self._end_one(parcel, Confirmation.UNKNOWN if parcel.written else Confirmation.REFUSED)

    def _close(self, parcel: Parcel, became: Confirmation) -> None:
        if not parcel.over:  # else its word came too late
            parcel.over = True
            self._end_one(parcel, became)

    def _end_one(self, parcel: Parcel, became: Confirmation) -> None:
        while self._order and self._order[0].over:
            self._order.popleft()
        self._held -= 1
        self._bytes -= len(parcel.payload)
        self._became[became] += 1
        self.settled += 1
        try:
            parcel.done(became)
        except Exception:
            log.exception("confirmation_failed")
