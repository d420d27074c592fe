"""Whether a server is there, and that this node is alive: one task, one connection, one question a second.

No location lives here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from gateway.backends.redis_crossing import Crossing, ServerClock
from gateway.backends.redis_link import Command, Refusal, ScriptCall
from gateway.backends.redis_scripts import WITHDRAW
from gateway.backends.redis_slots import read_info
from gateway.backends.redis_values import Keys, node_value, read_boot_id
from gateway.core.ports import NodeRecord, StoreUnavailable

log = logging.getLogger("gateway.redis")

NODE_LIFETIME: Final = 15.0
"""Seconds until a node that has not announced itself counts for nothing (protocol section 6)."""
ANNOUNCE: Final = 5.0
PROBE: Final = 1.0
"""Seconds between two questions: how long a restart may go unnoticed."""
RETRY: Final = 0.2
"""Seconds between two questions while it is away: how long a return may go unnoticed."""


class Pulse:
    """Announces the node, and tells when everything has to be written again."""

    def __init__(
        self,
        crossing: Crossing,
        keys: Keys,
        clock: ServerClock,
        *,
        mine: Callable[[bytes], bool] = lambda key: True,
        doubt: Callable[[], None] = lambda: None,
        server: str = "",
    ) -> None:
        """
        Args:
            crossing: its one lane is ours.
            keys: names the node's entry.
            clock: learns what the answers tell.
            mine: whether a key belongs to this server: the node's entry stands on one of a cluster.
            doubt: called whenever it cannot be asked: another server may have its place.
            server: its name, if it is one of a cluster: then its view of that counts, too.
        """
        self._crossing = crossing
        self._keys = keys
        self._clock = clock
        self._mine = mine
        self._doubt = doubt
        self._clustered = bool(server)
        self._told = {"server": server} if server else {}
        self.away: str = "Redis has not been asked yet"
        """Why the server cannot be asked; empty when it can."""
        self.refused = ""
        """Why it takes no writes (READONLY, OOM, no permission); empty when it does."""
        self._watchers: list[Callable[[], None]] = []
        self._poked = trio.Event()
        self._announced: NodeRecord | None = None
        self._announced_at = self._beaten_at = float("-inf")
        self._failed = self._vanished = False
        self._connects = 0

    @property
    def healthy(self) -> bool:
        """Whether it answers and takes writes."""
        return not self.away and not self.refused

    def poke(self) -> None:
        """Ask now: an operation has failed."""
        self._poked.set()

    def watch(self, recovered: Callable[[], None]) -> None:
        """Have `recovered` called when the server is back after it was away, or may have forgotten."""
        self._watchers.append(recovered)

    async def run(
        self,
        record: Callable[[], NodeRecord] | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Ask until cancelled, then take the node's entry back."""
        try:
            await self._beat(record() if record else None)
            task_status.started()
            while True:
                with trio.move_on_after(PROBE if self.healthy else RETRY):
                    await self._poked.wait()
                doubted = self._poked.is_set()
                if doubted:  # many operations fail at once, which must not make it ask all the time
                    self._poked = trio.Event()
                    await trio.sleep_until(self._beaten_at + RETRY)
                await self._beat(record() if record else None, doubted)
        finally:
            await self._withdraw()

    # -- one question --------------------------------------------------------------------------------------

    async def _beat(self, record: NodeRecord | None, doubted: bool = False) -> None:
        """`doubted`: whether it takes writes is to be found out, too."""
        self._beaten_at = self._clock.now()
        if record is not None and not self._mine(self._keys.node(record.node_id)):
            record, self._announced, self._announced_at = None, None, float("-inf")
        announcing = record is not None and (doubted or self._due(record))
        commands: list[Command | ScriptCall] = [("TIME",)]
        if self._clustered:
            commands.append(("CLUSTER", "INFO"))
        if record is not None:
            key = self._keys.node(record.node_id)
            lifetime = int(NODE_LIFETIME * 1000)
            commands.append(("SET", key, node_value(record), "PX", lifetime, "GET") if announcing else ("EXISTS", key))
        asked = self._clock.now()
        try:
            answers = await self._crossing.ask(0, commands)
        except StoreUnavailable as error:
            self._fail(away=str(error))
            return
        refusal = next((each.text for each in answers if isinstance(each, Refusal)), "")
        if refusal:
            self._fail(refused=refusal)
            return
        if self._clustered and read_info(answers[1]).get("cluster_state") != "ok":
            self._fail(away="the cluster does not serve all slots, or most of its masters are away")
            return
        seconds, micros = answers[0]
        self._clock.learn(int(seconds) * 1000 + int(micros) // 1000, asked, self._clock.now())
        vanished = False
        if record is not None:
            vanished = not answers[-1] and asked - self._announced_at < NODE_LIFETIME
            if announcing:
                self._check_rival(record, answers[-1])
                self._announced, self._announced_at = record, asked
            elif vanished:  # without it our locations count for nothing: at once
                self._announced_at = float("-inf")
                self._vanished = True
                await self._beat(record)
                return
        self._succeed(vanished)

    def _due(self, record: NodeRecord) -> bool:
        return (
            not self.healthy
            or self._announced is None
            or msgspec.structs.replace(record, connections=self._announced.connections) != self._announced
            or self._clock.now() - self._announced_at >= ANNOUNCE - PROBE / 2
        )

    def _check_rival(self, record: NodeRecord, before: Any) -> None:
        other = read_boot_id(before)
        if self._announced is not None and other is not None and other != record.boot_id:
            log.error("node_id_taken", extra={"node": record.node_id, "reason": "another process announces this id"})

    def _fail(self, *, away: str = "", refused: str = "") -> None:
        if self.healthy or not self._failed:
            log.warning("redis_away", extra={"reason": away or refused, **self._told})
        self.away, self.refused = away, refused
        self._failed = True
        self._doubt()

    def _succeed(self, vanished: bool) -> None:
        reconnected = self._crossing.connects != self._connects and self._connects > 0
        self._connects = self._crossing.connects
        if self._failed:
            log.warning("redis_back", extra=self._told)
        if self._failed or self._vanished or vanished or reconnected:
            for watcher in self._watchers:
                watcher()
        self.away = self.refused = ""
        self._failed = self._vanished = False

    async def _withdraw(self) -> None:
        announced = self._announced
        if announced is None or self.away or not self._mine(self._keys.node(announced.node_id)):
            return  # it runs out by itself, or another server has it now
        with trio.CancelScope(shield=True, deadline=trio.current_time() + PROBE):
            try:
                arguments = (0, announced.boot_id)
                await self._crossing.ask(0, [ScriptCall(WITHDRAW, [self._keys.node(announced.node_id)], arguments)])
            except StoreUnavailable as error:
                log.warning("node_not_withdrawn", extra={"reason": str(error)})
