"""NatsBus keeps the contract of every Bus, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.nats_bus import NatsBus
from gateway.backends.settings_nats import NatsSettings
from gateway.core.ports import Bus
from tests.contracts.bus import BusContract
from tests.support.nats_server import NatsServer

PATIENCE = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    trio.run(server.start)
    yield server
    trio.run(server.kill)


@asynccontextmanager
async def running(server: NatsServer, max_bytes: int) -> AsyncIterator[NatsBus]:
    async with AsyncioThread() as thread, trio.open_nursery() as nursery:
        bus = NatsBus(NatsSettings(servers=(server.url,)), thread, max_bytes=max_bytes)
        await nursery.start(bus.run)
        with trio.fail_after(PATIENCE):
            await bus.wait_healthy()
        yield bus
        nursery.cancel_scope.cancel()


class TestNatsBusContract(BusContract):
    @pytest.fixture
    async def bus(self, server: NatsServer) -> AsyncIterator[Bus]:
        async with running(server, 67_108_864) as bus:
            yield bus

    @pytest.fixture
    async def small_bus(self, server: NatsServer) -> AsyncIterator[Bus]:
        async with running(server, 100_000) as bus:
            yield bus
