"""The reference Logic: four tasks between the Bus and a Store. What it promises is in docs/logic.md.

Messages and receipts go one way: intake, `_store` (one transaction for all that waits), `_route` (one lookup for
the batch, then acknowledgements and deliveries in the order stored). So one sender's messages keep their order,
and what a user is sent comes in the order of their timeline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import trio

from gateway.core.books import Account
from gateway.core.ports import Bus, Consumption, LocationStore, Subscription
from gateway.core.uplink import durable as durable_bus
from gateway.logic.answers import answer_syncs
from gateway.logic.files import FETCH_BATCH, permit_fetches
from gateway.logic.intake import Intake, Job
from gateway.logic.rerouting import Again, newer
from gateway.logic.retention import forget
from gateway.logic.routing import Places, Router
from gateway.logic.settings import LogicSettings
from gateway.logic.signals import pass_signals
from gateway.logic.statistics import LogicStatistics
from gateway.logic.store import Outcome, Post, Posted, Raised, Receipt, Store, StoreFailed, Told, Write
from gateway.protocol.codes import Code
from gateway.protocol.subjects import LOGIC_QUEUE, Subjects
from gateway.protocol.types import MsgType

log = logging.getLogger("gateway.logic")

PIPELINE: Final = 4
"""Stored batches that may wait to be routed; with more, storing waits."""
FIRST_TRY: Final = 32
STORE_RETRY: Final = 0.25
"""Seconds until a store that could not be asked is asked again for what came out of a stream."""
SYNC_BATCH: Final = 16
"""Sync requests read in one go."""


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
        durable: bool = False,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """
        Args:
            bus: where access nodes are; must be running before `run`.
            locations: who is asked where users are.
            store: open for as long as `run` runs.
            settings: bounds; the defaults if None.
            subjects: another prefix than `im`.
            durable: take Messages from the stream too; the bus is a DurableBus then.
            wall_ms: Unix milliseconds, for `stored_at` and timestamps.
        """
        self._bus = bus
        self._store = store
        self._settings = settings or LogicSettings()
        self._subjects = subjects or Subjects()
        self._wall_ms = wall_ms
        self._router = Router(bus, locations, self._subjects, self._settings)
        self._intake = Intake(self._router, self._settings)
        self._stream = durable_bus(bus) if durable else None
        self._intake.patient = durable
        self._consumption: Consumption | None = None
        self._kept: list[Job[Post | Receipt]] = []
        """Out of the stream, and the store could not be asked: tried again, before anything newer."""
        self._failing = False
        self._trying = FIRST_TRY
        """How many of these are tried at once: few after a failure, twice as many after each success."""
        self._told: list[Told] = []
        self._subscriptions: list[Subscription] = []
        self._store_failures = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. A transaction that has begun is finished and its messages count as stored;
        what was not acknowledged the client sends again."""
        intake = self._intake
        self._subscriptions = [
            self._bus.subscribe(self._subjects.upstream, intake.receive, queue=LOGIC_QUEUE),
            self._bus.subscribe(self._subjects.undelivered, intake.undelivered, queue=LOGIC_QUEUE),
        ]
        if self._stream is not None:
            self._consumption = self._stream.consume(self._subjects.durable, intake.take, group=LOGIC_QUEUE)
        send, receive = trio.open_memory_channel[list[Finished]](PIPELINE)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forever, self._store_next, send)
                nursery.start_soon(self._forever, self._route_next, receive)
                nursery.start_soon(self._forever, self._answer_next)
                nursery.start_soon(self._forever, self._signal_next)
                nursery.start_soon(self._forever, self._permit_next)
                nursery.start_soon(self._forever, self._redeliver_next)
                nursery.start_soon(forget, self._store, self._settings, self._wall_ms)
                task_status.started()
        finally:
            self.part()
            if self._consumption is not None:
                self._consumption.abandon()
            send.close()
            receive.close()

    def part(self) -> None:
        """Take nothing new; the others of the queue group do. What was received is finished: see `drain`."""
        if self._consumption is not None:
            self._consumption.close()
        while self._subscriptions:
            self._subscriptions.pop().close()

    async def drain(self) -> None:
        """Return when everything received has been stored, answered and handed to the bus. The caller holds a
        deadline, drains the bus before (so that all is received) and after (so that answers arrive)."""
        intake = self._intake
        for backlog in (intake.writes, intake.syncs, intake.signals, intake.again, intake.fetches):
            await backlog.wait_idle()
        told, self._told = self._told, []
        if told:
            await self._write(told)

    def statistics(self) -> LogicStatistics:
        """Counters since the start, and what waits now."""
        intake, router = self._intake, self._router
        ups, downs, reports = intake.upstreams, router.downstreams, intake.reports
        return LogicStatistics(
            received=ups.came,
            stored=ups.became["stored"],
            repeated=ups.became["repeated"],
            rejected=ups.sum("rejected_"),
            receipts=ups.became["receipts_new"],
            syncs=ups.became["syncs"],
            signals=ups.became["signals"],
            store_failures=self._store_failures,
            lookups_failed=router.lookups_failed,
            sent=downs.became["sent"],
            not_sent=downs.came - downs.became["sent"] - router.trying,
            rerouted=reports.became["rerouted"],
            malformed=ups.became["malformed"] + reports.became["malformed"],
            dropped=ups.sum("dropped_") + reports.became["full"],
            waiting=intake.writes.held,
            waiting_bytes=intake.writes.held_bytes,
        )

    def books(self) -> list[Account]:
        """What came from nodes, what went to them, and what became of each. Exact at any time for a caller."""
        intake, router = self._intake, self._router
        held = intake.writes.held + intake.syncs.held + intake.signals.held + intake.fetches.held
        return [
            intake.upstreams.account("logic_upstreams", held),
            intake.reports.account("logic_undelivered", intake.again.held),
            router.downstreams.account("logic_downstreams", router.trying),
        ]

    async def _forever(self, step: Callable[..., Awaitable[None]], *args: object) -> None:
        """A bug costs the batch it met, never the service."""
        while True:
            try:
                await step(*args)
            except Exception:
                log.exception("logic_step_failed", extra={"step": step.__name__})

    # -- messages and receipts -----------------------------------------------------------------------------

    async def _store_next(self, routed: trio.MemorySendChannel[list[Finished]]) -> None:
        most = self._settings.commit_messages
        if self._kept:
            if self._failing:
                await trio.sleep(STORE_RETRY)
            # few at first: a store that comes back has much to do, and a late answer would be one more failure
            most = min(most, self._trying)
            jobs, self._kept = self._kept[:most], self._kept[most:]
            jobs += self._intake.writes.take_nowait(most - len(jobs))
        else:
            jobs = await self._intake.writes.take(most)
        told, self._told = self._told, []
        while jobs:
            outcomes = await self._write([*(job.work for job in jobs), *told])
            await routed.send(list(self._finished(jobs, outcomes)))
            jobs = jobs[len(outcomes) :]

    def _finished(
        self, jobs: Sequence[Job[Post | Receipt]], outcomes: Sequence[Outcome | Failed]
    ) -> Iterator[Finished]:
        """What became of the first of these; without what is kept to be tried again."""
        again: list[Job[Post | Receipt]] = []
        for job, outcome in zip(jobs, outcomes, strict=False):
            if job.item is not None and isinstance(outcome, Failed) and outcome.code is Code.UPSTREAM_UNAVAILABLE:
                again.append(job)
            else:
                yield job, outcome
        self._failing = bool(again)
        self._trying = FIRST_TRY if again else min(2 * self._trying, self._settings.commit_messages)
        self._kept[:0] = again

    async def _write(self, writes: Sequence[Write]) -> Sequence[Outcome | Failed]:
        code = Code.UPSTREAM_UNAVAILABLE
        try:
            return await self._store.write(writes, self._wall_ms())
        except StoreFailed as error:
            log.error("store_failed", extra={"writes": len(writes), "error": str(error)})
        except Exception:
            code = Code.INTERNAL_ERROR
            log.exception("store_broken", extra={"writes": len(writes)})
            if len(writes) > 1:  # find the one that breaks it: the others are innocent
                half = len(writes) // 2
                first = await self._write(writes[:half])
                return first if len(first) < half else [*first, *await self._write(writes[half:])]
        self._store_failures += 1
        return [Failed(code)] * len(writes)

    async def _route_next(self, stored: trio.MemoryReceiveChannel[list[Finished]]) -> None:
        batch = await stored.receive()
        done = 0
        try:
            places = await self._router.locate(user for finished in batch for user in _concerned(*finished))
            now = self._wall_ms()
            for job, outcome in batch:
                await self._route(job, outcome, places, now)
                self._settle(job, outcome)
                if job.item is not None:
                    job.item.settle()  # not when cancelled: then it comes again, and its sender is told after all
                done += 1
        except Exception:
            for job, _ in batch[done:]:
                if job.item is not None:
                    job.item.settle()
            raise
        finally:
            for job, outcome in batch[done:]:
                self._settle(job, outcome)

    async def _route(self, job: Job[Post | Receipt], outcome: Outcome | Failed, places: Places, now: int) -> None:
        if not isinstance(job.work, Post):
            if isinstance(outcome, Raised) and await self._router.notify(outcome, now, places):
                self._told.append(Told(outcome.key, outcome.status))
        elif isinstance(outcome, Posted):
            await self._router.deliver(job.origin, job.work, outcome, places)
            if job.offer is not None and not outcome.repeated:
                await self._router.offer(job.origin, job.offer, outcome, places)
        elif not self._is_asked_again(job, outcome):
            await self._router.reject(job.origin, job.work.msg_id, _rejection(outcome), now)

    def _is_asked_again(self, job: Job[Post | Receipt], outcome: Outcome | Failed) -> bool:
        """Whether it is a repeat of what a stream has: its sender hears of that one, not of what only fails now."""
        return self._intake.patient and job.offer is None and _rejection(outcome) == Code.UPSTREAM_UNAVAILABLE

    def _settle(self, job: Job[Post | Receipt], outcome: Outcome | Failed) -> None:
        """Count what became of one, whether or not anybody could be told, and give its room back."""
        if isinstance(job.work, Post):
            if isinstance(outcome, Posted):
                became = "repeated" if outcome.repeated else "stored"
            else:
                became = f"rejected_{_rejection(outcome):d}"
        elif isinstance(outcome, Failed):
            became = "receipts_lost"
        else:
            became = "receipts_new" if isinstance(outcome, Raised) else "receipts_old"
        self._intake.upstreams.add(became)
        self._intake.writes.finish(1, job.size)

    # -- what is not stored --------------------------------------------------------------------------------

    async def _answer_next(self) -> None:
        jobs = await self._intake.syncs.take(SYNC_BATCH)
        try:
            told = await answer_syncs(self._store, self._router, self._settings, jobs, self._wall_ms())
            if told:
                await self._write(told)
        finally:
            self._intake.upstreams.add("syncs", len(jobs))
            self._intake.syncs.finish(len(jobs))

    async def _signal_next(self) -> None:
        jobs = await self._intake.signals.take(self._settings.max_signals)
        try:
            await pass_signals(self._store, self._router, jobs, self._wall_ms())
        finally:
            self._intake.upstreams.add("signals", len(jobs))
            self._intake.signals.finish(len(jobs))

    async def _permit_next(self) -> None:
        jobs = await self._intake.fetches.take(FETCH_BATCH)
        try:
            await permit_fetches(self._store, self._router, jobs, self._wall_ms())
        finally:
            self._intake.upstreams.add("fetches", len(jobs))
            self._intake.fetches.finish(len(jobs))

    async def _redeliver_next(self) -> None:
        jobs = await self._intake.again.take(self._settings.max_signals)
        outcomes: list[str] = []
        try:
            places = await self._router.locate(each.user_id for each in jobs)
            for each in jobs:
                outcomes.append(await self._redeliver(each, places))
        finally:
            for each in jobs:
                self._intake.reports.add(outcomes.pop(0) if outcomes else "not_sent")
                self._intake.again.finish(1, each.size)

    async def _redeliver(self, each: Again, places: Places) -> str:
        there = {each.user_id: newer(each, places.get(each.user_id, ()))}
        if not there[each.user_id]:
            return "offline"
        sent = await self._router.send_to_user(each.user_id, MsgType.MESSAGE, each.packet, there)
        return "rerouted" if sent else "not_sent"


def _rejection(outcome: Outcome | Failed) -> Code:
    """What the sender of a message that is not stored is told."""
    return outcome.code if isinstance(outcome, Failed) else Code.INVALID_PAYLOAD


def _concerned(job: Job[Post | Receipt], outcome: Outcome | Failed) -> Iterable[int]:
    """Whose locations are needed to pass this on."""
    if isinstance(outcome, Raised):
        yield outcome.sender
    elif isinstance(outcome, Posted) and not outcome.repeated:
        yield job.origin.user_id
        yield from (user for user, _ in outcome.recipients)
