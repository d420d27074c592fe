"""One private epoll for every client socket of the process, drained by one Trio task.

Readiness in, synchronous callbacks out. Knows descriptors only: no byte, no link, no message lives here.
Why not a Trio wait per socket: measured, 9-11 us of CPU per echoed message instead of 4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from gateway._sockets import Poll, Socket

log = logging.getLogger("gateway.reactor")

SLICE: Final = 0.001
"""Seconds of callbacks after which every other Trio task gets its turn."""


@dataclass(frozen=True, slots=True)
class ReactorStatistics:
    """What `Reactor.statistics` returns; the counters run since the start."""

    registered: int
    """Descriptors, paused ones included."""
    paused: int
    polls: int
    events: int
    failures: int
    """Callbacks that raised: bugs, each logged."""


class Reactor:
    """Calls the target of each registered descriptor that can be read, level-triggered, on the Trio thread.

    `register`, `pause`, `resume` and `unregister` never wait, are idempotent, and may be called from within a
    callback for any descriptor. Unregister before closing a descriptor. A callback reads once per call (what is left
    makes it ready again) and tolerates a call with nothing to read.
    """

    def __init__(self) -> None:
        self._poll = Poll(_log_failure)
        self._ended = False
        # Bound once: these are called for every login and every full bus.
        self.pause: Callable[[int], None] = self._poll.pause
        """Do not poll the descriptor until `resume`; an error on it is still told."""
        self.resume: Callable[[int], None] = self._poll.resume
        """Poll it again."""
        self.unregister: Callable[[int], None] = self._poll.unregister
        """Forget it, also when its event is in the batch at hand."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Call targets until cancelled; then the epoll descriptor is freed and the reactor is of no more use."""
        if self._ended:
            raise RuntimeError("this reactor has ended; make a new one")
        poll = self._poll
        try:
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(poll)
                # Polling again costs a twentieth of a pass of Trio's scheduler: under load most passes are saved.
                while poll.drain(SLICE):
                    await trio.lowlevel.checkpoint()
        finally:
            self._ended = True
            poll.close()

    def register(self, fd: int, target: Socket | Callable[[], None]) -> None:
        """Let a `Socket` read, or call `target`, whenever `fd` can be read, has ended or has failed.

        Replaces an earlier registration, and resumes. After the end of `run` it does nothing.

        Raises:
            OSError: the kernel's limit of watches (fs.epoll.max_user_watches), or a bad descriptor.
        """
        self._poll.register(fd, target)

    def statistics(self) -> ReactorStatistics:
        """Sizes and counters."""
        poll = self._poll
        return ReactorStatistics(
            registered=poll.registered,
            paused=poll.paused,
            polls=poll.polls,
            events=poll.ready,
            failures=poll.failures,
        )


def _log_failure() -> None:
    """Called in an except block: a link that lets an exception through would do so for ever; it is not polled more."""
    log.exception("callback_failed")
