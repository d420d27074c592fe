"""Flushes connections that got something to write, each once per slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from gateway.core.wake import Wake

if TYPE_CHECKING:
    from gateway.core.connection import Connection

SLICE = 256
"""Connections flushed between two looks at everything else that runs."""


class Flusher:
    """One task per node: what a slice of the bus pushed leaves together when the slice ends."""

    def __init__(self) -> None:
        self._marked: list[Connection] = []
        self._wake = Wake()

    def mark(self, connection: Connection) -> None:
        """Flush this connection soon. The connection sees to it that it is marked once."""
        if not self._marked:
            self._wake.wake()
        self._marked.append(connection)

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            await self._wake.wait()
            marked, self._marked = self._marked, []
            for count, connection in enumerate(marked, 1):
                if not connection.closing:
                    try:
                        connection.flush()
                    except Exception:
                        connection.fault()
                if count % SLICE == 0:
                    await trio.lowlevel.checkpoint()
