"""`logic`: the reference Logic as a process of its own, in the queue group of all others on the same NATS."""

from __future__ import annotations

import argparse
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from gateway.cli.run import start
from gateway.cluster import check_cluster, open_ports, open_store, open_thread
from gateway.config import Config, load
from gateway.console.server import serve_console
from gateway.console.settings import ConsoleSettings
from gateway.core.books import Account, CountingBus, bus_books, publishers
from gateway.core.ports import Bus, LocationStore
from gateway.logic.service import LogicService
from gateway.node import LAST_ORDERS
from gateway.protocol.subjects import Subjects

if TYPE_CHECKING:
    from gateway.transports.quic.statistics import QuicStatistics

log = logging.getLogger("gateway.run")


def logic(arguments: argparse.Namespace) -> int:
    """Run Logic until a signal has ended it.

    Raises:
        ConfigError: the configuration cannot be used.
        CommandFailed: Logic cannot start.
    """
    config = load(arguments.config, flags=arguments.flags).config
    check_cluster(config, logic=True)
    return start(config, lambda: open_logic(config), partial(_announce, config))


class LogicProcess:
    """Logic and what it needs, run and left in order. What the console shows of it is here, too."""

    metrics = None
    """A node's; here is none."""

    def __init__(
        self, bus: Bus, locations: LocationStore, service: LogicService, console: ConsoleSettings | None = None
    ) -> None:
        self._bus = bus
        self._locations = locations
        self._service = service
        self._console = console
        self.console = ""
        """Where its console listens, once it runs: `host:port`; empty without one."""
        self._left = trio.Event()
        self._draining = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` has finished or the task is cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._bus.run)
            await nursery.start(self._locations.run)
            await nursery.start(self._service.run)
            if self._console is not None:
                self.console = await nursery.start(serve_console, self._console, self)
            task_status.started()
            await self._left.wait()
            nursery.cancel_scope.cancel()

    async def drain(self) -> None:
        """Leave the queue group, answer what was received, and let the answers go out."""
        self._draining = True
        with trio.move_on_after(LAST_ORDERS):
            self._service.part()
            await self._bus.drain()
            await self._service.drain()
            await self._bus.drain()
        self._left.set()

    def reload(self) -> None:
        """Nothing that it has read may change while it serves."""

    def books(self) -> list[Account]:
        """Everything that came here, and what became of it."""
        found = self._service.books()
        if isinstance(self._bus, CountingBus):
            counts = self._bus.statistics()
            found += [publishers(counts, None, found), *bus_books(counts)]
        return found

    def quic_statistics(self) -> QuicStatistics | None:
        """Nobody connects to a Logic."""
        return None

    def bus_statistics(self) -> Any:
        """What the bus counts; None for one that does not."""
        return self._bus.statistics() if isinstance(self._bus, CountingBus) else None

    def not_ready(self) -> str:
        """Why it handles nothing now; empty when it does."""
        if self._draining:
            return "draining"
        if not self._bus.healthy:
            return "the bus cannot be reached"
        return "" if self._locations.healthy else "the location store cannot be reached"


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
        console = msgspec.structs.replace(config.console, port=config.logic.console_port)
        yield LogicProcess(bus, locations, service, console if console.enabled else None)


def _announce(config: Config, logic: LogicProcess) -> None:
    extra = {"store": config.logic.store, "data_dir": config.data_dir, "nats": ", ".join(config.nats.servers)}
    log.info("logic_serving", extra=extra | ({"console": logic.console} if logic.console else {}))
