"""Which bus, location store and message store a configuration means, opened while they are used. Nothing runs here.

The drivers are imported when they are configured: a node by itself needs neither them nor the asyncio thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.backends.file_store import DirectoryFileStore
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.backends.memory_sessions import MemoryDedup, MemorySessionStore
from gateway.config import Config, ConfigError
from gateway.core.file_store import FileStore
from gateway.core.ports import Bus, Dedup, LocationStore, SessionStore
from gateway.core.settings_files import FILES_FOLDER
from gateway.logic.settings import STORE_FILE
from gateway.logic.store import Store
from gateway.logic.store_sqlite import SqliteStore

if TYPE_CHECKING:
    from gateway.backends.asyncio_thread import AsyncioThread


def check_cluster(config: Config, *, logic: bool = False) -> None:
    """What only several processes together need; with `logic`, for a Logic that is a process of its own.

    Raises:
        ConfigError: one line that says what is missing.
    """
    if logic and not config.nats.servers:
        raise ConfigError(["nats.servers: say where NATS is; Logic as its own process meets its nodes there"])
    if config.nats.servers and config.redis is None:
        raise ConfigError(
            ["nats.servers: needs redis too (redis.host): without it each process knows only its own users' locations"]
        )


def configured_files(config: Config) -> FileStore | None:
    """Where this node keeps files; None: it takes none."""
    files = config.files
    if not files.enabled:
        return None
    directory = Path(files.directory or Path(config.data_dir) / FILES_FOLDER)
    return DirectoryFileStore(directory, threads=files.threads, keep_free=files.keep_free)


@asynccontextmanager
async def open_thread(config: Config) -> AsyncIterator[AsyncioThread | None]:
    """The one asyncio thread of all drivers, if any is configured. Enter it before what uses it."""
    if not config.nats.servers and config.redis is None and config.logic.redis is None:
        yield None
        return
    from gateway.backends.asyncio_thread import AsyncioThread

    async with AsyncioThread() as thread:
        yield thread


@asynccontextmanager
async def open_store(config: Config, thread: AsyncioThread | None) -> AsyncIterator[Store]:
    """Logic's store: the file in `data_dir`, or Redis.

    Raises:
        ConfigError: Redis is to be the store and is not configured.
        StoreFailed: the file cannot be used. (Redis may be away: what is asked meanwhile fails.)
    """
    if config.logic.store == "sqlite":
        async with SqliteStore.open(Path(config.data_dir) / STORE_FILE) as file:
            yield file
        return
    settings = config.logic.redis or config.redis
    if settings is None or thread is None:
        raise ConfigError(['logic.store: "redis" needs redis too (redis.host)'])
    from gateway.logic.store_redis import RedisStore

    async with RedisStore.open(settings, thread) as shared:
        yield shared


@asynccontextmanager
async def open_ports(
    config: Config,
    *,
    thread: AsyncioThread | None = None,
    bus: Bus | None = None,
    locations: LocationStore | None = None,
    name: str = "gateway",
) -> AsyncIterator[tuple[Bus, LocationStore]]:
    """The configured ones, or those that are given; they work once they `run`. `name` is what NATS shows;
    the drivers run on `thread`, or on one of their own.

    Raises:
        ConfigError: NATS is configured without Redis, and no location store is given.
    """
    remote_bus = bus is None and bool(config.nats.servers)
    remote_locations = locations is None and config.redis is not None
    if remote_bus and locations is None:
        check_cluster(config)
    async with contextlib.AsyncExitStack() as stack:
        if remote_bus or remote_locations:
            thread = thread or await stack.enter_async_context(open_thread(config))
            assert thread is not None
            if remote_bus:
                from gateway.backends.nats_bus import NatsBus

                bounds = config.bus
                bus = NatsBus(
                    config.nats,
                    thread,
                    name=name,
                    max_messages=bounds.max_messages,
                    max_bytes=bounds.max_bytes,
                    max_payload=bounds.max_payload,
                )
            if locations is None and config.redis is not None:
                from gateway.backends.redis_locations import RedisLocationStore

                locations = RedisLocationStore(config.redis, thread)
        if bus is None:
            bounds = config.bus
            bus = MemoryBus(
                max_messages=bounds.max_messages, max_bytes=bounds.max_bytes, max_payload=bounds.max_payload
            )
        yield bus, locations or MemoryLocationStore()


def session_stores(config: Config, locations: LocationStore) -> tuple[SessionStore, Dedup]:
    """Where sessions and seen messages are kept: in Redis if the locations are, else in the process."""
    if config.redis is not None:
        from gateway.backends.redis_locations import RedisLocationStore
        from gateway.backends.redis_sessions import RedisDedup, RedisSessionStore

        if isinstance(locations, RedisLocationStore):
            return RedisSessionStore(locations.servers), RedisDedup(locations.servers)
    return MemorySessionStore(), MemoryDedup()
