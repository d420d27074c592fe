"""The reference Logic: four tasks between the Bus and a Store. What it promises is in docs/logic.md.

Messages and receipts go one way: intake, `_store` (one transaction for all that waits), `_route` (one lookup for
the batch, then acknowledgements and deliveries in the order stored). So one sender's messages keep their order,
and what a user is sent comes in the order of their timeline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec
import trio

from gateway.core.ports import Bus, LocationStore, Subscription
from gateway.logic.answers import answer_syncs
from gateway.logic.intake import Intake, Job
from gateway.logic.routing import Origin, Places, Router
from gateway.logic.settings import LogicSettings
from gateway.logic.signals import pass_signals
from gateway.logic.store import Outcome, Post, Posted, Raised, Receipt, Store, StoreFailed, Told, Write
from gateway.protocol.codes import Code
from gateway.protocol.subjects import LOGIC_QUEUE, Subjects
from gateway.protocol.types import MsgType

log = logging.getLogger("gateway.logic")

PIPELINE: Final = 4
"""Stored batches that may wait to be routed; with more, storing waits."""
SYNC_BATCH: Final = 16
"""Sync requests read in one go."""


class LogicStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a LogicService has done since the start, and what waits now."""

    stored: int
    repeated: int
    rejected: int
    receipts: int
    """Receipts that were news."""
    syncs: int
    signals: int
    store_failures: int
    lookups_failed: int
    sent: int
    """Downstreams published."""
    not_sent: int
    """Downstreams given up: the bus stayed full or cannot carry them."""
    malformed: int
    dropped: int
    waiting: int
    waiting_bytes: int


class Failed(msgspec.Struct, frozen=True):
    """The store did not take it."""

    code: Code


Finished = tuple[Job[Post | Receipt], Outcome | Failed]


