"""Where users are, in Redis (protocol section 6), for all nodes together.

The commands are in redis_scripts, keys and values in redis_values, servers in redis_servers and redis_shard. Here is
what each operation of the port means in terms of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_scripts import CLAIM, LOOKUP, READ, RELEASE, RENEW, Script
from gateway.backends.redis_servers import RedisServers
from gateway.backends.redis_shard import CLAIMS, LOOKUPS, NODES, RECLAIMS, RELEASES, RENEWALS, Answer, Job, Work
from gateway.backends.redis_values import checked_number, entry_head, read_boot_id, read_location
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import Claimed, Location, LoginPolicy, NodeRecord, StoreUnavailable
from gateway.protocol.ids import checked_name

log = logging.getLogger("gateway.redis")

LIFETIME: Final = 120.0
"""Seconds that a claim or a renewal lasts (protocol section 6)."""
BATCH: Final = 500
"""Releases that are owed and done together."""
OWED: Final = 50_000
"""Releases remembered that could not be done; past it the oldest are left to run out."""
NODE_FRESH: Final = 1.0
"""Seconds for which a node that was seen alive is not asked for again."""
SETTLE: Final = 1.0
"""Seconds between two looks at releases that failed for another reason than an outage."""
ATTEMPTS: Final = 3


class RedisLocationStore:
    """A LocationStore (`gateway.core.ports`) on one Redis. Belongs to one Trio run; `run` it first.

    Locations whose node is gone, or has started anew, count for nothing: `lookup` leaves them out, and a claim
    is never refused because of them. Time is the server's, so a jump of a node's clock loses nobody.
    """

    def __init__(self, settings: RedisSettings, thread: AsyncioThread, *, lifetime: float = LIFETIME) -> None:
        """
        Args:
            settings: whom to connect to.
            thread: where redis-py runs; entered before `run`, left after it.
            lifetime: seconds that a claim or a renewal lasts.

        Raises:
            ValueError: the prefix is no name, an address is none, or the URL none of Redis.
        """
        self.servers = RedisServers(settings, thread)
        """Where it all is; other stores may ask them too while this one runs."""
        self._keys = self.servers.keys
        self._lifetime_ms = int(lifetime * 1000)
        self._seen: dict[str, tuple[str, float]] = {}
        self._owed: dict[int, tuple[Location, float]] = {}
        self._settling = trio.Event()
        self.servers.watch(self._recovered)

    # -- life ----------------------------------------------------------------------------------------------

    async def run(
        self,
        record: Callable[[], NodeRecord] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; announce the node that `record` describes, and withdraw it at the end."""
        async with trio.open_nursery() as services:
            await services.start(self.servers.run, record)
            services.start_soon(self._settle)
            task_status.started()

    @property
    def healthy(self) -> bool:
        """Whether Redis, or any master of a cluster, answers and takes writes, as of the last second."""
        return self.servers.healthy

    async def wait_recovered(self) -> None:
        """Return when Redis is back, was restarted, has forgotten this node, or another server has taken over."""
        await self.servers.wait_recovered()

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept; all of them return to zero, but for the known nodes."""
        return {"waiting": self.servers.waiting, "owed": len(self._owed), "nodes": len(self._seen)}

    # -- operations ----------------------------------------------------------------------------------------

    async def claim(self, location: Location, policy: LoginPolicy) -> Sequence[Location] | None:
        """Enter `location`; the entries it displaced, or None when a newer one of a living node would have to go.

        Raises:
            ValueError: a part of it is no name or number.
            StoreUnavailable: within a second.
        """
        deadline = self.servers.deadline()
        job = self._claim(location, policy, deadline)
        for _ in range(ATTEMPTS):
            kind, *values = (await self._do(CLAIMS, [job], deadline))[0]
            others = _read(location.user_id, values)
            if kind == b"entered":
                return others
            living = await self._living(others, deadline)
            if living or not others:
                return None
            # what stands in the way was left behind by nodes that are no more
            await self._do(RELEASES, [self._owned(RELEASE, each, deadline) for each in others], deadline)
        raise StoreUnavailable("the locations of this user change too fast")

    async def reclaim(self, locations: Sequence[Location], policy: LoginPolicy) -> Sequence[Claimed]:
        """Claim many at once, each as `claim` does.

        Raises:
            ValueError: a part of one is no name or number.
        """
        deadline = self.servers.deadline()
        jobs = [self._claim(each, policy, deadline) for each in locations]
        try:
            answers = await self._do(RECLAIMS, jobs, deadline, strict=False)
        except StoreUnavailable as error:
            return [error] * len(locations)
        outcomes: list[Claimed] = []
        for location, (kind, *values) in zip(locations, answers, strict=True):
            refused = kind in (b"error", b"away")
            outcomes.append(StoreUnavailable(_text(values)) if refused else _read(location.user_id, values))

        async def decide(place: int) -> None:
            """Whose newer entry is there may be no more."""
            try:
                outcomes[place] = await self.claim(locations[place], policy)
            except StoreUnavailable as error:
                outcomes[place] = error

        async with trio.open_nursery() as nursery:
            for place, answer in enumerate(answers):
                if answer[0] == b"newer":
                    nursery.start_soon(decide, place)
        return outcomes

    async def renew(self, locations: Sequence[Location]) -> Sequence[Location]:
        """Extend those still owned; those that are not, or that could not be renewed, are returned.

        Raises:
            ValueError: a part of one is no name or number.
            StoreUnavailable: no server could be asked.
        """
        deadline = self.servers.deadline()
        jobs = [self._owned(RENEW, each, deadline) for each in locations]
        answers = await self._do(RENEWALS, jobs, deadline, strict=False)
        return [each for each, answer in zip(locations, answers, strict=True) if answer[0] != b"renewed"]

    async def release(self, location: Location) -> bool:
        """Remove it if it is still its owner's. If Redis is away, it is done when it is back.

        Raises:
            ValueError: a part of it is no name or number.
            StoreUnavailable: it was not answered; True or False cannot be told.
        """
        deadline = self.servers.deadline()
        job = self._owned(RELEASE, location, deadline)
        try:
            answer = (await self._do(RELEASES, [job], deadline))[0]
        except StoreUnavailable:
            self._owed[location.conn_id] = location, trio.current_time() + self._lifetime_ms / 1000
            if len(self._owed) > OWED:
                del self._owed[next(iter(self._owed))]
            raise
        return bool(answer[0] == b"released")

    async def lookup(self, user_ids: Sequence[int]) -> dict[int, list[Location]]:
        """Live locations of each user on living nodes; users without one are absent.

        Raises:
            ValueError: something is no user id.
            StoreUnavailable: within a second; its `found` has those whose server could be asked.
        """
        deadline = self.servers.deadline()
        asked = list(dict.fromkeys(user_ids))
        jobs = [Job(LOOKUP, self._keys.user(each), deadline) for each in asked]
        answers = await self._do(LOOKUPS, jobs, deadline, strict=False)
        found: list[Location] = []
        for user_id, (kind, *values) in zip(asked, answers, strict=True):
            if kind == b"found":
                found += _read(user_id, values)
        users: dict[int, list[Location]] = {}
        for location in await self._living(found, deadline):
            users.setdefault(location.user_id, []).append(location)
        away = [answer for answer in answers if answer[0] == b"away"]
        if away:
            raise StoreUnavailable(_text(away[0][1:]), users)
        return users

    # -- nodes ---------------------------------------------------------------------------------------------

    async def _living(self, locations: Sequence[Location], deadline: float) -> list[Location]:
        """Those whose node is alive and has not started anew since."""
        stale = trio.current_time() - NODE_FRESH

        def alive(location: Location) -> bool:
            boot_id, at = self._seen.get(location.access_node, ("", 0.0))
            return boot_id == location.boot_id and at >= stale

        asked = sorted({each.access_node for each in locations if not alive(each)})
        untold: set[str] = set()
        if asked:
            now = trio.current_time()
            for name, boot_id in zip(asked, await self._ask_nodes(asked, deadline), strict=True):
                self._seen.pop(name, None)
                if isinstance(boot_id, StoreUnavailable):
                    untold.add(name)
                elif boot_id is not None:
                    self._seen[name] = boot_id, now
        return [each for each in locations if each.access_node in untold or alive(each)]

    async def _ask_nodes(self, names: Sequence[str], deadline: float) -> Sequence[str | StoreUnavailable | None]:
        """The boot id of each. In a cluster its master may be away while the user's is there: then a node is believed
        to be alive, since most are, and a location lasts no longer than 120 s."""
        jobs = [Job(READ, self._keys.node(each), deadline) for each in names]
        try:
            answers = await self.servers.ask(NODES, jobs, deadline)
        except StoreUnavailable as error:
            if not self.servers.several:
                raise
            return [error] * len(names)
        return [
            StoreUnavailable(_text(values)) if kind == b"away" else read_boot_id(values[0]) if values else None
            for kind, *values in answers
        ]

    # -- scripts -------------------------------------------------------------------------------------------

    def _claim(self, location: Location, policy: LoginPolicy, deadline: float) -> Job:
        arguments = (
            location.device_id,
            location.platform,
            location.conn_id,
            location.boot_id,
            entry_head(location),
            policy.value,
        )
        return Job(CLAIM, self._keys.user(location.user_id), deadline, self._lifetime_ms, arguments)

    def _owned(self, script: Script, location: Location, deadline: float) -> Job:
        arguments = (
            checked_name(location.device_id, "device id"),
            checked_number(location.conn_id, "connection id"),
            checked_name(location.boot_id, "boot id"),
        )
        return Job(script, self._keys.user(location.user_id), deadline, self._lifetime_ms, arguments)

    async def _do(self, work: Work, jobs: Sequence[Job], deadline: float, *, strict: bool = True) -> list[Answer]:
        """The answers to some jobs; with `strict`, all of them were done, else at least one was asked for."""
        answers = await self.servers.ask(work, jobs, deadline)
        failed = [answer for answer in answers if answer[0] in (b"error", b"away")]
        if failed:
            reason = _text(failed[0][1:])
            if failed[0][0] == b"error":  # who is away is told of elsewhere, once
                log.warning("redis_refused", extra={"operations": len(failed), "reason": reason})
            if strict or len(failed) == len(answers):
                raise StoreUnavailable(f"Redis did not do it: {reason}")
        return answers

    # -- after an outage -----------------------------------------------------------------------------------

    def _recovered(self) -> None:
        self._seen.clear()
        self._settling.set()

    async def _settle(self) -> None:
        """Release what could not be released, when Redis is back and every now and then."""
        while True:
            with trio.move_on_after(SETTLE):
                await self._settling.wait()
            self._settling = trio.Event()
            if not self._owed:
                continue
            now = trio.current_time()
            self._owed = {conn_id: each for conn_id, each in self._owed.items() if each[1] > now}
            owed = [location for location, _ in self._owed.values()]
            for start in range(0, len(owed), BATCH):
                await self._pay(owed[start : start + BATCH])

    async def _pay(self, owed: Sequence[Location]) -> None:
        deadline = self.servers.deadline()
        jobs = [self._owned(RELEASE, each, deadline) for each in owed]
        try:
            answers = await self.servers.ask(RELEASES, jobs, deadline)
        except StoreUnavailable:
            return  # they stay owed
        for location, answer in zip(owed, answers, strict=True):
            if answer[0] not in (b"error", b"away"):
                self._owed.pop(location.conn_id, None)


def _read(user_id: int, values: Sequence[bytes]) -> list[Location]:
    """What of ours stands in a user's entries."""
    return [each for each in map(partial(read_location, user_id), values) if each is not None]


def _text(values: Sequence[bytes]) -> str:
    return values[-1].decode(errors="replace") if values else ""
