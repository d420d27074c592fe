"""A wake-up for one task. Leaner than an Event per connection: no lot, no set of waiters, re-armed by itself."""

from __future__ import annotations

import trio


class Wake:
    """One task waits, anybody wakes it. A wake that comes first is kept; several of them count once."""

    __slots__ = ("_pending", "_task")

    def __init__(self) -> None:
        self._pending = False
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Let the waiter go on, now or when it next waits."""
        if self._task is None:
            self._pending = True
        else:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> None:
        """Return after the next wake. One task at a time.

        Raises:
            trio.BusyResourceError: another task waits already.
        """
        if self._pending:
            self._pending = False
            await trio.lowlevel.checkpoint()
            return
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this")
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
