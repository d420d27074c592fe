"""Where users are, in Redis (protocol section 6), for all nodes together.

The commands are in redis_scripts, keys and values in redis_values, connections in redis_link and redis_crossing,
batching in redis_funnel, liveness in redis_pulse. Here is what each operation of the port means in terms of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_crossing import Crossing, ServerClock
from gateway.backends.redis_funnel import Funnel
from gateway.backends.redis_link import Refusal, ScriptCall
from gateway.backends.redis_pulse import Pulse
from gateway.backends.redis_scripts import CLAIM, LOOKUP, RELEASE, RENEW, Script
from gateway.backends.redis_values import Keys, checked_number, entry_head, read_boot_id, read_location
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import Claimed, Location, LoginPolicy, NodeRecord, StoreUnavailable
from gateway.protocol.ids import checked_name

log = logging.getLogger("gateway.redis")

LIFETIME: Final = 120.0
"""Seconds that a claim or a renewal lasts (protocol section 6)."""
BATCH: Final = 500
"""Keys of one script: about as many as cost less than one command each, and hold up others for milliseconds only."""
CLAIMS: Final = 100
"""Claims of one script, which cost more."""
LANES: Final = 2
"""Batches of one kind under way at once."""
WAITING: Final = 20_000
"""Operations of one kind that may wait."""
OWED: Final = 50_000
"""Releases remembered that could not be done; past it the oldest are left to run out."""
NODE_FRESH: Final = 1.0
"""Seconds for which a node that was seen alive is not asked for again."""
SETTLE: Final = 1.0
"""Seconds between two looks at releases that failed for another reason than an outage."""
ATTEMPTS: Final = 3

Answer = list[Any]


class _Job(msgspec.Struct, frozen=True, gc=False):
    """One key of a script, and until when, on Trio's clock, it may be done."""

    key: bytes
    deadline: float
    arguments: tuple[bytes | str | int, ...] = ()


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
            ValueError: the prefix is no name, or the URL none of Redis.
        """
        self._keys = Keys(settings.prefix)
        self._timeout = settings.timeout
        self._lifetime_ms = int(lifetime * 1000)
        self._clock = ServerClock()
        self._crossings: list[Crossing] = []

        def crossing(lanes: int) -> Crossing:
            made = Crossing(thread, settings, lanes)
            self._crossings.append(made)
            return made

        def funnel(script: Script, batch: int) -> Funnel[_Job, Answer]:
            ask = partial(self._run_script, script, crossing(LANES))
            return Funnel(ask, lanes=LANES, batch=batch, waiting=WAITING)

        self._claims = funnel(CLAIM, CLAIMS)
        self._renewals = funnel(RENEW, BATCH)
        self._releases = funnel(RELEASE, BATCH)
        self._lookups = funnel(LOOKUP, BATCH)
        self._nodes: Funnel[str, str | None] = Funnel(
            partial(self._ask_nodes, crossing(1)), lanes=1, batch=BATCH, waiting=WAITING
        )
        self._pulse = Pulse(crossing(1), self._keys, self._clock)
        self._pulse.watch(self._recovered)
        self._seen: dict[str, tuple[str, float]] = {}
        self._owed: dict[int, tuple[Location, float]] = {}
        self._settling = trio.Event()

    # -- life ----------------------------------------------------------------------------------------------

    async def run(
        self,
        record: Callable[[], NodeRecord] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; announce the node that `record` describes, and withdraw it at the end."""
        try:
            async with trio.open_nursery() as services:
                for each in (self._claims, self._renewals, self._releases, self._lookups):
                    await services.start(each.run)
                await services.start(self._nodes.run)
                services.start_soon(self._settle)
                await services.start(self._pulse.run, record)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._timeout):
                for crossing in self._crossings:
                    await crossing.close()

    @property
    def healthy(self) -> bool:
        """Whether Redis answers and takes writes, as of the last second."""
        return self._pulse.healthy

    async def wait_recovered(self) -> None:
        """Return when Redis is back, was restarted, or has forgotten this node."""
        await self._pulse.wait_recovered()

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept; all of them return to zero, but for the known nodes."""
        return {
            "waiting": self._claims.waiting + self._renewals.waiting + self._releases.waiting + self._lookups.waiting,
            "owed": len(self._owed),
            "nodes": len(self._seen),
        }

    # -- operations ----------------------------------------------------------------------------------------

    async def claim(self, location: Location, policy: LoginPolicy) -> Sequence[Location] | None:
        """Enter `location`; the entries it displaced, or None when a newer one of a living node would have to go.

        Raises:
            ValueError: a part of it is no name or number.
            StoreUnavailable: within a second.
        """
        arguments = (
            location.device_id,
            location.platform,
            location.conn_id,
            location.boot_id,
            entry_head(location),
            policy.value,
        )
        deadline = self._deadline(writing=True)
        job = _Job(self._keys.user(location.user_id), deadline, arguments)
        for _ in range(ATTEMPTS):
            kind, *values = (await self._do(self._claims, [job], deadline))[0]
            others = [each for each in map(partial(read_location, location.user_id), values) if each is not None]
            if kind == b"entered":
                return others
            living = await self._living(others, deadline)
            if living or not others:
                return None
            # what stands in the way was left behind by nodes that are no more
            await self._do(self._releases, [self._owned(each, deadline) for each in others], deadline)
        raise StoreUnavailable("the locations of this user change too fast")

    async def reclaim(self, locations: Sequence[Location], policy: LoginPolicy) -> Sequence[Claimed]:
        """Claim many at once."""
        outcomes: list[Claimed] = []
        for each in locations:
            try:
                outcomes.append(await self.claim(each, policy))
            except StoreUnavailable as error:
                outcomes.append(error)
        return outcomes

    async def renew(self, locations: Sequence[Location]) -> Sequence[Location]:
        """Extend those still owned; those that are not, or that could not be renewed, are returned."""
        lost: list[Location] = []
        for batch in _batches(locations):
            deadline = self._deadline()
            answers = await self._do(
                self._renewals, [self._owned(each, deadline) for each in batch], deadline, strict=False
            )
            lost += [each for each, answer in zip(batch, answers, strict=True) if answer[0] != b"renewed"]
        return lost

    async def release(self, location: Location) -> bool:
        """Remove it if it is still its owner's. If Redis is away, it is done when it is back.

        Raises:
            ValueError: a part of it is no name or number.
            StoreUnavailable: it was not answered; True or False cannot be told.
        """
        now = trio.current_time()
        job = self._owned(location, now + self._timeout)
        try:
            self._deadline()
            answer = (await self._do(self._releases, [job], job.deadline))[0]
        except StoreUnavailable:
            self._owed[location.conn_id] = location, now + self._lifetime_ms / 1000
            if len(self._owed) > OWED:
                del self._owed[next(iter(self._owed))]
            raise
        return bool(answer[0] == b"released")

    async def lookup(self, user_ids: Sequence[int]) -> dict[int, list[Location]]:
        """Live locations of each user on living nodes; users without one are absent.

        Raises:
            ValueError: something is no user id.
            StoreUnavailable: within a second.
        """
        found: list[Location] = []
        deadline = self._deadline()
        for batch in _batches(list(dict.fromkeys(user_ids))):
            jobs = [_Job(self._keys.user(each), deadline) for each in batch]
            answers = await self._do(self._lookups, jobs, deadline, strict=False)
            for user_id, answer in zip(batch, answers, strict=True):
                if answer[0] == b"found":
                    found += filter(None, map(partial(read_location, user_id), answer[1:]))
        users: dict[int, list[Location]] = {}
        for location in await self._living(found, deadline):
            users.setdefault(location.user_id, []).append(location)
        return users

    # -- nodes ---------------------------------------------------------------------------------------------

    async def _living(self, locations: Sequence[Location], deadline: float) -> list[Location]:
        """Those whose node is alive and has not started anew since."""
        stale = trio.current_time() - NODE_FRESH

        def alive(location: Location) -> bool:
            boot_id, at = self._seen.get(location.access_node, ("", 0.0))
            return boot_id == location.boot_id and at >= stale

        asked = sorted({each.access_node for each in locations if not alive(each)})
        if asked:
            now = trio.current_time()
            for name, boot_id in zip(asked, await self._nodes.ask(asked, deadline), strict=True):
                self._seen.pop(name, None)
                if boot_id is not None:
                    self._seen[name] = boot_id, now
        return [each for each in locations if alive(each)]

    async def _ask_nodes(self, crossing: Crossing, lane: int, names: Sequence[str]) -> Sequence[str | None]:
        answers = await crossing.ask(lane, [("GET", self._keys.node(name)) for name in names])
        return [read_boot_id(answer) for answer in answers]

    # -- scripts -------------------------------------------------------------------------------------------

    def _deadline(self, *, writing: bool = False) -> float:
        """When an operation that begins now is given up; StoreUnavailable at once while Redis is known to be away."""
        reason = self._pulse.away or (self._pulse.refused if writing else "")
        if reason:
            raise StoreUnavailable(reason)
        return trio.current_time() + self._timeout

    def _owned(self, location: Location, deadline: float) -> _Job:
        arguments = (
            checked_name(location.device_id, "device id"),
            checked_number(location.conn_id, "connection id"),
            checked_name(location.boot_id, "boot id"),
        )
        return _Job(self._keys.user(location.user_id), deadline, arguments)

    async def _do(
        self, funnel: Funnel[_Job, Answer], jobs: Sequence[_Job], deadline: float, *, strict: bool = True
    ) -> list[Answer]:
        """The answers to some jobs; with `strict`, none of them an error."""
        try:
            answers = list(await funnel.ask(jobs, deadline))
            late = [i for i, answer in enumerate(answers) if answer[0] == b"late"]
            if late:  # nothing was done: the server's clock has jumped, and its answer told how far
                for i, answer in zip(late, await funnel.ask([jobs[i] for i in late], deadline), strict=True):
                    answers[i] = answer
            failed = [answer for answer in answers if answer[0] in (b"late", b"error")]
            if failed:
                reason = failed[0][-1].decode(errors="replace")
                log.warning("redis_refused", extra={"operations": len(failed), "reason": reason})
                self._pulse.poke()
                if strict or len(failed) == len(answers):
                    raise StoreUnavailable(f"Redis did not do it: {reason}")
        except StoreUnavailable:
            self._pulse.poke()
            raise
        return answers

    async def _run_script(
        self, script: Script, crossing: Crossing, lane: int, jobs: Sequence[_Job]
    ) -> Sequence[Answer]:
        arguments: list[bytes | str | int] = [self._lifetime_ms]
        for job in jobs:
            if script.width:
                arguments.append(self._clock.deadline(job.deadline))
            arguments += job.arguments
        asked = self._clock.now()
        (answer,) = await crossing.ask(lane, [ScriptCall(script, [job.key for job in jobs], arguments)])
        if isinstance(answer, Refusal):
            raise StoreUnavailable(f"Redis refuses: {answer.text}")
        self._clock.learn(answer[0], asked, self._clock.now())
        answers: list[Answer] = answer[1:]
        if any(each[0] == b"error" and each[1].startswith(b"READONLY") for each in answers):
            await crossing.drop(lane)
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
            for batch in _batches(location for location, _ in self._owed.values()):
                deadline = trio.current_time() + self._timeout
                try:
                    self._deadline(writing=True)
                    await self._do(self._releases, [self._owned(each, deadline) for each in batch], deadline)
                except StoreUnavailable:
                    break  # they stay owed
                for each in batch:
                    self._owed.pop(each.conn_id, None)


def _batches(items: Iterable[Any]) -> Iterable[Sequence[Any]]:
    listed = list(items)
    return (listed[start : start + BATCH] for start in range(0, len(listed), BATCH))
