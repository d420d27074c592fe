"""Everything towards one server, alone or a master of a cluster: lanes for each kind of work, its clock, its pulse.

Which keys are whose is decided in redis_servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_crossing import Crossing, ServerClock
from gateway.backends.redis_funnel import Funnel
from gateway.backends.redis_link import Refusal, ScriptCall
from gateway.backends.redis_pulse import Pulse
from gateway.backends.redis_scripts import Script
from gateway.backends.redis_slots import Server, slot
from gateway.backends.redis_values import Keys
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import NodeRecord, StoreUnavailable

Answer = list[Any]
"""Of one key: a word in bytes, and what belongs to it. `error` and a text when it was not done."""

WAITING: Final = 20_000
"""Keys of one kind of work that may wait."""


class Work(msgspec.Struct, frozen=True):
    """A kind of work that waits for no other kind."""

    name: str
    lanes: int
    """Batches under way at once, each on a connection of its own."""
    batch: int
    """Keys of one batch: about as many as cost less than one command each, and hold up others for milliseconds only."""
    writing: bool = False
    """Whether there is no use in it while the server takes no writes."""


CLAIMS: Final = Work("claims", 2, 100, writing=True)
RECLAIMS: Final = Work("reclaims", 2, 500, writing=True)
"""Claims of what is seated already: logins do not wait behind them."""
RENEWALS: Final = Work("renewals", 2, 500)
RELEASES: Final = Work("releases", 2, 500)
LOOKUPS: Final = Work("lookups", 2, 500)
NODES: Final = Work("nodes", 1, 500)
SESSIONS: Final = Work("sessions", 1, 500)
MESSAGES: Final = Work("messages", 1, 500, writing=True)
EVERY: Final = (CLAIMS, RECLAIMS, RENEWALS, RELEASES, LOOKUPS, NODES, SESSIONS, MESSAGES)


class Job(msgspec.Struct, frozen=True, gc=False):
    """One script on one key, and until when, on Trio's clock, it may be done."""

    script: Script
    key: bytes
    until: float
    lifetime_ms: int = 0
    """For how long what it writes lasts."""
    arguments: tuple[bytes | str | int, ...] = ()


class Shard:
    """One server. `run` it first."""

    def __init__(
        self,
        thread: AsyncioThread,
        settings: RedisSettings,
        keys: Keys,
        home: Server | None = None,
        mine: Callable[[bytes], bool] = lambda key: True,
        doubt: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            thread: where the connections are.
            settings: whom to connect to.
            keys: names them.
            home: the master of a cluster; without it, the one server of the settings.
            mine: whether a key belongs here at the moment.
            doubt: called whenever it cannot be asked.
        """
        self._timeout = settings.timeout
        self._clustered = home is not None
        self._crossings: list[Crossing] = []

        def crossing(lanes: int) -> Crossing:
            made = Crossing(thread, settings, lanes, home)
            self._crossings.append(made)
            return made

        self._funnels: dict[str, Funnel[Job, Answer]] = {
            work.name: Funnel(
                partial(self._work, crossing(work.lanes)), lanes=work.lanes, batch=work.batch, waiting=WAITING
            )
            for work in EVERY
        }
        self._clock = ServerClock()
        server = f"{home[0]}:{home[1]}" if home is not None else ""
        self.pulse = Pulse(crossing(1), keys, self._clock, mine=mine, doubt=doubt, server=server)

    async def run(
        self,
        record: Callable[[], NodeRecord] | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled. `started` when it has been asked for the first time, whether or not it answered."""
        try:
            async with trio.open_nursery() as services:
                for each in self._funnels.values():
                    await services.start(each.run)
                await services.start(self.pulse.run, record)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._timeout):
                for crossing in self._crossings:
                    await crossing.close()

    def refusal(self, work: Work) -> str:
        """Why there is no use in asking now; empty when there is."""
        return self.pulse.away or (self.pulse.refused if work.writing else "")

    async def ask(self, work: Work, jobs: Sequence[Job], deadline: float) -> list[Answer]:
        """One answer for each of up to a batch of jobs.

        Raises:
            StoreUnavailable: none was answered by `deadline`.
        """
        reason = self.refusal(work)
        if reason:
            raise StoreUnavailable(reason)
        funnel = self._funnels[work.name]
        try:
            answers = list(await funnel.ask(jobs, deadline))
            late = [i for i, answer in enumerate(answers) if answer[0] == b"late"]
            if late:  # nothing was done: the server's clock has jumped, and its answer told how far
                for i, answer in zip(late, await funnel.ask([jobs[i] for i in late], deadline), strict=True):
                    answers[i] = [b"error", b"it came too late"] if answer[0] == b"late" else answer
        except StoreUnavailable:
            self.pulse.poke()
            raise
        if any(answer[0] == b"error" for answer in answers):
            self.pulse.poke()
        return answers

    @property
    def waiting(self) -> int:
        """Keys that no lane has taken up."""
        return sum(each.waiting for each in self._funnels.values())

    @property
    def moved(self) -> int:
        """How often a key was not here that should be: a change tells that the map is old."""
        return sum(each.moved for each in self._crossings)

    async def _work(self, crossing: Crossing, lane: int, jobs: Sequence[Job]) -> Sequence[Answer]:
        """One batch: a call for each script, in a cluster for each script and slot, all sent together."""
        groups: dict[tuple[str, int, int], list[int]] = {}
        for i, job in enumerate(jobs):
            place = slot(job.key) if self._clustered else 0
            groups.setdefault((job.script.digest, job.lifetime_ms, place), []).append(i)
        calls = [self._call([jobs[i] for i in group]) for group in groups.values()]
        asked = self._clock.now()
        told = await crossing.ask(lane, calls)
        answered = self._clock.now()
        answers: list[Answer] = [[]] * len(jobs)
        read_only = False
        for group, answer in zip(groups.values(), told, strict=True):
            if isinstance(answer, Refusal):
                answer = [0, *[[b"error", answer.text.encode()] for _ in group]]  # noqa: PLW2901
            if answer[0]:
                self._clock.learn(answer[0], asked, answered)
            for i, each in zip(group, answer[1:], strict=True):
                answers[i] = each
                read_only = read_only or (each[0] == b"error" and each[1].startswith(b"READONLY"))
        if read_only:
            await crossing.drop(lane)
        return answers

    def _call(self, jobs: Sequence[Job]) -> ScriptCall:
        script = jobs[0].script
        arguments: list[bytes | str | int] = [jobs[0].lifetime_ms]
        for job in jobs:
            if script.width:
                arguments.append(self._clock.deadline(job.until))
            arguments += job.arguments
        return ScriptCall(script, [job.key for job in jobs], arguments)
