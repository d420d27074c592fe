"""Nodes and Logics in this process on a real NATS and a real Redis."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from gateway.backends.settings_nats import NatsSettings
from gateway.backends.settings_redis import RedisSettings
from gateway.cli.logic import LogicProcess, open_logic
from gateway.client import Client, ClientSettings, connect
from gateway.config import Config
from gateway.core.settings import LimitSettings
from gateway.node import open_node
from tests.backends.nats import PATIENCE, settings, until
from tests.support.nats_server import NatsServer
from tests.support.node import RunningNode, test_config

ANNA, BO = 1001, 1002
FREELY = LimitSettings(message_rate=100_000, message_burst=100_000)


class Cluster:
    """Everything in this process but the servers."""

    def __init__(
        self, nats: NatsServer, redis_port: int, folder: Path, nats_settings: NatsSettings | None = None
    ) -> None:
        self.nats = nats
        self.folder = folder
        self.sections: dict[str, Any] = {
            "nats": nats_settings or settings(nats.url),
            "redis": RedisSettings(port=redis_port),
            "limits": FREELY,
        }

    def config(self, node_id: str) -> Config:
        return test_config(self.folder, "tcp", node_id=node_id, **self.sections)

    @asynccontextmanager
    async def node(self, node_id: str, **sections: Any) -> AsyncIterator[RunningNode]:
        config = test_config(self.folder, "tcp", node_id=node_id, **(self.sections | sections))
        async with open_node(config) as node, trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await until(lambda: not node.not_ready())
            yield RunningNode(node, "tcp", nursery)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def logic(self, name: str) -> AsyncIterator[LogicProcess]:
        """One that leaves in order at the end of the block."""
        async with open_logic(self.config(name)) as process, trio.open_nursery() as nursery:
            await nursery.start(process.run)
            yield process
            with trio.fail_after(PATIENCE):
                await process.drain()


@asynccontextmanager
async def user(node: RunningNode, user_id: int, device: str = "phone") -> AsyncIterator[Client]:
    token = functools.partial(node.token, user_id)
    quick = ClientSettings(backoff_base=0.02, backoff_cap=0.2, resend_after=1.0)
    async with connect(node.url, token=token, device_id=device, settings=quick) as client:
        yield client
