"""Groups in Redis (`gateway.logic.groups` has them in the file): each change is one script, and counts from the next
message on, for every Logic."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.settings_redis import RedisSettings
from gateway.logic.groups import MAX_MEMBERS, Group, GroupError, checked_id, checked_title
from gateway.logic.redis_lanes import PATIENCE, RedisLanes
from gateway.logic.store_redis_scripts import GROUP, LIST


class RedisGroups:
    """The groups of a `RedisStore`. Every method raises GroupError, and StoreFailed when Redis cannot be asked."""

    def __init__(self, settings: RedisSettings, thread: AsyncioThread, *, patience: float = PATIENCE) -> None:
        self._lanes = RedisLanes(settings, thread, lanes=1, patience=patience)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: RedisSettings, thread: AsyncioThread, *, patience: float = PATIENCE
    ) -> AsyncIterator[RedisGroups]:
        """Groups whose connection ends with the block."""
        groups = cls(settings, thread, patience=patience)
        try:
            yield groups
        finally:
            await groups._lanes.close()

    async def create(self, group_id: int, members: Iterable[int] = (), *, name: str = "") -> Group:
        """Make a group."""
        return _group(group_id, await self._do("create", group_id, members, checked_title(name)))

    async def delete(self, group_id: int) -> None:
        """Remove a group; its messages stay in their timelines."""
        await self._do("delete", group_id)

    async def add(self, group_id: int, members: Iterable[int]) -> Group:
        """Add members; those that are in it already stay."""
        return _group(group_id, await self._do("add", group_id, members))

    async def remove(self, group_id: int, members: Iterable[int]) -> Group:
        """Remove members; what they received stays theirs."""
        return _group(group_id, await self._do("remove", group_id, members))

    async def find(self, group_id: int) -> Group:
        """One group with its members."""
        return _group(group_id, await self._do("find", group_id))

    async def list(self, *, of_user: int = 0) -> Sequence[Group]:
        """All groups by id, or those that a user is in."""
        if of_user:
            checked_id(of_user, "a user id")
        found = await self._lanes.ask(0, LIST, str(of_user))
        return [await self.find(group_id) for group_id in sorted(map(int, found))]

    async def _do(self, what: str, group_id: int, members: Iterable[int] = (), name: str = "") -> tuple[Any, ...]:
        checked_id(group_id, "a group id")
        users = msgspec.msgpack.encode([str(checked_id(each, "a user id")) for each in members])
        now = time.time_ns() // 1_000_000
        answer, *told = await self._lanes.ask(0, GROUP, what, group_id, now, name, MAX_MEMBERS, users)
        if answer == "exists":
            raise GroupError(f"group {group_id} exists already")
        if answer == "absent":
            raise GroupError(f"there is no group {group_id}")
        if answer == "full":
            raise GroupError(f"group {group_id} would have {told[0]} members; at most {MAX_MEMBERS}")
        return tuple(told)


def _group(group_id: int, told: Sequence[Any]) -> Group:
    name, created_at, users = told
    return Group(group_id=group_id, name=name, created_at=int(created_at), members=tuple(sorted(map(int, users))))
