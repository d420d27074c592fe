"""The embeddable whole: ports, hub, Logic, transports and console put together, and their life in order.

Nothing of a transport, a message or a store is decided here; this file only says who is given to whom.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from gateway.backends.dev_keys import open_authenticator
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.config import Config
from gateway.console.server import serve_console
from gateway.core.hub import Hub, HubSettings
from gateway.core.metrics import Metrics
from gateway.core.ports import Authenticator, Bus, LocationStore
from gateway.logic.function import FunctionLogic, OnMessage, Push
from gateway.logic.service import LogicService
from gateway.logic.store_sqlite import SqliteStore
from gateway.protocol.subjects import Subjects
from gateway.transports.doors import Doors
from gateway.transports.stream import serve_stream

if TYPE_CHECKING:
    import trio_websocket

log = logging.getLogger("gateway.node")

LAST_ORDERS = 5.0
"""Seconds that a leaving node gives the bus and Logic to finish what was handed to them."""


class Logic(Protocol):
    """What answers upstream inside this process, if anything does."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle messages until cancelled."""

    async def drain(self) -> None:
        """Return when everything received has been answered."""


class Node:
    """One node of a gateway. Made by `open_node`; `run` it in a nursery, `drain` it to leave in order."""

    def __init__(
        self,
        config: Config,
        *,
        bus: Bus,
        locations: LocationStore,
        authenticator: Authenticator,
        logic: Callable[[Push], Logic] | None,
    ) -> None:
        self.config = config
        self.bus = bus
        self.locations = locations
        subjects = Subjects()
        self.hub = Hub(
            HubSettings(
                node_id=config.node_id,
                region=config.region,
                limits=config.limits,
                heartbeat=config.heartbeat,
                login=config.login,
                drain=config.drain,
            ),
            bus=bus,
            locations=locations,
            authenticator=authenticator,
        )
        self.push = Push(bus, locations, subjects)
        """`await node.push(user_id, message)`: to a user, wherever they are connected."""
        self.addresses: dict[str, str] = {}
        """Where this node listens once it runs: `tcp`, `websocket`, `console`, each `host:port`."""
        self._logic = logic(self.push) if logic is not None else None
        self._doors = Doors(config.tcp, config.websocket, self.hub)
        self._left = trio.Event()
        self._running = False

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` has finished or the task is cancelled; nothing is left behind either way.

        Raises:
            OSError: an address to listen on is taken or not ours.
        """
        async with trio.open_nursery() as services:
            await services.start(self.bus.run)
            if self._logic is not None:
                await services.start(self._logic.run)
            async with trio.open_nursery() as links:
                await links.start(self.hub.run)
                self.addresses.update(await links.start(self._doors.run))
                if self.config.console.enabled:
                    self.addresses["console"] = await links.start(serve_console, self.config.console, self)
                self._running = True
                task_status.started()
                await self._left.wait()
                self._running = False
                links.cancel_scope.cancel()
            services.cancel_scope.cancel()

    async def drain(self) -> None:
        """Leave in order: no new links, GoAway to everybody, wait or close, finish what was received; `run` returns."""
        self._running = False
        await self._doors.close()
        await self.hub.drain()
        with trio.move_on_after(LAST_ORDERS):
            await self.bus.drain()
            if self._logic is not None:
                await self._logic.drain()
        self._left.set()

    # -- links that somebody else accepted -----------------------------------------------------------------

    async def serve_stream(self, stream: trio.abc.Stream, address: str = "") -> None:
        """Serve frames over an accepted Trio stream to their end, then close it."""
        await serve_stream(self.hub.serve, stream, address)

    async def serve_websocket(self, ws: trio_websocket.WebSocketConnection) -> None:
        """Serve a WebSocket that your own trio-websocket server accepted, to its end."""
        from gateway.transports.trio_websocket import serve_websocket

        await serve_websocket(self.hub.serve, ws)

    # -- for the console -----------------------------------------------------------------------------------

    @property
    def metrics(self) -> Metrics:
        """The counters of this node."""
        return self.hub.metrics

    def not_ready(self) -> str:
        """Why a load balancer should send nobody here now; empty when it should."""
        if self.hub.draining:
            return "draining"
        if not self._running:
            return "not serving yet"
        if not self.bus.healthy:
            return "the bus cannot be reached"
        if not self.locations.healthy:
            return "the location store cannot be reached"
        return ""


@asynccontextmanager
async def open_node(
    config: Config,
    *,
    on_message: OnMessage | None = None,
    bus: Bus | None = None,
    locations: LocationStore | None = None,
    authenticator: Authenticator | None = None,
) -> AsyncIterator[Node]:
    """Put a node together from its configuration, and from your own parts where you give some.

    With `on_message` your function handles messages; without it, and without a `bus` of your own, the reference
    Logic runs inside the node on a SQLite file in `config.data_dir`.

    Raises:
        gateway.ConfigError: something configured cannot work; one line says what and what would.
    """
    bus_here = bus if bus is not None else MemoryBus()
    locations_here = locations if locations is not None else MemoryLocationStore()
    authenticator_here = authenticator or open_authenticator(config.auth, config.data_dir)
    async with contextlib.AsyncExitStack() as stack:
        logic: Callable[[Push], Logic] | None = None
        if on_message is not None:
            handler = on_message

            def logic(push: Push) -> Logic:
                return FunctionLogic(bus_here, push, Subjects(), handler)
        elif bus is None:
            store = await stack.enter_async_context(SqliteStore.open(Path(config.data_dir) / "logic.sqlite"))

            def logic(push: Push) -> Logic:
                return LogicService(bus_here, locations_here, store, config.logic)

        yield Node(config, bus=bus_here, locations=locations_here, authenticator=authenticator_here, logic=logic)
