"""What waits for one of Logic's tasks: bounded, taken in batches, counted until it is finished."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

from gateway.core.wake import Wake

T = TypeVar("T")


class Backlog(Generic[T]):
    """Many offer, one task takes. What was taken counts against the bound until `finish`."""

    def __init__(self, bound: int, bound_bytes: int = 2**62) -> None:
        self._bound = bound
        self._bound_bytes = bound_bytes
        self._waiting: deque[T] = deque()
        self._wake = Wake()
        self._idle = trio.Event()
        self.held = 0
        """Items that wait or were taken and are not finished."""
        self.held_bytes = 0

    def offer(self, item: T, size: int = 0) -> bool:
        """Add one of `size` bytes; False when the bound is reached. Never waits."""
        if self.held >= self._bound or self.held_bytes + size > self._bound_bytes:
            return False
        self.add(item, size)
        return True

    def add(self, item: T, size: int = 0) -> None:
        """Add one that is bounded where it comes from."""
        self._waiting.append(item)
        self.held += 1
        self.held_bytes += size
        self._wake.wake()

    async def take(self, most: int) -> list[T]:
        """Everything that waits, oldest first and up to `most`; waits for something. One task at a time."""
        while not self._waiting:
            await self._wake.wait()
        return self.take_nowait(most)

    def take_nowait(self, most: int) -> list[T]:
        """The same without waiting; maybe nothing."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def finish(self, count: int, size: int = 0) -> None:
        """So many that were taken hold room no more."""
        self.held -= count
        self.held_bytes -= size
        if not self.held:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when nothing waits and everything taken is finished."""
        while self.held:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()
