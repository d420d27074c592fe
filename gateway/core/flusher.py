"""Flushes connections that got something to write, each once per slice, and measures how long that took to come.

Latency is observed once for each connection flushed, and counted from when the first of its batch was pushed to: one
look at the clock per batch and one per slice, whatever a broadcast's size. What waits for a full socket is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from gateway.core.wake import Wake

if TYPE_CHECKING:
    from gateway.core.connection import Connection
    from gateway.core.metrics import Latency

SLICE = 256
"""Connections flushed between two looks at everything else that runs."""


class Flusher:
    """One task per node: what a slice of the bus pushed leaves together when the slice ends."""

    def __init__(self, now: Callable[[], float], latency: Latency) -> None:
        """
        Args:
            now: monotonic seconds.
            latency: where to observe how long each had to wait.
        """
        self._now = now
        self._latency = latency
        self._marked: list[Connection] = []
        self._since = 0.0
        """When the first of them was marked."""
        self._wake = Wake()

    def mark(self, connection: Connection) -> None:
        """Flush this connection soon. The connection sees to it that it is marked once."""
        if not self._marked:
            self._since = self._now()
            self._wake.wake()
        self._marked.append(connection)

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            await self._wake.wait()
            marked, self._marked, since = self._marked, [], self._since
            for start in range(0, len(marked), SLICE):
                if start:
                    await trio.lowlevel.checkpoint()
                some = marked[start : start + SLICE]
                for connection in some:
                    if not connection.closing:
                        try:
                            connection.flush()
                        except Exception:
                            connection.fault()
                self._latency.observe(self._now() - since, len(some))
