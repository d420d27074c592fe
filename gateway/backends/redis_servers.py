"""The servers that hold our keys: one, or the masters of a Redis Cluster. Which key is whose, and what is left of a
question when a part of them is away.

No location lives here. Towards each server: redis_shard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadBusy, AsyncioThreadClosed
from gateway.backends.redis_address import cluster_address, redis_address
from gateway.backends.redis_cluster import Map
from gateway.backends.redis_shard import Answer, Job, Shard, Work
from gateway.backends.redis_slots import Server, Topology
from gateway.backends.redis_values import Keys
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import NodeRecord, StoreUnavailable

log = logging.getLogger("gateway.redis")

LEARN: Final = 10.0
"""Seconds between two looks at a map of slots that nobody doubts."""
DOUBT: Final = 0.25
"""Seconds between two looks while a master is away or keys are not where they should be."""


class RedisServers:
    """One or more servers as one. Belongs to one Trio run; `run` it first."""

    def __init__(self, settings: RedisSettings, thread: AsyncioThread) -> None:
        """
        Args:
            settings: whom to connect to.
            thread: where redis-py runs; entered before `run`, left after it.

        Raises:
            ValueError: the prefix is no name, an address is none, or the URL none of Redis.
        """
        self.keys = Keys(settings.prefix)
        """What keys are called."""
        self.timeout = settings.timeout
        """Seconds that one operation may take."""
        self._settings = settings
        self._thread = thread
        self._shards: dict[Server | None, Shard] = {}
        self._topology: Topology | None = None
        self._unknown = "Redis has not been asked yet"
        self._map: Map | None = None
        self._scopes: dict[Server, trio.CancelScope] = {}
        self._doubted = trio.Event()
        self._moved = 0
        self._running = self._told_coverage = self._told_unknown = False
        self._served: set[Server] = set()
        self._recovered = trio.Event()
        self._watchers: list[Callable[[], None]] = []
        if settings.cluster:
            self._map = Map(settings, [cluster_address(each) for each in settings.cluster])
        else:
            redis_address(settings)  # checks it
            self._shards[None] = self._shard(None)

    @property
    def several(self) -> bool:
        """Whether some of them can be away while others are not."""
        return self._map is not None

    @property
    def healthy(self) -> bool:
        """Whether any server answers and takes writes, as of the last second."""
        return any(shard.pulse.healthy for shard in self._shards.values())

    @property
    def waiting(self) -> int:
        """Keys that wait to be asked for."""
        return sum(shard.waiting for shard in self._shards.values())

    def watch(self, recovered: Callable[[], None]) -> None:
        """Have `recovered` called as often as `wait_recovered` is told."""
        self._watchers.append(recovered)

    async def wait_recovered(self) -> None:
        """See `LocationStore.wait_recovered`: any server counts."""
        await self._recovered.wait()
        self._recovered = trio.Event()

    def deadline(self) -> float:
        """When an operation that begins now is given up, on Trio's clock."""
        return trio.current_time() + self.timeout

    async def run(
        self,
        record: Callable[[], NodeRecord] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, and keep the node that `record` describes announced.

        `started` when every server has been asked for the first time, whether or not it answered.
        """
        self._running = True
        try:
            async with trio.open_nursery() as services:
                if self._map is None:
                    await services.start(self._shards[None].run, record)
                else:
                    await self._learn(self._map, services, record)
                    services.start_soon(self._keep_map, self._map, services, record)
                task_status.started()
        finally:
            self._running = False

    async def ask(self, work: Work, jobs: Sequence[Job], deadline: float) -> list[Answer]:
        """One answer for each job, in order; `away` and why for those whose server could not be asked in time.

        Raises:
            StoreUnavailable: no server could be asked.
        """
        if not self._running:
            raise StoreUnavailable("the location store is not running")
        batches = self._batches(work, jobs)
        if len(batches) == 1:
            return await self._ask(work, jobs, batches[0][0], deadline)
        answers: list[Answer] = [[]] * len(jobs)

        async def ask(shard: Shard | None, places: Sequence[int]) -> None:
            try:
                found = await self._ask(work, [jobs[i] for i in places], shard, deadline)
            except StoreUnavailable as error:
                found = [[b"away", str(error).encode()]] * len(places)
            for i, answer in zip(places, found, strict=True):
                answers[i] = answer

        async with trio.open_nursery() as nursery:
            for shard, places in batches:
                nursery.start_soon(ask, shard, places)
        if answers and all(answer[0] == b"away" for answer in answers):
            raise StoreUnavailable(answers[0][1].decode())
        return answers

    async def _ask(self, work: Work, jobs: Sequence[Job], shard: Shard | None, deadline: float) -> list[Answer]:
        if shard is None:
            self._doubt()
            raise StoreUnavailable(self._unknown or "no server of the cluster has this key's slot")
        try:
            return await shard.ask(work, jobs, deadline)
        except StoreUnavailable:
            self._doubt()
            raise
        finally:
            if self._moved != (moved := sum(each.moved for each in self._shards.values())):
                self._moved = moved
                self._doubt()

    def _batches(self, work: Work, jobs: Sequence[Job]) -> list[tuple[Shard | None, list[int]]]:
        """The jobs' places by server, each as many as it takes at once."""
        places: dict[Server | None, list[int]] = {}
        for i, job in enumerate(jobs):
            owner = self._topology.owner(job.key) if self._topology is not None else None
            places.setdefault(owner, []).append(i)
        return [
            (self._shards.get(owner), some[start : start + work.batch])
            for owner, some in places.items()
            for start in range(0, len(some), work.batch)
        ]

    # -- the map of a cluster ------------------------------------------------------------------------------

    def _shard(self, home: Server | None) -> Shard:
        def mine(key: bytes) -> bool:
            return self._topology is None or self._topology.owner(key) == home

        shard = Shard(self._thread, self._settings, self.keys, home, mine, self._doubt)
        shard.pulse.watch(self._tell_recovered)
        return shard

    def _doubt(self) -> None:
        self._doubted.set()

    def _tell_recovered(self) -> None:
        self._recovered.set()
        for watcher in self._watchers:
            watcher()

    async def _keep_map(self, slots: Map, services: trio.Nursery, record: Callable[[], NodeRecord] | None) -> None:
        while True:
            with trio.move_on_after(DOUBT if self._partial() else LEARN):
                await self._doubted.wait()
            await trio.sleep(DOUBT)  # many operations fail at once, which must not make it ask all the time
            self._doubted = trio.Event()
            await self._learn(slots, services, record)

    def _partial(self) -> bool:
        return not self._shards or any(shard.pulse.away for shard in self._shards.values())

    async def _learn(self, slots: Map, services: trio.Nursery, record: Callable[[], NodeRecord] | None) -> None:
        """Ask for the map; open what is new, leave what is no master any more."""
        try:
            topology, lenient = await self._thread.run(slots.learn)
        except (StoreUnavailable, AsyncioThreadBusy, AsyncioThreadClosed) as error:
            if not self._shards and not self._told_unknown:  # later each master tells of itself
                log.warning("redis_away", extra={"reason": str(error)})
                self._told_unknown = True
            self._unknown = str(error)
            return
        if self._told_unknown:
            log.warning("redis_back")
            self._told_unknown = False
        if not lenient and not self._told_coverage:
            self._told_coverage = True
            log.warning("redis_full_coverage", extra={"reason": "one lost master stops all: set it to no"})
        known = self._topology is not None
        self._topology, self._unknown = topology, ""
        masters = topology.masters()
        async with trio.open_nursery() as starting:
            for server in masters - self._scopes.keys():
                shard = self._shards[server] = self._shard(server)
                scope = self._scopes[server] = trio.CancelScope()
                starting.start_soon(services.start, self._serve, shard, scope, record)
                if known:
                    log.info("redis_master", extra={"server": f"{server[0]}:{server[1]}"})
        if known and masters - self._served:
            self._tell_recovered()  # after a failover it may lack what the old one had confirmed last
        for server in self._scopes.keys() - masters:
            shard = self._shards.pop(server)
            services.start_soon(self._retire, self._scopes.pop(server))
        self._served = masters

    async def _serve(
        self,
        shard: Shard,
        scope: trio.CancelScope,
        record: Callable[[], NodeRecord] | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with scope:
            await shard.run(record, task_status=task_status)

    async def _retire(self, scope: trio.CancelScope) -> None:
        """What is under way there may come to its end; nothing new is asked."""
        await trio.sleep(2 * self.timeout)
        scope.cancel()
