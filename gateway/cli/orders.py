"""What signals do to a service that runs: the first one drains it, the second one ends it at once."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from typing import Protocol

import trio

log = logging.getLogger("gateway.run")

LAST_RESORT = 3.0
"""Seconds after the second signal in which the service must have ended in order; then the system ends it."""


class Service(Protocol):
    """Something that serves until it is told to leave."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` has finished, or until cancelled."""

    async def drain(self) -> None:
        """Leave in order."""


class Orders:
    """The first signal drains, the second one ends at once; before the service serves, the first one ends it."""

    def __init__(self, patience: float, scope: trio.CancelScope) -> None:
        """
        Args:
            patience: seconds that draining may take; then it is ended all the same.
            scope: what is cancelled to end it.
        """
        self.service: Service | None = None
        """Set once it serves."""
        self._patience = patience
        self._scope = scope

    async def follow(self, signals: AsyncIterator[int]) -> None:
        """Until the service has left, or is made to leave."""
        async with trio.open_nursery() as nursery:
            draining = False
            async for number in signals:
                if self.service is None or draining:
                    break
                draining = True
                log.info("draining", extra={"signal": signal.Signals(number).name})
                nursery.start_soon(self._drain, self.service)
            log.warning("ending_at_once")
            self._end()

    async def _drain(self, service: Service) -> None:
        with trio.move_on_after(self._patience) as patience:
            await service.drain()
        if patience.cancelled_caught:
            log.error("drain_too_slow", extra={"seconds": self._patience})
            self._end()

    def _end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, LAST_RESORT)  # its default action needs nothing of ours to work
        self._scope.cancel()