class LogicService:
    """Stores, deduplicates, routes, acknowledges and answers Sync. `run` it once; the store stays yours."""

    def __init__(
        self,
        bus: Bus,
        locations: LocationStore,
        store: Store,
        settings: LogicSettings | None = None,
        *,
        subjects: Subjects | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """
        Args:
            bus: where access nodes are; must be running before `run`.
            locations: who is asked where users are.
            store: open for as long as `run` runs.
            settings: bounds; the defaults if None.
            subjects: another prefix than `im`.
            wall_ms: Unix milliseconds, for `stored_at` and timestamps.
        """
        self._bus = bus
        self._store = store
        self._settings = settings or LogicSettings()
        self._subjects = subjects or Subjects()
        self._wall_ms = wall_ms
        self._router = Router(bus, locations, self._subjects, self._settings)
        self._intake = Intake(self._router, self._settings)
        self._told: list[Told] = []
        self._subscriptions: list[Subscription] = []
        self._stored = self._repeated = self._rejected = self._receipts = 0
        self._syncs = self._signals = self._store_failures = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. A transaction that has begun is finished and its messages count as stored;
        what was not acknowledged the client sends again."""
        intake = self._intake
        self._subscriptions = [
            self._bus.subscribe(self._subjects.upstream, intake.receive, queue=LOGIC_QUEUE),
            self._bus.subscribe(self._subjects.undelivered, intake.undelivered, queue=LOGIC_QUEUE),
        ]
        send, receive = trio.open_memory_channel[list[Finished]](PIPELINE)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forever, self._store_next, send)
                nursery.start_soon(self._forever, self._route_next, receive)
                nursery.start_soon(self._forever, self._answer_next)
                nursery.start_soon(self._forever, self._signal_next)
                nursery.start_soon(self._forever, self._redeliver_next)
                task_status.started()
        finally:
            self.part()
            send.close()
            receive.close()

    def part(self) -> None:
        """Take nothing new; the others of the queue group do. What was received is finished: see `drain`."""
        while self._subscriptions:
            self._subscriptions.pop().close()

    async def drain(self) -> None:
        """Return when everything received has been stored, answered and handed to the bus. The caller holds a
        deadline, drains the bus before (so that all is received) and after (so that answers arrive)."""
        intake = self._intake
        for backlog in (intake.writes, intake.syncs, intake.signals, intake.again):
            await backlog.wait_idle()
        told, self._told = self._told, []
        if told:
            await self._write(told)

    def statistics(self) -> LogicStatistics:
        """Counters since the start, and what waits now."""
        intake, router = self._intake, self._router
        return LogicStatistics(
            stored=self._stored,
            repeated=self._repeated,
            rejected=self._rejected + intake.rejected,
            receipts=self._receipts,
            syncs=self._syncs,
            signals=self._signals,
            store_failures=self._store_failures,
            lookups_failed=router.lookups_failed,
            sent=router.sent,
            not_sent=router.not_sent + router.refused,
            malformed=intake.malformed,
            dropped=intake.dropped,
            waiting=intake.writes.held,
            waiting_bytes=intake.writes.held_bytes,
        )

    async def _forever(self, step: Callable[..., Awaitable[None]], *args: object) -> None:
        """A bug costs the batch it met, never the service."""
        while True:
            try:
                await step(*args)
            except Exception:
                log.exception("logic_step_failed", extra={"step": step.__name__})

    # -- messages and receipts -----------------------------------------------------------------------------

    async def _store_next(self, routed: trio.MemorySendChannel[list[Finished]]) -> None:
        jobs = await self._intake.writes.take(self._settings.commit_messages)
        told, self._told = self._told, []
        while jobs:
            outcomes = await self._write([*(job.work for job in jobs), *told])
            await routed.send(list(zip(jobs, outcomes, strict=False)))
            jobs = jobs[len(outcomes) :]

    async def _write(self, writes: Sequence[Write]) -> Sequence[Outcome | Failed]:
        code = Code.UPSTREAM_UNAVAILABLE
        try:
            return await self._store.write(writes, self._wall_ms())
        except StoreFailed as error:
            log.error("store_failed", extra={"writes": len(writes), "error": str(error)})
        except Exception:
            code = Code.INTERNAL_ERROR
            log.exception("store_broken", extra={"writes": len(writes)})
        self._store_failures += 1
        return [Failed(code)] * len(writes)

    async def _route_next(self, stored: trio.MemoryReceiveChannel[list[Finished]]) -> None:
        batch = await stored.receive()
        try:
            places = await self._router.locate(user for finished in batch for user in _concerned(*finished))
            now = self._wall_ms()
            for job, outcome in batch:
                if isinstance(job.work, Post):
                    await self._finish_post(job.origin, job.work, outcome, places, now)
                elif isinstance(outcome, Raised):
                    self._receipts += 1
                    if await self._router.notify(outcome, now, places):
                        self._told.append(Told(outcome.key, outcome.status))
        finally:
            self._intake.writes.finish(len(batch), sum(job.size for job, _ in batch))

    async def _finish_post(
        self, origin: Origin, post: Post, outcome: Outcome | Failed, places: Places, now: int
    ) -> None:
        if isinstance(outcome, Posted):
            self._stored += not outcome.repeated
            self._repeated += outcome.repeated
            await self._router.deliver(origin, post, outcome, places)
        else:
            self._rejected += 1
            code = outcome.code if isinstance(outcome, Failed) else Code.INVALID_PAYLOAD
            await self._router.reject(origin, post.msg_id, code, now)

    # -- what is not stored --------------------------------------------------------------------------------

    async def _answer_next(self) -> None:
        jobs = await self._intake.syncs.take(SYNC_BATCH)
        try:
            told = await answer_syncs(self._store, self._router, self._settings, jobs, self._wall_ms())
            if told:
                await self._write(told)
        finally:
            self._syncs += len(jobs)
            self._intake.syncs.finish(len(jobs))

    async def _signal_next(self) -> None:
        jobs = await self._intake.signals.take(self._settings.max_signals)
        try:
            self._signals += await pass_signals(self._store, self._router, jobs, self._wall_ms())
        finally:
            self._intake.signals.finish(len(jobs))

    async def _redeliver_next(self) -> None:
        again = await self._intake.again.take(self._settings.max_signals)
        try:
            places = await self._router.locate(each.user_id for each in again)
            for each in again:
                newer = [place for place in places.get(each.user_id, ()) if place.conn_id > each.conn_id]
                await self._router.send_to_user(each.user_id, MsgType.MESSAGE, each.packet, {each.user_id: newer})
        finally:
            self._intake.again.finish(len(again), sum(each.size for each in again))


def _concerned(job: Job[Post | Receipt], outcome: Outcome | Failed) -> Iterable[int]:
    """Whose locations are needed to pass this on."""
    if isinstance(outcome, Raised):
        yield outcome.sender
    elif isinstance(outcome, Posted) and not outcome.repeated:
        yield job.origin.user_id
        yield from (user for user, _ in outcome.recipients)
