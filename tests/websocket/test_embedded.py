"""A link over trio-websocket: both ends are that library's, over loopback, as an embedder would have it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, connect_websocket, serve_websocket

from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthResponse, ChatMessage, Heartbeat, MessageAck, encode
from gateway.transports import trio_websocket as embedded
from tests.support.peer import Peer
from tests.support.world import World, open_world


class Messages(trio.abc.HalfCloseableStream):
    """The client's end as a stream of frames."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.ws.send_message(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return bytes(await self.ws.get_message())
        except ConnectionClosed:
            return b""

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.ws.aclose()


class Host:
    """Somebody's own trio-websocket server that hands its connections to a hub."""

    def __init__(self, world: World, nursery: trio.Nursery, port: int) -> None:
        self.world = world
        self._nursery = nursery
        self._port = port
        self.sockets: list[WebSocketConnection] = []

    async def connect(self) -> tuple[Peer, WebSocketConnection]:
        ws = await connect_websocket(self._nursery, "127.0.0.1", self._port, "/", use_ssl=False)
        self.sockets.append(ws)
        return Peer(Messages(ws)), ws


@asynccontextmanager
async def open_host(**settings: Any) -> AsyncIterator[Host]:
    with trio.fail_after(20):
        async with open_world(**settings) as world, trio.open_nursery() as nursery:

            async def accept(request: WebSocketRequest) -> None:
                await embedded.serve_websocket(world.hub.serve, await request.accept())

            serve: Callable[..., Awaitable[Any]] = serve_websocket
            server = await nursery.start(serve, accept, "127.0.0.1", 0, None)
            host = Host(world, nursery, server.port)
            yield host
            for ws in host.sockets:
                await trio.aclose_forcefully(ws._stream)  # which the library leaves open when the server has closed
            nursery.cancel_scope.cancel()


async def test_messages_both_ways() -> None:
    async with open_host() as host:
        peer, ws = await host.connect()
        answer = await peer.log_in(1001)
        assert isinstance(answer, AuthResponse)
        connection = next(iter(host.world.hub.registry))
        assert (connection.link.transport, connection.link.address) == ("websocket", "127.0.0.1")
        await ws.send_message(b"")
        beat = encode(Heartbeat(), seq=5)
        await ws.send_message(beat[:3])
        await ws.send_message(beat[3:])
        await peer.receive(Heartbeat)
        for n in range(50):
            await peer.send(ChatMessage(msg_id=f"m-{n}", to_user=2, content="x" * 500))
        assert [(await peer.receive(MessageAck)).msg_id for _ in range(50)] == [f"m-{n}" for n in range(50)]
        await peer.hang_up()
        while len(host.world.hub.registry):
            await trio.sleep(0.001)


@pytest.mark.parametrize("cause", ["code", "text", "protocol"])
async def test_the_close_code_is_told(cause: str) -> None:
    async with open_host() as host:
        peer, ws = await host.connect()
        await peer.log_in(1001)
        if cause == "text":
            await ws.send_message("hello")
        elif cause == "protocol":
            await ws.send_message(b"\xff\xff\xff\xff\x00\x00")
        else:
            next(iter(host.world.hub.registry)).close(Code.KICKED_BY_ADMIN, "go")
        await peer.closed()
        assert ws.closed is not None
        assert ws.closed.code == {"text": 1003, "protocol": 4001, "code": 4202}[cause]


async def test_a_client_that_vanishes() -> None:
    async with open_host() as host:
        peer, ws = await host.connect()
        await peer.log_in(1001)
        await trio.aclose_forcefully(ws._stream)
        while len(host.world.hub.registry):
            await trio.sleep(0.001)


async def test_a_client_that_vanishes_while_it_is_being_closed() -> None:
    async with open_host() as host:
        peer, ws = await host.connect()
        await peer.log_in(1001)
        next(iter(host.world.hub.registry)).close(Code.KICKED_BY_ADMIN, "go")
        await trio.aclose_forcefully(ws._stream)
        while len(host.world.hub.registry):
            await trio.sleep(0.001)


async def test_the_embedder_cancels() -> None:
    async with open_host() as host:
        peer, _ = await host.connect()
        await peer.log_in(1001)
