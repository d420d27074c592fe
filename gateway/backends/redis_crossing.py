"""From Trio to connections on the asyncio thread, and the server's clock as it is known here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import trio

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadBusy, AsyncioThreadClosed
from gateway.backends.redis_cluster import ClusterLink
from gateway.backends.redis_link import Command, RedisLink, ScriptCall
from gateway.backends.redis_slots import Server
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import StoreUnavailable

MARGIN: Final = 0.02
"""Seconds before an operation is given up in which it is not begun any more: covers how well the clock is known."""


class Crossing:
    """A fixed number of connections, each asked by one task at a time."""

    def __init__(self, thread: AsyncioThread, settings: RedisSettings, lanes: int, home: Server | None = None) -> None:
        """
        Args:
            thread: where they are.
            settings: whom to connect to.
            lanes: how many.
            home: the master of a cluster that they lead to; without it, it is one server.
        """
        self._thread = thread
        self._links: Sequence[RedisLink | ClusterLink] = [
            RedisLink(settings) if home is None else ClusterLink(settings, home) for _ in range(lanes)
        ]

    async def ask(self, lane: int, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        """The answers to some commands.

        Raises:
            StoreUnavailable: not all of it was answered in time; what was sent may have been done.
        """
        try:
            return await self._thread.run(self._links[lane].ask, commands)
        except (AsyncioThreadBusy, AsyncioThreadClosed) as error:
            raise StoreUnavailable(str(error)) from error

    @property
    def connects(self) -> int:
        """How often a connection came up, over all lanes."""
        return sum(link.connects for link in self._links)

    @property
    def moved(self) -> int:
        """How often a key of a cluster was not where it should be."""
        return sum(link.moved for link in self._links if isinstance(link, ClusterLink))

    async def drop(self, lane: int) -> None:
        """Have the lane connect anew: where it leads is no master any more."""
        try:
            await self._thread.run(self._links[lane].close)
        except (AsyncioThreadBusy, AsyncioThreadClosed) as error:
            raise StoreUnavailable(str(error)) from error

    async def close(self) -> None:
        """Drop every connection."""
        try:
            for link in self._links:
                await self._thread.run(link.close)
        except (AsyncioThreadBusy, AsyncioThreadClosed):
            return  # the thread has ended, and its loop with every connection


class ServerClock:
    """What time it is in the server, never later than it is.

    An answer that tells the server's time was made between question and answer, so their ends bound the difference to
    our clock from both sides. The lower bound is kept, since a deadline that comes to the server too early is merely
    answered `late`, while one too late would let a given-up operation happen.
    """

    def __init__(self) -> None:
        self._difference: float | None = None

    def learn(self, server_ms: int, asked: float, answered: float) -> None:
        """Take in one answer; `asked` and `answered` on Trio's clock."""
        lowest, highest = server_ms / 1000 - answered, server_ms / 1000 - asked
        if self._difference is None or lowest > self._difference or highest < self._difference:
            self._difference = lowest

    def deadline(self, ours: float) -> int:
        """Until when, in the server's milliseconds, something may begin that is given up at `ours` on Trio's clock.

        Raises:
            StoreUnavailable: the server has never told its time.
        """
        if self._difference is None:
            raise StoreUnavailable("Redis has not answered yet")
        return int((ours - MARGIN + self._difference) * 1000)

    @staticmethod
    def now() -> float:
        """Our side of it."""
        return trio.current_time()
