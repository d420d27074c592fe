"""A Backend: the bus and the location store of a cluster, and what a Logic of your own does with them.

Which bus and store a configuration means is `gateway.cluster`'s; how frames are handled is `gateway.logic.function`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from gateway.backend.presence import Presence
from gateway.cluster import check_cluster, open_ports
from gateway.config import Config, check
from gateway.core.books import Account
from gateway.core.ports import Bus, Location, LocationStore
from gateway.logic.function import FunctionLogic, FunctionStatistics, OnMessage, OnOther
from gateway.logic.push import Push
from gateway.protocol.subjects import Subjects

LAST_ORDERS = 5.0
"""Seconds that leaving gives the bus to take what was pushed and answered."""
EVENTS_BOUND = 1024
"""Events that wait for a reader of `presence`."""


class Backend:
    """What your Logic has of the gateway. Made by `open_backend`; one may serve and push from many tasks."""

    def __init__(self, bus: Bus, locations: LocationStore, prefix: str = "im", *, durable: bool = False) -> None:
        self.bus = bus
        self._durable = durable
        self.locations = locations
        self._subjects = Subjects(prefix)
        self.push = Push(bus, locations, self._subjects)
        """`await push(user_id, message)`; `push.connection`, `push.everyone`, `push.event`, `push.kick`."""
        self._serving: list[FunctionLogic] = []

    @property
    def healthy(self) -> bool:
        """Whether the bus and the location store can be reached now. Away from the bus, pushes wait up to its bound."""
        return self.bus.healthy and self.locations.healthy

    async def serve(
        self,
        on_message: OnMessage,
        on_other: OnOther | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Handle what clients send until cancelled, sharing it with every other Logic of the queue group.

        One user's frames are handled one after another, in order; up to 32 users' at the same time. What waits is
        bounded; beyond that, messages are Rejected with 4402 and clients try again. `on_message` returns `Stored`
        (None means the same) or `Rejected(code)`: that is what the sender is told, and `Stored` is your promise.

        Args:
            on_message: handles messages. A client that hears nothing sends a message again: tell them apart by
                (`user_id`, `message.msg_id`).
            on_other: handles Syncs, receipts and signals, and returns the reply to a Sync; without it, Syncs are
                answered by an empty page and the rest is ignored.
            task_status: `started` when it is subscribed.
        """
        logic = FunctionLogic(self.bus, self.push, self._subjects, on_message, on_other, durable=self._durable)
        self._serving.append(logic)
        try:
            await logic.run(task_status=task_status)
        finally:
            self._serving.remove(logic)

    def statistics(self) -> list[FunctionStatistics]:
        """Counters of each `serve` that runs."""
        return [logic.statistics() for logic in self._serving]

    def books(self) -> list[Account]:
        """What came from nodes and what was pushed, each with what became of it, of each `serve` that runs."""
        return [*self.push.books(), *(account for logic in self._serving for account in logic.books())]

    async def drain(self) -> None:
        """Take nothing new, finish what was received, and return when its answers are on their way.

        The caller holds a deadline, and cancels `serve` afterwards.
        """
        for logic in self._serving:
            logic.part()
        await self.bus.drain()
        for logic in list(self._serving):
            await logic.drain()
        await self.bus.drain()

    # -- presence ------------------------------------------------------------------------------------------

    async def lookup(self, user_ids: Iterable[int]) -> dict[int, list[Location]]:
        """Where each of these users is connected now; who is offline is absent.

        Raises:
            StoreUnavailable: within a second, when the store cannot be asked.
        """
        return await self.locations.lookup(list(dict.fromkeys(user_ids)))

    @contextmanager
    def presence(self, user_id: int | None = None, *, bound: int = EVENTS_BOUND) -> Iterator[Presence]:
        """Hear of one user's sessions, or of everybody's: online, kicked, offline, and events of other kinds.

        Args:
            user_id: whose; None for all, which costs a look at every login and end of the cluster.
            bound: events that may wait to be read; further ones are lost and counted.

        Raises:
            ValueError: no user id.
        """
        presence = Presence(self.bus, self._subjects, user_id, bound)
        try:
            yield presence
        finally:
            presence.close()


@asynccontextmanager
async def open_backend(
    config: Config | None = None, *, bus: Bus | None = None, locations: LocationStore | None = None
) -> AsyncIterator[Backend]:
    """Open the NATS and Redis that `config` names, or stand on a bus and a location store of yours.

    What is opened here also runs here, until the block is left; what you give is yours to run. At the end of the
    block the bus has five seconds to take what was pushed.

    Raises:
        gateway.ConfigError: the configuration cannot work, or names no NATS and Redis.
        TypeError: neither or both of the two ways were used.
    """
    if bus is not None and locations is not None and config is None:
        backend = Backend(bus, locations)
        yield backend
        with trio.move_on_after(LAST_ORDERS):
            await backend.bus.drain()
        return
    if config is None or bus is not None or locations is not None:
        raise TypeError("open_backend takes either a config, or both a bus and a location store")
    check(config)
    check_cluster(config, logic=True)
    async with open_ports(config, name="backend") as (opened_bus, opened_locations), trio.open_nursery() as services:
        await services.start(opened_bus.run)
        await services.start(opened_locations.run)
        durable = config.nats.uplink == "jetstream"
        backend = Backend(opened_bus, opened_locations, config.nats.prefix, durable=durable)
        yield backend
        with trio.move_on_after(LAST_ORDERS):
            await backend.bus.drain()
        services.cancel_scope.cancel()
