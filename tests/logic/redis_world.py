"""Redis for Logic's tests: one server that keeps what it confirms, and a part of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.settings_redis import RedisSettings
from gateway.logic.groups_redis import RedisGroups
from gateway.logic.store_redis import RedisStore
from tests.support.redis_server import RedisServer, redis_server

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

_prefixes = (f"t{os.getpid()}-{number}" for number in itertools.count())


@contextmanager
def durable_server() -> Iterator[RedisServer]:
    """What an operator is told to run."""
    with redis_server(*DURABLE) as server:
        yield server


def own_part(server: RedisServer) -> RedisSettings:
    """Settings under which nothing is stored yet."""
    return RedisSettings(port=server.port, prefix=next(_prefixes))


@asynccontextmanager
async def redis_store(settings: RedisSettings, *, patience: float = 20.0) -> AsyncIterator[RedisStore]:
    """A store with a thread of its own, as in another process."""
    async with AsyncioThread() as thread, RedisStore.open(settings, thread, patience=patience) as store:
        yield store


@asynccontextmanager
async def redis_groups(settings: RedisSettings) -> AsyncIterator[RedisGroups]:
    """The groups of the same."""
    async with AsyncioThread() as thread, RedisGroups.open(settings, thread, patience=20.0) as groups:
        yield groups
