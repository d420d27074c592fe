"""How long a node needs to write all its locations again after Redis has forgotten them.

    python -m benchmarks.recovery                  # 20,000 on one server: FLUSHALL, and killed and started again
    python -m benchmarks.recovery --cluster        # the same on three masters
    python -m benchmarks.recovery --locations 50000

The node's hub and its store are the real ones, in this process; its connections are stand-ins, since a seated
connection has no part in this but to exist. Seconds count from the FLUSHALL, or from the new server listening.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.memory import MemoryBus
from gateway.backends.redis_locations import RedisLocationStore
from gateway.backends.settings_redis import RedisSettings
from gateway.core.connection import Connection
from gateway.core.hub import Hub, HubSettings
from gateway.core.ports import Location, LoginPolicy
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_server import RedisServer, redis_server


class Seated:
    """What the hub looks at of a connection when it renews."""

    def __init__(self, conn_id: int) -> None:
        self.id = conn_id
        self.session = SimpleNamespace(user_id=conn_id)
        self.closing = False
        self.seen = 0.0


@asynccontextmanager
async def node(settings: RedisSettings, count: int) -> AsyncIterator[Hub]:
    """A node with so many users, all of them in Redis."""
    async with AsyncioThread() as thread:
        bus, store = MemoryBus(), RedisLocationStore(settings, thread)
        hub = Hub(HubSettings(node_id="node-1"), bus=bus, locations=store, authenticator=cast(Any, None))
        users = random.sample(range(1, 2**40), count)
        locations = []
        for number, user in enumerate(users, 1):
            location = Location(
                user_id=user,
                access_node="node-1",
                conn_id=2**61 + number,
                device_id=f"device-{number}",
                platform="ios",
                login_time=1_700_000_000,
                address="192.0.2.7",
                transport="tcp",
                boot_id=hub.boot_id,
            )
            locations.append(location)
            hub.registry.enter(cast(Connection, Seated(location.conn_id)))
            hub.seats.reserve(location)
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            await nursery.start(store.run, hub.record)
            for start in range(0, count, 1_000):
                await store.reclaim(locations[start : start + 1_000], LoginPolicy.MULTI_DEVICE)
            await nursery.start(hub.run)
            yield hub
            nursery.cancel_scope.cancel()


async def measure(settings: RedisSettings, servers: list[RedisServer], lose: Callable[[], None], count: int) -> float:
    """Seconds until all are there again."""
    for server in servers:
        server.client().flushall()
    async with node(settings, count):
        assert _held(servers) >= count
        await trio.to_thread.run_sync(lose)
        began = trio.current_time()
        while _held(servers) < count:
            await trio.sleep(0.02)
        return trio.current_time() - began


def _held(servers: list[RedisServer]) -> int:
    return sum(server.client().dbsize() for server in servers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--locations", type=int, default=20_000)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        if arguments.cluster:
            cluster = stack.enter_context(redis_cluster())
            servers: list[RedisServer] = list(cluster.members)
            settings = RedisSettings(cluster=cluster.addresses)
        else:
            server = stack.enter_context(redis_server())
            servers, settings = [server], RedisSettings(port=server.port)

        def flush() -> None:
            for each in servers:
                each.client().flushall()

        def restart() -> None:
            for each in servers:
                each.restart()

        for name, lose in {"FLUSHALL": flush, "killed and started": restart}.items():
            times = [trio.run(measure, settings, servers, lose, arguments.locations) for _ in range(arguments.rounds)]
            print(f"{name:>20}: {', '.join(f'{each:.2f} s' for each in times)}", flush=True)


if __name__ == "__main__":
    main()
