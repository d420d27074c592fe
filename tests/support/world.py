"""A Hub on memory backends and peers over memory streams, for tests in virtual time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import memory_stream_pair

from gateway._framing import Upstream, parse_upstream
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.backends.memory_sessions import MemoryDedup, MemorySessionStore
from gateway.core.file_store import FileStore
from gateway.core.hub import Hub, HubSettings
from gateway.core.link import Link
from gateway.core.ports import AuthRefused, Credentials, Identity, LocationStore, SessionStore
from gateway.protocol.codes import Code
from gateway.transports.stream import serve_stream
from tests.support.peer import Peer


class Tokens:
    """An Authenticator whose tokens are `USER` or `USER:SECONDS`; `pause` makes it hang, `error` makes it raise."""

    def __init__(self) -> None:
        self.pause: trio.Event | None = None
        self.error: Exception | None = None
        self.asked: list[Credentials] = []

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.asked.append(credentials)
        if self.pause is not None:
            await self.pause.wait()
        if self.error is not None:
            raise self.error
        user, _, seconds = credentials.token.partition(":")
        if not user.isdecimal():
            raise AuthRefused(Code.TOKEN_INVALID, "the token is not valid")
        return Identity(user_id=int(user), expires_at=time.time() + float(seconds or 3600))


class World:
    """One Hub, its backends, and everything that came upstream."""

    def __init__(self, nursery: trio.Nursery, hub: Hub, tokens: Tokens) -> None:
        self.hub = hub
        self.tokens = tokens
        self.upstream: list[Upstream] = []
        self._nursery = nursery
        self._wait: trio.Event | None = None

    async def connect(self, address: str = "192.0.2.1") -> Peer:
        """A new connection, not yet authenticated."""
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(serve_stream, self.hub.serve, theirs, address)
        return Peer(ours)

    def serve(self, link: Link) -> None:
        """Start a connection on a link of the test's own."""
        self._nursery.start_soon(self.hub.serve, link)

    async def seated(self, user: int, device: str = "phone", **fields: Any) -> Peer:
        """A new connection with a session."""
        peer = await self.connect()
        await peer.log_in(user, device, **fields)
        return peer

    def heard(self, subject: str, payload: bytes) -> None:
        self.upstream.append(parse_upstream(payload))
        if self._wait is not None:
            self._wait.set()
            self._wait = None

    async def wait_upstream(self, count: int) -> list[Upstream]:
        """Wait until so many frames have come upstream."""
        while len(self.upstream) < count:
            self._wait = trio.Event()
            await self._wait.wait()
        return self.upstream

    def down(self, payload: bytes, node: str = "node-1") -> None:
        """Publish a Downstream."""
        assert self.hub.bus.publish(self.hub.subjects.downstream(node), payload)


@asynccontextmanager
async def open_world(
    *,
    bus: MemoryBus | None = None,
    locations: LocationStore | None = None,
    sessions: SessionStore | None = None,
    logic: bool = True,
    file_store: FileStore | None = None,
    adjust: Callable[[HubSettings], HubSettings] = lambda settings: settings,
    **settings: Any,
) -> AsyncIterator[World]:
    """Run a Hub; on leaving, everything must be back where it was."""
    tokens = Tokens()
    own_bus = bus is None
    bus = bus or MemoryBus()
    settings.setdefault("node_id", "node-1")
    hub = Hub(
        adjust(HubSettings(**settings)),
        bus=bus,
        locations=locations if locations is not None else MemoryLocationStore(),
        authenticator=tokens,
        sessions=sessions if sessions is not None else MemorySessionStore(),
        dedup=MemoryDedup(),
        file_store=file_store,
    )
    async with trio.open_nursery() as nursery:
        if own_bus:
            await nursery.start(bus.run)
        await nursery.start(hub.run)
        async with trio.open_nursery() as connections:
            world = World(connections, hub, tokens)
            listening = bus.subscribe(hub.upstream, world.heard, queue="logic-group") if logic else None
            yield world
            connections.cancel_scope.cancel()
        if listening is not None:
            listening.close()
        nursery.cancel_scope.cancel()
    assert hub.statistics() == {"connections": 0, "users": 0, "seats": 0, "open": 0, "addresses": 0}
    assert hub.metrics.connections == hub.metrics.sessions == 0
