"""Many callers, few calls: what waits is asked together, in bounded batches on a fixed number of lanes.

No Redis and no asyncio here; all of it is Trio.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import trio

from gateway.core.ports import StoreUnavailable

log = logging.getLogger("gateway.redis")

J = TypeVar("J")
A = TypeVar("A")

Ask = Callable[[int, Sequence[J]], Awaitable[Sequence[A]]]
"""`ask(lane, jobs)`: one answer per job, in order, or StoreUnavailable for all of them. One call per lane at a time."""


class _Ticket(Generic[J, A]):
    __slots__ = ("abandoned", "answers", "done", "error", "jobs", "sent")

    def __init__(self, jobs: Sequence[J]) -> None:
        self.jobs = jobs
        self.answers: Sequence[A] = ()
        self.error: StoreUnavailable | None = None
        self.sent = self.abandoned = False
        self.done = trio.Event()


class Funnel(Generic[J, A]):
    """Collects jobs of one kind while the lanes are busy."""

    def __init__(self, ask: Ask[J, A], *, lanes: int, batch: int, waiting: int) -> None:
        """
        Args:
            ask: does one batch.
            lanes: batches that may be under way.
            batch: the most jobs in one.
            waiting: jobs that may wait; further ones are refused at once.
        """
        self._ask = ask
        self._lanes = lanes
        self._batch = batch
        self._bound = waiting
        self._tickets: deque[_Ticket[J, A]] = deque()
        self.waiting = 0
        """Jobs that no lane has taken up."""
        self._wake = trio.Event()
        self._running = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled; whoever waits then is told so."""
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                for lane in range(self._lanes):
                    nursery.start_soon(partial(self._work, lane))
                task_status.started()
        finally:
            self._running = False
            while self._tickets:
                self._finish(self._tickets.popleft(), (), StoreUnavailable("the location store is closed"))
            self.waiting = 0

    async def ask(self, jobs: Sequence[J], deadline: float) -> Sequence[A]:
        """The answers to up to a batch of jobs.

        When the caller is cancelled, jobs that wait are never done, and the end of those under way is waited for (until
        the deadline), so that nothing happens behind the caller's back.

        Raises:
            StoreUnavailable: not answered by `deadline` (on Trio's clock), or too much waits already.
        """
        if not self._running:
            raise StoreUnavailable("the location store is not running")
        if self.waiting + len(jobs) > self._bound:
            raise StoreUnavailable("too many operations wait for the location store")
        ticket: _Ticket[J, A] = _Ticket(jobs)
        self._tickets.append(ticket)
        self.waiting += len(jobs)
        self._wake.set()
        try:
            with trio.move_on_at(deadline):
                await ticket.done.wait()
        finally:
            if not ticket.done.is_set():
                if not ticket.sent:
                    ticket.abandoned = True
                else:
                    with trio.CancelScope(shield=True, deadline=deadline):
                        await ticket.done.wait()
        if not ticket.done.is_set():
            raise StoreUnavailable("no answer from the location store in time")
        if ticket.error is not None:
            raise StoreUnavailable(str(ticket.error)) from ticket.error
        return ticket.answers

    async def _work(self, lane: int) -> None:
        while True:
            while not self._tickets:
                if self._wake.is_set():  # one for all lanes
                    self._wake = trio.Event()
                await self._wake.wait()
            batch = self._take()
            if batch:
                await self._do(lane, batch)

    def _take(self) -> list[_Ticket[J, A]]:
        """Whole tickets, as many as fit; always one."""
        batch: list[_Ticket[J, A]] = []
        size = 0
        while self._tickets and (not batch or size + len(self._tickets[0].jobs) <= self._batch):
            ticket = self._tickets.popleft()
            self.waiting -= len(ticket.jobs)
            if not ticket.abandoned:
                ticket.sent = True
                size += len(ticket.jobs)
                batch.append(ticket)
        return batch

    async def _do(self, lane: int, batch: Sequence[_Ticket[J, A]]) -> None:
        answers: Sequence[A] = ()
        error: StoreUnavailable | None = StoreUnavailable("the location store is closed")
        try:
            answers = await self._ask(lane, [job for ticket in batch for job in ticket.jobs])
            error = None
        except StoreUnavailable as unavailable:
            error = unavailable
        except Exception as bug:
            log.exception("location_store_failed")
            error = StoreUnavailable(f"the location store failed: {bug!r}")
        finally:  # also when cancelled
            at = 0
            for ticket in batch:
                end = at + len(ticket.jobs)
                self._finish(ticket, answers[at:end], error)
                at = end

    def _finish(self, ticket: _Ticket[J, A], answers: Sequence[A], error: StoreUnavailable | None) -> None:
        ticket.answers, ticket.error = answers, error
        ticket.done.set()
