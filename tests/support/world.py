"""A Hub on memory backends and peers over memory streams, for tests in virtual time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from trio.testing import memory_stream_pair

from gateway._framing import DispatchTable, Frame, FrameDecoder, Upstream, parse_upstream
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.hub import Hub, HubSettings
from gateway.core.ports import AuthRefused, Credentials, Identity
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse, Message, decode, encode
from gateway.protocol.types import MsgType
from gateway.transports.stream import serve_stream

M = TypeVar("M")


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


class Peer:
    """The client's end of one connection: speaks frames, awaits frames."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.frames: list[Frame] = []
        self.ended = False
        self._seq = 0
        table = DispatchTable(lambda _, code, msg_type, seq: None)
        for kind in MsgType:
            table.on(kind, self._keep)
        self._decoder = FrameDecoder(table, 1 << 20)

    def _keep(self, _: Any, frame: Frame) -> None:
        self.frames.append(frame)

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send(self, message: Message, *, seq: int | None = None) -> int:
        """Send one message in a frame; returns its seq."""
        self._seq = self._seq + 1 if seq is None else seq
        await self.stream.send_all(encode(message, seq=self._seq, timestamp=1))
        return self._seq

    async def frame(self) -> Frame | None:
        """The next frame, or None when the node has ended the stream."""
        while not self.frames and not self.ended:
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
            self.ended = not data
            self._decoder.feed(None, bytes(data))
        return self.frames.pop(0) if self.frames else None

    async def receive(self, kind: type[M]) -> M:
        """The next message, which must be a `kind`."""
        frame = await self.frame()
        assert frame is not None, f"the node closed instead of sending {kind.__name__}"
        message = decode(frame)
        assert isinstance(message, kind), f"{message} came instead of {kind.__name__}"
        return message

    async def closed(self) -> list[Message]:
        """What was still said until the node closed."""
        said = []
        while (frame := await self.frame()) is not None:
            said.append(decode(frame))
        return said

    async def log_in(self, user: int | str, device: str = "phone", **fields: Any) -> AuthResponse:
        """Authenticate and expect success."""
        fields.setdefault("platform", "ios")
        await self.send(AuthRequest(token=str(user), device_id=device, **fields))
        answer = await self.receive(AuthResponse)
        assert answer.code == 0, answer
        return answer

    async def hang_up(self) -> None:
        await self.stream.aclose()


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
    locations: MemoryLocationStore | None = None,
    logic: bool = True,
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
