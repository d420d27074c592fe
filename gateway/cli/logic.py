"""`logic`: the reference Logic as a process of its own, in the queue group of all others on the same NATS."""

from __future__ import annotations

import argparse
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from gateway.cli.run import start
from gateway.cluster import check_cluster, open_ports, open_store, open_thread
from gateway.config import Config, load
from gateway.core.ports import Bus, LocationStore
from gateway.logic.service import LogicService
from gateway.node import LAST_ORDERS
from gateway.protocol.subjects import Subjects

log = logging.getLogger("gateway.run")


def logic(arguments: argparse.Namespace) -> int:
    """Run Logic until a signal has ended it.

    Raises:
        ConfigError: the configuration cannot be used.
        CommandFailed: Logic cannot start.
    """
    config = load(arguments.config, flags=arguments.flags).config
    check_cluster(config, logic=True)
    return start(config, lambda: open_logic(config), lambda _: _announce(config))


class LogicProcess:
    """Logic and what it needs, run and left in order."""

    def __init__(self, bus: Bus, locations: LocationStore, service: LogicService) -> None:
        self._bus = bus
        self._locations = locations
        self._service = service
        self._left = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` has finished or the task is cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._bus.run)
            await nursery.start(self._locations.run)
            await nursery.start(self._service.run)
            task_status.started()
            await self._left.wait()
            nursery.cancel_scope.cancel()

    async def drain(self) -> None:
        """Leave the queue group, answer what was received, and let the answers go out."""
        with trio.move_on_after(LAST_ORDERS):
            self._service.part()
            await self._bus.drain()
            await self._service.drain()
            await self._bus.drain()
        self._left.set()

    def reload(self) -> None:
        """Nothing that it has read may change while it serves."""


@asynccontextmanager
async def open_logic(config: Config) -> AsyncIterator[LogicProcess]:
    """Logic on the configured NATS and Redis, with its store in `data_dir` or in that Redis."""
    async with (
        open_thread(config) as thread,
        open_ports(config, thread=thread, name=f"{config.node_id}-logic") as (bus, locations),
        open_store(config, thread) as store,
    ):
        subjects = Subjects(config.nats.prefix)
        durable = config.nats.uplink == "jetstream"
        service = LogicService(bus, locations, store, config.logic, subjects=subjects, durable=durable)
        yield LogicProcess(bus, locations, service)


def _announce(config: Config) -> None:
    log.info(
        "logic_serving",
        extra={"store": config.logic.store, "data_dir": config.data_dir, "nats": ", ".join(config.nats.servers)},
    )
