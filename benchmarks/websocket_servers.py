"""The servers of `benchmarks/websocket.py`, each a process of its own on one core.

    python benchmarks/websocket_servers.py NAME

Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import logging
import socket
import sys
import tempfile
import time

from benchmarks.processes import on_core, until_told

PATH = "/ws"


def listening() -> socket.socket:
    """A listening socket, already announced."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setblocking(False)
    print(sock.getsockname()[1], flush=True)
    return sock


def gateway() -> None:
    """A whole node: tokens are taken at their word, rates are out of the way, somebody listens on the bus."""
    import trio

    from gateway import Config, open_node
    from gateway.backends.memory import MemoryBus
    from gateway.console.settings import ConsoleSettings
    from gateway.core.ports import Credentials, Identity
    from gateway.core.settings import LimitSettings
    from gateway.transports.settings import TcpSettings
    from gateway.transports.settings_quic import QuicSettings
    from gateway.transports.settings_websocket import WebSocketSettings

    class Anybody:
        async def authenticate(self, credentials: Credentials) -> Identity:
            return Identity(user_id=int(credentials.token), expires_at=time.time() + 3600)

    async def main(data_dir: str) -> None:
        config = Config(
            data_dir=data_dir,
            tcp=TcpSettings(enabled=False),
            websocket=WebSocketSettings(port=0),
            quic=QuicSettings(enabled=False),
            console=ConsoleSettings(enabled=False),
            limits=LimitSettings(message_rate=1e9, message_burst=1_000_000_000),
        )
        bus = MemoryBus()
        async with open_node(config, bus=bus, authenticator=Anybody()) as node, trio.open_nursery() as nursery:
            await nursery.start(node.run)
            bus.subscribe(node.hub.upstream, lambda _subject, _payload: None, queue="logic-group")
            print(node.addresses["websocket"].rpartition(":")[2], flush=True)
            await trio.sleep_forever()

    with tempfile.TemporaryDirectory() as data_dir:
        trio.run(main, data_dir)


def link() -> None:
    """Our listener, reactor and link alone, echoing."""
    import trio

    from gateway.core.link import Link
    from gateway.protocol.websocket import server_header
    from gateway.transports.listener import Listener
    from gateway.transports.reactor import Reactor
    from gateway.transports.settings_websocket import WebSocketSettings
    from gateway.transports.tcp import TcpLink
    from gateway.transports.websocket import WebSocketLink, WebSocketTerms

    class Echo:
        def __init__(self, link: Link) -> None:
            self.link = link

        def feed(self, lane: int, data: bytes) -> None:
            if not self.link.send(server_header(len(data)) + data):
                raise RuntimeError("the load does not read")

        def close(self, code: int, reason: str = "") -> None:
            raise RuntimeError(f"{code} {reason}")

        def lost(self, reason: str = "") -> None:
            pass

    async def serve(link: Link) -> None:
        link.attach(Echo(link))
        await link.open()
        await trio.sleep_forever()

    async def main() -> None:
        reactor, terms = Reactor(), WebSocketTerms(WebSocketSettings())
        async with trio.open_nursery() as nursery:
            await nursery.start(reactor.run)
            listener = Listener(
                "echo", "127.0.0.1", 0, link=lambda s, a: WebSocketLink(TcpLink(reactor, s, a), terms), serve=serve
            )
            await nursery.start(listener.run)
            print(listener.port, flush=True)

    trio.run(main)


def picows() -> None:
    """picows on uvloop, as its documentation does it."""

    import uvloop
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    class Echo(WSListener):  # type: ignore[misc]
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    def listener(_request: WSUpgradeRequest) -> WSListener:
        return Echo()

    async def main() -> None:
        server = await ws_create_server(listener, sock=listening())
        await server.serve_forever()

    uvloop.run(main())


def aiohttp() -> None:
    """aiohttp on uvloop, without compression."""
    import uvloop
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get(PATH, echo)
    web.run_app(app, sock=listening(), print=None, loop=uvloop.new_event_loop())


def websockets() -> None:
    """websockets on uvloop, without compression."""
    import uvloop
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async def main() -> None:
        async with serve(echo, sock=listening(), compression=None) as server:
            await server.serve_forever()

    uvloop.run(main())


def trio_websocket() -> None:
    """trio-websocket."""
    import trio
    from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

    async def echo(request: WebSocketRequest) -> None:
        ws = await request.accept()
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_websocket, echo, "127.0.0.1", 0, None)
            print(server.port, flush=True)

    trio.run(main)


SERVERS = {
    "gateway": gateway,
    "link": link,
    "picows": picows,
    "aiohttp": aiohttp,
    "websockets": websockets,
    "trio-websocket": trio_websocket,
}

if __name__ == "__main__":
    on_core(0)
    until_told()
    logging.disable()  # some complain loudly about clients that leave without a word
    SERVERS[sys.argv[1]]()
