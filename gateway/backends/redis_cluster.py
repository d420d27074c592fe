"""Towards a Redis Cluster, on the asyncio thread: a link that follows keys which have moved, and the map of all slots.

redis-py's own cluster client is not used; docs/cluster.md has the reasons and the measurements.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.backends.redis_link import Command, RedisLink, Refusal, ScriptCall
from gateway.backends.redis_slots import Server, Topology, read_info, read_topology
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import StoreUnavailable

REDIRECTS: Final = 4
"""How often a key is looked for elsewhere: twice is usual when its slot is on the way."""
FOREIGN: Final = 0
"""Stands in a script's answer for the time of another server than the link's own."""


class ClusterLink:
    """Like a RedisLink to one master of a cluster; what the master has no more is done where it is now.

    A script's keys must be of one slot. Where they are split between two servers, each is done by itself.
    """

    def __init__(self, settings: RedisSettings, home: Server) -> None:
        self._settings = settings
        self._home = RedisLink(settings, home)
        self._address = home
        self._others: dict[Server, RedisLink] = {}
        self._turns: defaultdict[Server, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.moved = 0
        """How often a key was not where it should be for good: a change tells that the map is old."""

    @property
    def connects(self) -> int:
        """How often the connection to the master came up."""
        return self._home.connects

    async def ask(self, commands: Sequence[Command | ScriptCall], within: float | None = None) -> list[Any]:
        """The answers, a Refusal where a server refused or could not be asked.

        Raises:
            StoreUnavailable: the master did not answer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (self._settings.timeout if within is None else within)
        answers = await self._home.ask(commands, until - loop.time())
        if any(isinstance(each, Refusal) for each in answers):
            answers = await self._follow(self._address, commands, answers, until, REDIRECTS, asking=False)
        return answers

    async def close(self) -> None:
        """Drop all connections."""
        others, self._others = self._others, {}
        for link in (self._home, *others.values()):
            await link.close()

    async def _follow(
        self,
        server: Server,
        commands: Sequence[Command | ScriptCall],
        answers: Sequence[Any],
        until: float,
        left: int,
        *,
        asking: bool,
    ) -> list[Any]:
        """The answers with those replaced that only said to ask in another way."""
        settled = list(answers)
        elsewhere: dict[tuple[Server, bool], list[int]] = {}
        async with asyncio.TaskGroup() as tasks:
            for i, answer in enumerate(answers):
                if not isinstance(answer, Refusal) or not left:
                    continue
                command = commands[i]
                if answer.target is not None:
                    self.moved += answer.why == "moved"
                    target = answer.target[0] or server[0], answer.target[1]
                    elsewhere.setdefault((target, answer.why == "ask"), []).append(i)
                elif answer.why == "try again" and isinstance(command, ScriptCall) and len(command.keys) > 1:
                    tasks.create_task(self._piecemeal(server, command, settled, i, until, left - 1, asking=asking))
                elif answer.why == "cluster down":
                    self.moved += 1
            for (target, ask), places in elsewhere.items():
                tasks.create_task(self._redirect(target, commands, settled, places, until, left - 1, asking=ask))
        return settled

    async def _redirect(
        self,
        server: Server,
        commands: Sequence[Command | ScriptCall],
        settled: list[Any],
        places: Sequence[int],
        until: float,
        left: int,
        *,
        asking: bool,
    ) -> None:
        """Do some of the commands at another server."""
        again = [commands[i] for i in places]
        for i, answer in zip(places, await self._at(server, again, until, left, asking=asking), strict=True):
            if isinstance(answer, list) and isinstance(commands[i], ScriptCall) and server != self._address:
                answer = [FOREIGN, *answer[1:]]  # noqa: PLW2901
            settled[i] = answer

    async def _piecemeal(
        self, server: Server, call: ScriptCall, settled: list[Any], place: int, until: float, left: int, *, asking: bool
    ) -> None:
        """Do a script for each of its keys by itself."""
        joined: list[Any] = [FOREIGN]
        for answer in await self._at(server, call.pieces(), until, left, asking=asking):
            joined += [[b"error", answer.text.encode()]] if isinstance(answer, Refusal) else answer[1:]
        settled[place] = joined

    async def _at(
        self, server: Server, commands: Sequence[Command | ScriptCall], until: float, left: int, *, asking: bool
    ) -> list[Any]:
        """The answers of another server; with `asking`, also of a slot that is not its own yet."""
        within = until - asyncio.get_running_loop().time()
        link = self._home if server == self._address else self._others.get(server)
        if link is None:
            link = self._others[server] = RedisLink(self._settings, server)
        sent: Sequence[Command | ScriptCall] = commands
        if asking:  # counts for the one command after it, so a script must not have to be sent again
            whole = [each.command(whole=True) if isinstance(each, ScriptCall) else each for each in commands]
            sent = [part for each in whole for part in (("ASKING",), each)]
        try:
            async with self._turns[server]:  # parts of one batch may be sent to one place
                answers = await link.ask(sent, within)
        except StoreUnavailable as error:
            return [Refusal(str(error))] * len(commands)
        if asking:
            answers = answers[1::2]
        return await self._follow(server, commands, answers, until, left, asking=asking)


async def discover(settings: RedisSettings, servers: Iterable[Server]) -> tuple[Server, Topology, bool]:
    """The map of slots as the first server tells it that can be asked and sees a working cluster; else any.

    Returns:
        Who told it, the map, and whether the loss of one master leaves the slots of the others usable.

    Raises:
        StoreUnavailable: why nobody told it, in their words.
    """
    asked = list(dict.fromkeys(servers))
    second: tuple[Server, Topology, bool] | None = None
    reason = "no server is named"
    for server in asked:
        link = RedisLink(settings, server)
        try:
            told = await link.ask(
                [("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"), ("CONFIG", "GET", "cluster-require-full-coverage")],
                settings.timeout / len(asked),
            )
            if isinstance(told[0], Refusal):
                raise StoreUnavailable(told[0].text)
            coverage = not isinstance(told[2], Refusal) and b"yes" in told[2]
            found = server, read_topology(told[0], server), not coverage
        except (StoreUnavailable, ValueError) as error:
            reason = f"{server[0]}:{server[1]}: {error}"
            continue
        finally:
            await link.close()
        if read_info(told[1]).get("cluster_state") == "ok":
            return found
        second = second or found
    if second is None:
        raise StoreUnavailable(f"no server of the cluster can be asked; {reason}")
    return second


class Map:
    """The map of slots, learnt anew now and then; kept on the asyncio thread, whose answers cross as a whole."""

    def __init__(self, settings: RedisSettings, seeds: Sequence[Server]) -> None:
        self._settings = settings
        self._seeds = seeds
        self._told: Server | None = None
        self._topology = Topology()

    async def learn(self) -> tuple[Topology, bool]:
        """As `discover`: first from whoever told it last, then from the other masters and those in the settings.

        Raises:
            StoreUnavailable: nobody told it.
        """
        known = [] if self._told is None else [self._told]
        known += sorted(self._topology.masters())
        self._told, self._topology, partial = await discover(self._settings, [*known, *self._seeds])
        return self._topology, partial
