"""The servers of `benchmarks/echo.py`, each a process of its own on one core.

    python benchmarks/echo_servers.py NAME

Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from benchmarks.processes import on_core, until_told


def gateway() -> None:
    """A whole node. Tokens are taken at their word."""
    import trio

    from gateway import Config, open_node
    from gateway.console.settings import ConsoleSettings
    from gateway.core.ports import Credentials, Identity
    from gateway.transports.settings import TcpSettings
    from gateway.transports.settings_quic import QuicSettings
    from gateway.transports.settings_websocket import WebSocketSettings

    class Anybody:
        async def authenticate(self, credentials: Credentials) -> Identity:
            return Identity(user_id=int(credentials.token), expires_at=time.time() + 3600)

    async def main(data_dir: str) -> None:
        config = Config(
            data_dir=data_dir,
            tcp=TcpSettings(port=0),
            websocket=WebSocketSettings(enabled=False),
            quic=QuicSettings(enabled=False),
            console=ConsoleSettings(enabled=False),
        )
        async with open_node(config, authenticator=Anybody()) as node, trio.open_nursery() as nursery:
            await nursery.start(node.run)
            print(node.addresses["tcp"].rpartition(":")[2], flush=True)
            await trio.sleep_forever()

    with tempfile.TemporaryDirectory() as data_dir:
        trio.run(main, data_dir)


def link() -> None:
    """Our listener, reactor and link alone, echoing raw bytes: the transport's part of `gateway`."""
    import trio

    from gateway.core.link import Link
    from gateway.transports.listener import Listener
    from gateway.transports.reactor import Reactor
    from gateway.transports.tcp import TcpLink

    class Echo:
        def __init__(self, link: Link) -> None:
            self.link = link

        def feed(self, lane: int, data: bytes) -> None:
            self.link.send(data)  # False only when the load has gone: it reads what it is owed

        def close(self, code: int, reason: str = "") -> None:
            raise RuntimeError(f"{code} {reason}")

        def lost(self, reason: str = "") -> None:
            pass

    async def serve(link: Link) -> None:
        link.attach(Echo(link))
        await link.open()
        await trio.sleep_forever()

    async def main() -> None:
        reactor = Reactor()
        async with trio.open_nursery() as nursery:
            await nursery.start(reactor.run)
            listener = Listener("echo", "127.0.0.1", 0, link=lambda s, a: TcpLink(reactor, s, a), serve=serve)
            await nursery.start(listener.run)
            print(listener.port, flush=True)

    trio.run(main)


def plain_trio() -> None:
    """`trio.serve_tcp` with our framing: the same frames, the same answers, Trio's own way of doing sockets."""
    import trio

    from gateway._framing import DispatchTable, FrameDecoder
    from gateway.protocol.types import MsgType

    def refuse(_context: object, _code: int, _type: int, _seq: int) -> None:
        return None

    table = DispatchTable(refuse)
    table.echo(MsgType.HEARTBEAT)

    async def serve(stream: trio.SocketStream) -> None:
        decoder = FrameDecoder(table, 8192)
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(decoder.feed(None, bytes(data), time.time_ns() // 1_000_000))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            print(listeners[0].socket.getsockname()[1], flush=True)

    trio.run(main)


def uvloop() -> None:
    """A uvloop Protocol that echoes raw bytes: no framing, no session, nothing."""
    import asyncio

    import uvloop as loops

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    loops.run(main())


SERVERS = {"gateway": gateway, "link": link, "trio": plain_trio, "uvloop": uvloop}

if __name__ == "__main__":
    on_core(0)
    until_told()
    SERVERS[sys.argv[1]]()
