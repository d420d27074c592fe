"""A store on a real server for the length of a block, and what tests write there by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_locations import RedisLocationStore
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import Location, LocationStore, LoginPolicy, NodeRecord, StoreUnavailable
from tests.support.redis_server import RedisServer

PATIENCE = 30.0
"""Seconds until a wait is given up: far more than any needs on a busy machine."""

LENIENT = 10.0
"""Seconds that an operation may take where no test is about that."""


def announce(client: Any, *nodes: str) -> None:
    """What living nodes write of themselves."""
    for node in nodes:
        client.set(f"im:node:{node}", json.dumps({"boot_id": f"boot-of-{node}"}))


def record(node: str = "node-1", **fields: Any) -> NodeRecord:
    """What `tests.contracts.locations.place` takes a node to be."""
    return NodeRecord(node_id=node, **{"boot_id": f"boot-of-{node}", **fields})


@asynccontextmanager
async def open_store(
    server: RedisServer,
    thread: AsyncioThread,
    node: str | None = None,
    *,
    says: Callable[[], NodeRecord] | None = None,
    **settings: Any,
) -> AsyncIterator[RedisLocationStore]:
    """A store that runs for the length of the block, announcing `node` if one is named."""
    told = RedisSettings(**{"port": server.port, "timeout": LENIENT, **settings})
    async with open_store_on(told, thread, says or (partial(record, node) if node else None)) as store:
        yield store


@asynccontextmanager
async def open_store_on(
    settings: RedisSettings, thread: AsyncioThread, says: Callable[[], NodeRecord] | None = None
) -> AsyncIterator[RedisLocationStore]:
    """A store that runs for the length of the block."""
    store = RedisLocationStore(settings, thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, says)
        yield store
        nursery.cancel_scope.cancel()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.01)


async def enter(store: LocationStore, location: Location) -> None:
    """Claim, however often it takes on a busy machine."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                assert await store.claim(location, LoginPolicy.MULTI_DEVICE) is not None
                return
            except StoreUnavailable:
                await trio.sleep(0.05)


async def conn_ids(store: LocationStore, user: int = 1001) -> list[int]:
    """Who is found."""
    with trio.fail_after(PATIENCE):
        return sorted(each.conn_id for each in (await store.lookup([user])).get(user, []))
