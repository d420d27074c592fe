"""RedisLocationStore keeps the contract on a real server, and what is particular to it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_locations import RedisLocationStore
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import LocationStore, NodeRecord
from tests.contracts.locations import LocationContract
from tests.support.redis_server import RedisServer, redis_server

PATIENCE = 30.0


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """A running server with nothing in it."""
    look(shared).flushall()
    return shared


def look(server: RedisServer) -> redis.Redis:
    return server.client()


def announce(server: RedisServer, *nodes: str) -> None:
    """What living nodes write of themselves."""
    for node in nodes:
        look(server).set(f"im:node:{node}", json.dumps({"boot_id": f"boot-of-{node}"}))


def record(node: str = "node-1", **fields: Any) -> NodeRecord:
    return NodeRecord(node_id=node, **{"boot_id": f"boot-of-{node}", **fields})


@asynccontextmanager
async def open_store(
    server: RedisServer, thread: AsyncioThread, node: str | None = None, **settings: Any
) -> AsyncIterator[RedisLocationStore]:
    """A store that runs for the length of the block, announcing `node`."""
    store = RedisLocationStore(RedisSettings(**{"port": server.port, **settings}), thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, partial(record, node) if node else None)
        yield store
        nursery.cancel_scope.cancel()


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


@pytest.fixture
async def store(server: RedisServer, thread: AsyncioThread) -> AsyncIterator[RedisLocationStore]:
    announce(server, *(f"node-{i}" for i in range(4)))
    async with open_store(server, thread) as store:
        yield store


class TestRedisLocationContract(LocationContract):
    lifetime = 120.0
    server: RedisServer

    @pytest.fixture
    async def store(self, server: RedisServer, thread: AsyncioThread) -> AsyncIterator[LocationStore]:
        type(self).server = server
        announce(server, *(f"node-{i}" for i in range(4)))
        async with open_store(server, thread) as store:
            yield store

    async def elapse(self, seconds: float) -> None:
        """What is stored gets older by so much: the server's clock cannot be set, and nobody wants to wait."""
        client = look(self.server)
        for key in client.keys("im:user:conn:*"):
            left = client.pttl(key) - int(seconds * 1000)
            if left <= 0:
                client.delete(key)
                continue
            client.pexpire(key, left)
            values: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]
            for field, value in values.items():
                older = re.sub(rb"(\d+)}$", lambda found: b"%d}" % (int(found[1]) - seconds), value)
                client.hset(key, field, older)
