"""The Redis store behaves as the model of all stores; here every step is another process's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from gateway.logic.groups_redis import RedisGroups
from gateway.logic.store import History, Outcome, Page, Retention, Write
from tests.contracts.store_model import SETTINGS, StoreModel, pruned
from tests.logic.redis_world import own_part, redis_groups, redis_store
from tests.support.redis_server import RedisServer

T = TypeVar("T")


class RedisMachine(StoreModel):
    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.settings = own_part(server)
        self.client = server.client()

    def with_groups(self, work: Callable[[RedisGroups], Awaitable[T]]) -> T:
        async def do() -> T:
            async with redis_groups(self.settings) as groups:
                return await work(groups)

        return trio.run(do)

    def make_groups(self, groups: Sequence[int]) -> None:
        for group in groups:
            self.with_groups(lambda each, group=group: each.create(group))  # type: ignore[misc]

    def write_some(self, writes: list[Write], now_ms: int) -> list[Outcome]:
        async def do() -> list[Outcome]:
            async with redis_store(self.settings) as store:
                return await store.write(writes, now_ms)

        return trio.run(do)

    def read_some(self, queries: list[History]) -> list[Page]:
        async def do() -> list[Page]:
            async with redis_store(self.settings) as store:
                return await store.read(queries)

        return trio.run(do)

    def prune_all(self, retention: Retention) -> None:
        async def do() -> None:
            async with redis_store(self.settings) as store:
                self.client.delete(f"{self.settings.prefix}:logic:pruning")
                await pruned(store, retention)

        trio.run(do)

    def change_member(self, group: int, user: int, joins: bool) -> None:
        self.with_groups(lambda each: (each.add if joins else each.remove)(group, [user]))


def test_it_is_what_the_model_is(server: RedisServer) -> None:
    class Machine(RedisMachine):
        def __init__(self) -> None:
            super().__init__(server)

    run_state_machine_as_test(
        Machine, settings=settings(SETTINGS, max_examples=5)
    )  # each step opens a thread and a store
