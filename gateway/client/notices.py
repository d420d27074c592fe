"""What a program may want to know beside its deliveries: a bounded queue that forgets the oldest."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import trio

from gateway.client.bell import Bell
from gateway.client.messages import Notice


class Notices(AsyncIterator[Notice]):
    """Receipts, signals, events, complaints and state changes in the order they happened; each to one taker.

    Ends after the client has ended. A program that does not take them loses the oldest, never a delivery.
    """

    def __init__(self, bound: int) -> None:
        self._queue: deque[Notice] = deque(maxlen=bound)
        self._bell = Bell()
        self._closed = False
        self.dropped = 0

    def put(self, notice: Notice) -> None:
        """Add one; never waits."""
        self.dropped += len(self._queue) == self._queue.maxlen
        self._queue.append(notice)
        self._bell.ring()

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._closed = True
        self._bell.ring()

    def __aiter__(self) -> Notices:
        return self

    async def __anext__(self) -> Notice:
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            await self._bell.wait()
        return self._queue.popleft()
