"""The locations of a node that was told of Sentinels only, under the same contract as everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.core.ports import LocationStore
from tests.backends.redis_world import announce, open_store
from tests.backends.test_redis_locations import age
from tests.backends.test_redis_ways import Sentinels
from tests.contracts.locations import LocationContract
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Sentinels]]:
    """A master, and what watches it."""
    folder: Path = tmp_path_factory.mktemp("sentinel")
    with redis_server() as master:
        sentinels = Sentinels(folder, master)
        sentinels.server.start()
        try:
            yield master, sentinels
        finally:
            sentinels.server.close()


class TestRedisSentinelContract(LocationContract):
    lifetime = 120.0
    master: RedisServer

    @pytest.fixture
    async def store(self, watched: tuple[RedisServer, Sentinels]) -> AsyncIterator[LocationStore]:
        type(self).master, sentinels = watched
        client = self.master.client()
        client.flushall()
        announce(client, *(f"node-{i}" for i in range(4)))
        # nothing listens on port 1
        where: dict[str, Any] = {"port": 1, "sentinels": sentinels.addresses, "master": "chat"}
        async with AsyncioThread() as thread, open_store(self.master, thread, **where) as store:
            yield store

    async def elapse(self, seconds: float) -> None:
        age(self.master.client(), seconds)
