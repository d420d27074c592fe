"""NatsBus with JetStream keeps the contract of every DurableBus, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from gateway.core.ports import DurableBus
from tests.backends.nats import durable, running_bus
from tests.contracts.durable_bus import DurableBusContract
from tests.support.nats_server import NatsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), jetstream=True)
    trio.run(server.start)
    yield server
    trio.run(server.kill)


class TestNatsDurableBusContract(DurableBusContract):
    unsettled = 300

    @pytest.fixture
    def prefix(self) -> str:
        """A gateway of its own, since the tests share a server."""
        return f"test-{uuid.uuid4().hex}"

    @pytest.fixture
    def subject(self, prefix: str) -> str:
        return f"{prefix}.logic.durable"

    @pytest.fixture
    async def bus(self, server: NatsServer, prefix: str) -> AsyncIterator[DurableBus]:
        async with running_bus(durable(server.url, prefix=prefix, unsettled=self.unsettled)) as bus:
            yield bus

    @pytest.fixture
    async def small_bus(self, server: NatsServer, prefix: str) -> AsyncIterator[DurableBus]:
        async with running_bus(durable(server.url, prefix=prefix, max_messages=self.small)) as bus:
            yield bus
