"""How Logic asks Redis: a script at a time on each connection, within a deadline, or StoreFailed.

No message and no key's layout lives here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_crossing import Crossing, ServerClock
from gateway.backends.redis_link import Command, Refusal, ScriptCall
from gateway.backends.redis_scripts import Script
from gateway.backends.redis_values import Keys
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import StoreUnavailable
from gateway.logic.store import StoreFailed

log = logging.getLogger("gateway.logic")

VERSION: Final = 2
"""Of the layout under our keys."""
PATIENCE: Final = 3.0
"""Seconds that one operation may take in all: a disk that others keep busy needs more than a lookup does."""

_EXPECTED: Final = {"appendonly": b"yes", "appendfsync": b"always", "maxmemory-policy": b"noeviction"}
"""What the server must be told so that what it has confirmed is durable."""


class RedisLanes:
    """A fixed number of connections, numbered from 0, each with a queue of its own."""

    def __init__(self, settings: RedisSettings, thread: AsyncioThread, *, lanes: int, patience: float) -> None:
        """
        Raises:
            ValueError: the prefix is no name, or the URL none of Redis.
        """
        Keys(settings.prefix)  # checks it
        self.prefix = f"{settings.prefix}:logic:"
        """What every key begins with."""
        self._crossing = Crossing(thread, msgspec.structs.replace(settings, timeout=patience), lanes)
        self._turns = [trio.Lock() for _ in range(lanes)]
        self._patience = patience
        self._clock = ServerClock()
        self._met = False
        self._warned: set[str] = set()

    async def ask(self, lane: int, script: Script, *arguments: bytes | str | int) -> Any:
        """What a script answers. Once it has been sent, its end is waited for, also when cancelled.

        Raises:
            StoreFailed: it was refused, and nothing was done; or it was not answered in time: then it was done before
                its sender gave it up, or never will be.
        """
        deadline = trio.current_time() + self._patience
        with trio.move_on_at(deadline):
            async with self._turns[lane]:
                with trio.CancelScope(shield=True, deadline=deadline):
                    return await self._ask(lane, script, arguments, deadline)
        raise StoreFailed(f"no answer from Redis within {self._patience:g} s")

    async def scan(self, lane: int, cursor: str, pattern: str, count: int) -> tuple[str, list[str]]:
        """Some of the lists whose keys look so, out of about `count` keys, and the cursor that leads to more.

        Raises:
            StoreFailed: it was refused, or not answered in time.
        """
        deadline = trio.current_time() + self._patience
        with trio.move_on_at(deadline):
            async with self._turns[lane]:
                [answer] = await self._send(lane, [("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "list")])
                if isinstance(answer, Refusal):
                    raise StoreFailed(f"Redis refuses: {answer.text}")
                return answer[0].decode(), [each.decode() for each in answer[1]]
        raise StoreFailed(f"no answer from Redis within {self._patience:g} s")

    async def close(self) -> None:
        """Drop the connections."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._patience):
            await self._crossing.close()

    async def _ask(self, lane: int, script: Script, arguments: Sequence[bytes | str | int], deadline: float) -> Any:
        answered = False
        try:
            if not self._met:
                await self._meet(lane)
            answer = await self._run(lane, script, arguments, deadline)
            answered = self._met = True
        finally:
            self._met = self._met and answered  # after a failure it may be another server, or another clock
        return answer

    async def _run(self, lane: int, script: Script, arguments: Sequence[bytes | str | int], deadline: float) -> Any:
        for _ in range(2):
            asked = self._clock.now()
            call = ScriptCall(script, (), [self._clock.deadline(deadline), self.prefix, *arguments])
            [answer] = await self._send(lane, [call])
            if isinstance(answer, Refusal):
                if "READONLY" in answer.text:
                    await self._crossing.drop(lane)
                raise StoreFailed(f"Redis refuses: {answer.text}")
            told = msgspec.msgpack.decode(answer)
            self._clock.learn(told[0], asked, self._clock.now())
            if len(told) > 1:
                return told[1]
        raise StoreFailed("Redis came to it too late")  # its clock has jumped, twice

    async def _meet(self, lane: int) -> None:
        """What must be known of a server that has not been asked yet, or may have been replaced meanwhile."""
        version = f"{self.prefix}version"
        asked = self._clock.now()
        clock, _, found, *told = await self._send(
            lane,
            [
                ("TIME",),
                ("SET", version, VERSION, "NX"),
                ("GET", version),
                *(("CONFIG", "GET", name) for name in _EXPECTED),
            ],
        )
        if isinstance(clock, Refusal) or isinstance(found, Refusal):
            raise StoreFailed(f"Redis refuses: {(clock if isinstance(clock, Refusal) else found).text}")
        self._clock.learn(int(clock[0]) * 1000 + int(clock[1]) // 1000, asked, self._clock.now())
        if found is not None and (not found.isdigit() or int(found) > VERSION):
            raise StoreFailed("what is in Redis was made by a newer version of this program")
        for (name, wanted), answer in zip(_EXPECTED.items(), told, strict=True):
            # whoever may not ask is not told: hosted servers refuse it
            if (
                not isinstance(answer, Refusal)
                and len(answer) == 2
                and answer[1] != wanted
                and name not in self._warned
            ):
                self._warned.add(name)
                log.warning(
                    "store_not_durable",
                    extra={"setting": name, "found": answer[1].decode(errors="replace"), "wanted": wanted.decode()},
                )

    async def _send(self, lane: int, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        try:
            return await self._crossing.ask(lane, commands)
        except StoreUnavailable as error:
            raise StoreFailed(str(error)) from error
