"""A hub behind a real WebSocket port, and clients of bytes that speak its frames."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.protocol.messages import Message
from gateway.transports.doors import Doors
from gateway.transports.settings import TcpSettings, TlsSettings
from gateway.transports.settings_websocket import WebSocketSettings
from tests.support.peer import Peer as FramePeer
from tests.support.world import World, open_world
from tests.websocket.frames import close_body, frame
from tests.websocket.wire import Peer


class Messages(trio.abc.HalfCloseableStream):
    """A client's WebSocket as a stream of frames of ours; remembers the close code."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.code: int | None = None
        self.reason = ""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.peer.send(frame(bytes(data)))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        opcode = 10
        while opcode == 10:
            opcode, payload = await self.peer.frame()
        if opcode == 2:
            return payload
        assert opcode == 8
        self.code = int.from_bytes(payload[:2], "big")
        self.reason = payload[2:].decode()
        await self.peer.send(frame(close_body(self.code), 8))
        assert await self.peer.rest() == b""
        await self.aclose()
        return b""

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.peer.stream.aclose()
        self.peer.socket.close()


class Client(FramePeer):
    """Speaks messages over a WebSocket."""

    stream: Messages

    @property
    def raw(self) -> Peer:
        """For what no client would send."""
        return self.stream.peer

    async def closed_with(self) -> tuple[int | None, list[Message]]:
        """What was said until the node closed, and the code of its Close."""
        said = await self.closed()
        return self.stream.code, said


class Door:
    """One listening hub."""

    def __init__(self, world: World, port: int, tls: ssl.SSLContext | None) -> None:
        self.world = world
        self.port = port
        self._tls = tls
        self.sockets: list[trio.socket.SocketType] = []

    async def knock(self, window: int = 0) -> Peer:
        """Connected, not upgraded. `window` bounds what the client's system takes in unread."""
        sock = trio.socket.socket()
        self.sockets.append(sock)
        if window:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, window)
        await sock.connect(("127.0.0.1", self.port))
        stream = trio.SocketStream(sock)
        if self._tls is not None:
            secured = trio.SSLStream(stream, self._tls, server_hostname="localhost", https_compatible=True)
            return Peer(secured, stream.socket)
        return Peer(stream, stream.socket)

    async def connect(self, window: int = 0) -> Client:
        """Upgraded, not authenticated."""
        peer = await self.knock(window)
        assert (await peer.upgrade()).startswith(b"HTTP/1.1 101 ")
        return Client(Messages(peer))

    async def seated(self, user: int | str, device: str = "phone", window: int = 0) -> Client:
        """With a session."""
        client = await self.connect(window)
        await client.log_in(user, device)
        return client


@asynccontextmanager
async def open_door(
    *,
    websocket: WebSocketSettings | None = None,
    tls: tuple[TlsSettings, ssl.SSLContext] | None = None,
    **settings: Any,
) -> AsyncIterator[Door]:
    """Run a hub and its WebSocket listener; on leaving, no descriptor and no connection may be left."""
    before = len(os.listdir("/proc/self/fd"))
    inner = websocket or WebSocketSettings()
    inner = WebSocketSettings(
        **{name: getattr(inner, name) for name in inner.__struct_fields__}
        | {"port": 0, "tls": tls[0] if tls is not None else None}
    )
    with trio.fail_after(60):
        async with open_world(**settings) as world, trio.open_nursery() as nursery:
            doors = Doors(TcpSettings(enabled=False), inner, world.hub)
            addresses = await nursery.start(doors.run)
            door = Door(world, int(addresses["websocket"].rpartition(":")[2]), tls[1] if tls is not None else None)
            try:
                yield door
            finally:
                for sock in door.sockets:
                    sock.close()
            nursery.cancel_scope.cancel()
    assert len(os.listdir("/proc/self/fd")) == before
