"""The embeddable whole: ports, hub, Logic, transports and console put together, and their life in order.

Nothing of a transport, a message or a store is decided here; this file only says who is given to whom.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio

from gateway.backends.dev_keys import development_key, issue_token, open_authenticator
from gateway.cluster import configured_files, open_ports, open_store, open_thread, session_stores
from gateway.config import Config, ConfigError, check
from gateway.console.browser import BrowserPage, WebTransportAddress, development_origins
from gateway.console.server import serve_console
from gateway.core.books import Account, CountingBus, books, bus_books, publishers
from gateway.core.file_store import FileStore
from gateway.core.hub import Hub, HubSettings
from gateway.core.metrics import Metrics
from gateway.core.ports import Authenticator, Bus, Dedup, LocationStore, NodeRecord, SessionStore
from gateway.logic.function import FunctionLogic, OnMessage
from gateway.logic.push import Push
from gateway.logic.service import LogicService
from gateway.logic.store import Store
from gateway.protocol.subjects import Subjects
from gateway.transports.doors import Doors
from gateway.transports.stream import serve_stream

if TYPE_CHECKING:
    import trio_websocket

    from gateway.transports.quic.door import QuicDoor
    from gateway.transports.quic.statistics import QuicStatistics

log = logging.getLogger("gateway.node")

LAST_ORDERS = 5.0
"""Seconds that a leaving node gives the bus and Logic to finish what was handed to them."""


class Logic(Protocol):
    """What answers upstream inside this process, if anything does."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle messages until cancelled."""

    async def drain(self) -> None:
        """Return when everything received has been answered."""

    def books(self) -> list[Account]:
        """What came from nodes and went to them, and what became of it."""


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
        sessions: SessionStore | None = None,
        dedup: Dedup | None = None,
        file_store: FileStore | None = None,
        token_maker: Callable[[int], str] | None = None,
        own_bus: bool = False,
    ) -> None:
        """`own_bus`: nobody but this node publishes on the bus, so that everything on it is in its books."""
        self.config = config
        self.bus = bus
        self._own_bus = own_bus
        self.locations = locations
        subjects = Subjects(config.nats.prefix)
        self.hub = Hub(
            HubSettings(
                node_id=config.node_id,
                region=config.region,
                prefix=config.nats.prefix,
                durable=config.nats.uplink == "jetstream",
                limits=config.limits,
                heartbeat=config.heartbeat,
                login=config.login,
                drain=config.drain,
                files=config.files,
                bindings=config.quic.tickets,
            ),
            bus=bus,
            locations=locations,
            authenticator=authenticator,
            sessions=sessions,
            dedup=dedup,
            file_store=file_store,
        )
        self.push = Push(bus, locations, subjects)
        """`await node.push(user_id, message)`: to a user, wherever they are connected."""
        self.addresses: dict[str, str] = {}
        """Where this node listens once it runs: `tcp`, `websocket`, `quic`, `console`, each `host:port`."""
        self._logic = logic(self.push) if logic is not None else None
        self._token_maker = token_maker
        self._quic = _quic_door(config, self.hub) if config.quic.enabled else None
        self._doors = Doors(config.tcp, config.websocket, self.hub, quic=self._quic)
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
            await services.start(self.locations.run, self._record)
            if self._logic is not None:
                await services.start(self._logic.run)
            async with trio.open_nursery() as links:
                await links.start(self.hub.run)
                self.addresses.update(await links.start(self._doors.run))
                if self.config.console.enabled:
                    serve = partial(serve_console, self.config.console, self, page=self._page())
                    self.addresses["console"] = await links.start(serve)
                self._running = True
                task_status.started()
                await self._left.wait()
                self._running = False
                links.cancel_scope.cancel()
            services.cancel_scope.cancel()

    async def drain(self) -> None:
        """Leave in order: no new links, GoAway to all, finish what was received, close the rest; `run` returns."""
        self._running = False
        await self._doors.close()
        await self.hub.part()
        await self._finish()
        await self.hub.close_rest()
        await self._finish()
        self._left.set()

    def reload(self) -> None:
        """Read the certificates of all listeners anew. Connections stay; what cannot be used is logged and left out."""
        self._doors.reload()

    async def _finish(self) -> None:
        """What clients were told is accepted becomes stored, and its answers reach whoever is still there."""
        with trio.move_on_after(LAST_ORDERS):
            await self.bus.drain()
            if self._logic is not None:
                await self._logic.drain()
                await self.bus.drain()

    def _record(self) -> NodeRecord:
        """What the other nodes may know of this one."""
        tcp, websocket = self.config.tcp, self.config.websocket
        schemes = {"tcp": "tcps" if tcp.tls else "tcp", "websocket": "wss" if websocket.tls else "ws"}
        paths = {"tcp": "", "websocket": websocket.path}
        addresses = {name: self.addresses[name] for name in schemes if name in self.addresses}
        endpoints = tuple(f"{schemes[name]}://{address}{paths[name]}" for name, address in addresses.items())
        quic = self.addresses.get("quic", "")
        if quic:
            endpoints += (f"quic://{quic}", *([self._webtransport_url()] if self.config.webtransport.enabled else []))
        address = next(iter(addresses.values()), quic)
        return msgspec.structs.replace(self.hub.record(), address=address, endpoints=endpoints)

    def _page(self) -> Callable[[int], BrowserPage] | None:
        """In development mode the console serves the chat page, whose origin may open WebSockets here."""
        if self._token_maker is None or "websocket" not in self.addresses:
            return None
        issue_token = self._token_maker
        settings = self.config.websocket
        url = f"{'wss' if settings.tls else 'ws'}://{self.addresses['websocket']}{settings.path}"

        def page(port: int) -> BrowserPage:
            self._doors.allow_origins(development_origins(port))
            webtransport = self._webtransport if "quic" in self.addresses and self.config.webtransport.enabled else None
            return BrowserPage(console_port=port, websocket_url=url, issue_token=issue_token, webtransport=webtransport)

        return page

    def _webtransport(self) -> WebTransportAddress:
        hashes = (self.certificate_sha256,) if self.certificate_sha256 else ()
        return WebTransportAddress(self._webtransport_url(), hashes)

    def _webtransport_url(self) -> str:
        return f"https://{self.addresses['quic']}{self.config.webtransport.path}"

    @property
    def certificate_sha256(self) -> str:
        """SHA-256, in hex, of the certificate that the node signed for itself; empty with one of your own."""
        certificates = self._quic.certificates if self._quic is not None else None
        return certificates.fingerprint if certificates is not None and certificates.renews else ""

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

    def books(self) -> list[Account]:
        """Everything that came here, and what became of it: the core's accounts, the UDP port's, the bus's, an embedded
        Logic's."""
        found = [*books(self.hub), *self.push.books()]
        if self._quic is not None:
            found += self._quic.books()
        if self._logic is not None:
            found += self._logic.books()
        if self._own_bus and isinstance(self.bus, CountingBus):
            counts = self.bus.statistics()
            found += [publishers(counts, self.hub, found), *bus_books(counts)]
        return found

    def quic_statistics(self) -> QuicStatistics | None:
        """The counters of the UDP port; None without one."""
        return self._quic.endpoint.statistics() if self._quic is not None else None

    def bus_statistics(self) -> Any:
        """What the bus counts; None for one that does not."""
        return self.bus.statistics() if isinstance(self.bus, CountingBus) else None

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
    file_store: FileStore | None = None,
) -> AsyncIterator[Node]:
    """Put a node together from its configuration, and from your own parts where you give some.

    With `on_message` your function handles messages; without it, and without a `bus` of your own, the reference
    Logic runs inside the node on the store that `config.logic.store` names. With NATS configured it does not, unless
    `config.logic.embedded` says so: there `python -m gateway logic` runs it.

    Raises:
        gateway.ConfigError: something configured cannot work; one line says what and what would.
    """
    check(config)
    subjects = Subjects(config.nats.prefix)
    durable = config.nats.uplink == "jetstream"

    def function_logic(handler: OnMessage, push: Push) -> Logic:
        return FunctionLogic(used_bus, push, subjects, handler, durable=durable)

    def reference_logic(store: Store, _: Push) -> Logic:
        return LogicService(used_bus, used_locations, store, config.logic, subjects=subjects, durable=durable)

    async with contextlib.AsyncExitStack() as stack:
        thread = await stack.enter_async_context(open_thread(config))
        ports = open_ports(config, thread=thread, bus=bus, locations=locations, name=config.node_id)
        used_bus, used_locations = await stack.enter_async_context(ports)
        logic: Callable[[Push], Logic] | None = None
        if on_message is not None:
            logic = partial(function_logic, on_message)
        elif bus is None and (config.logic.embedded or not config.nats.servers):
            store = await stack.enter_async_context(open_store(config, thread))
            logic = partial(reference_logic, store)
        own_keys = authenticator is None and config.development
        sessions, dedup = session_stores(config, used_locations)
        yield Node(
            config,
            bus=used_bus,
            locations=used_locations,
            sessions=sessions,
            dedup=dedup,
            authenticator=authenticator or open_authenticator(config.auth, config.data_dir),
            logic=logic,
            file_store=file_store or configured_files(config),
            token_maker=_token_maker(config) if own_keys else None,
            own_bus=bus is None,
        )


def _quic_door(config: Config, hub: Hub) -> QuicDoor:
    from gateway.transports.quic.door import QuicDoor  # and aioquic: for those who use it

    try:
        return QuicDoor(
            config.quic,
            config.webtransport,
            serve=hub.serve,
            admission=hub.admission,
            data_dir=config.data_dir,
            origins=config.websocket.origins,
        )
    except ValueError as error:
        raise ConfigError([f"quic.{error}"]) from None


def _token_maker(config: Config) -> Callable[[int], str]:
    """In development mode: tokens that this node accepts."""
    key = development_key(config.data_dir)
    return partial(issue_token, key, issuer=config.auth.issuer, audience=config.auth.audience)
