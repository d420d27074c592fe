"""Clients of a running cluster, and what its nodes and its Redis say."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import redis
import trio

from examples.cluster import HOST, Cluster
from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.dev_keys import development_key, issue_token
from gateway.backends.redis_locations import RedisLocationStore
from gateway.backends.settings_redis import RedisSettings
from gateway.client import Client, ClientSettings, connect

NODES = ("node-1", "node-2")
PATIENCE = 45.0
"""Seconds until a wait is given up."""
SETTINGS = ClientSettings(
    start_timeout=PATIENCE, send_timeout=PATIENCE, backoff_base=0.1, backoff_cap=1.0, resend_after=1.0
)


class World:
    """A cluster that serves, and how tests meet it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._key = development_key(cluster.folder)

    def client(
        self, user: int, node: str, device: str = "phone", **settings: Any
    ) -> AbstractAsyncContextManager[Client]:
        """A client of one node."""
        return connect(
            f"tcp://{self.cluster.addresses[node]['tcp']}",
            token=issue_token(self._key, user),
            device_id=device,
            settings=SETTINGS if not settings else ClientSettings(**settings),
        )

    async def sum(self, metric: str) -> float:
        """What all nodes together tell of a metric without labels."""
        total = 0.0
        for node in NODES:
            url = f"http://{self.cluster.addresses[node]['console']}/metrics"
            text = (await trio.to_thread.run_sync(partial(fetch, url))).decode()
            found = re.search(rf"^{metric} (\S+)$", text, re.MULTILINE)
            assert found is not None, metric
            total += float(found[1])
        return total

    def stored_locations(self, user: int) -> dict[bytes, bytes]:
        """What stands in Redis about a user, alive or not."""
        with redis.Redis(host=HOST, port=self.cluster.redis_port, socket_timeout=PATIENCE, driver_info=None) as client:
            fields: dict[bytes, bytes] = client.hgetall(f"im:user:conn:{user}")
            return fields

    @asynccontextmanager
    async def locations(self) -> AsyncIterator[RedisLocationStore]:
        """The store as a node has it."""
        async with AsyncioThread() as thread, trio.open_nursery() as nursery:
            store = RedisLocationStore(RedisSettings(port=self.cluster.redis_port), thread)
            await nursery.start(store.run)
            yield store
            nursery.cancel_scope.cancel()


def fetch(url: str) -> bytes:
    """What a console answers."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body: bytes = answer.read()
        return body


async def until(true: Callable[[], Any]) -> None:
    """Return once it holds."""
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.sleep(0.02)


async def take(client: Client) -> str:
    """The next text that a client receives."""
    with trio.fail_after(PATIENCE):
        return (await anext(client)).content
