"""What signals do to a service that runs: the first one drains it, the second one ends it at once.

SIGHUP has it read its certificates anew. That is also what a terminal says when it goes away: then it drains.
"""

from __future__ import annotations

import logging
import os
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

    def reload(self) -> None:
        """Read anew what may change while it serves: certificates. What cannot be used is logged and left out."""


class Orders:
    """The first signal drains, the second one ends at once; before the service serves, the first one ends it."""

    def __init__(self, patience: float, scope: trio.CancelScope, *, leaves_with_terminal: bool = False) -> None:
        """
        Args:
            patience: seconds that draining may take; then it is ended all the same.
            scope: what is cancelled to end it.
            leaves_with_terminal: whether SIGHUP drains when the terminal is not there any more.
        """
        self.service: Service | None = None
        """Set once it serves."""
        self._patience = patience
        self._scope = scope
        self._leaves_with_terminal = leaves_with_terminal

    async def follow(self, signals: AsyncIterator[int]) -> None:
        """Until the service has left, or is made to leave."""
        async with trio.open_nursery() as nursery:
            draining = False
            async for number in signals:
                if number == signal.SIGHUP and (not self._leaves_with_terminal or _has_terminal()):
                    if self.service is not None:
                        log.info("reloading")
                        self.service.reload()
                    continue
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


def leaves_with_terminal() -> bool:
    """Whether this process was started from a terminal, and not by `nohup`. Ask before anybody handles signals."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()


def _has_terminal() -> bool:
    """Whether there is a terminal behind this process, which a person may close."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
