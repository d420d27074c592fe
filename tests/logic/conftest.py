"""Fixtures of Logic's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.backends.settings_redis import RedisSettings
from tests.logic.redis_world import durable_server, own_part, redis_store
from tests.logic.world import World, open_world
from tests.support.redis_server import RedisServer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "logic.sqlite"


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    """Restarted by some tests; what it confirmed is there afterwards."""
    with durable_server() as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisSettings:
    """An empty part of it."""
    return own_part(server)


@pytest.fixture(params=["sqlite", "redis"])
async def world(request: pytest.FixtureRequest, path: Path, redis: RedisSettings) -> AsyncIterator[World]:
    """The same on every store."""
    if request.param == "sqlite":
        async with open_world(path) as world:
            yield world
    else:
        async with redis_store(redis) as store, open_world(store) as world:
            yield world
