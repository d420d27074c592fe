"""Both ends of one WebSocket without a node: a receiver that stands where a Connection would, and a peer of bytes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trustme

from gateway.core.link import LinkClosed
from gateway.transports.reactor import Reactor
from gateway.transports.settings import TlsSettings
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.tcp import TcpLink
from gateway.transports.tls import TlsLink, TlsServer, load_tls
from gateway.transports.websocket import WebSocketLink, WebSocketTerms
from tests.websocket.frames import close_body, frame
from tests.websocket.test_upgrade import request


class Seat:
    """Lives as a Connection does: attaches, opens, hears, says goodbye within two seconds, aborts."""

    def __init__(self, link: WebSocketLink) -> None:
        self.link = link
        self.data = b""
        self.lanes: list[int] = []
        self.code: int | None = None
        self.reason = ""
        self.gone: str | None = None
        self.refused: str | None = None
        self.answer: Callable[[int, bytes], object] | None = None
        self.opened = trio.Event()
        self.over = trio.Event()
        self._ending = trio.Event()
        self._news = trio.Event()

    def feed(self, lane: int, data: bytes) -> None:
        self.data += data
        self.lanes.append(lane)
        if self.answer is not None:
            self.answer(lane, data)
        self._tell()

    def close(self, code: int, reason: str = "") -> None:
        if self.code is None:
            self.code, self.reason = code, reason
            self._ending.set()

    def lost(self, reason: str = "") -> None:
        assert self.gone is None, "told once"
        self.gone = reason
        self._ending.set()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def wait_data(self, data: bytes) -> None:
        """Until exactly these bytes have come."""
        while self.data != data:
            assert data.startswith(self.data)
            await self._news.wait()

    async def run(self) -> None:
        try:
            self.link.attach(self)
            await self.link.open()
            self.opened.set()
            await self._ending.wait()
            if self.gone is None and self.code is not None:
                with trio.move_on_after(2):
                    await self.link.say_goodbye(self.code, self.reason)
        except LinkClosed as reason:
            self.refused = str(reason)
        finally:
            self.link.abort()
            self.over.set()


class Peer:
    """A client that writes bytes and reads frames."""

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> None:
        self.stream = stream
        self.socket = sock
        self._unread = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def upgrade(self, data: bytes = request()) -> bytes:
        """Ask, and return the response's head."""
        await self.send(data)
        return await self.until(b"\r\n\r\n")

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            self._unread += await self._some() or pytest_fail(f"ended after {self._unread!r}")
        found, _, self._unread = self._unread.partition(mark)
        return found + mark

    async def exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._unread += await self._some() or pytest_fail(f"ended after {self._unread!r}")
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. A server's frames are whole and not masked."""
        first, size = await self.exactly(2)
        if size >= 126:
            size = int.from_bytes(await self.exactly(2 if size == 126 else 8), "big")
        assert first & 0xF0 == 0x80
        return first & 0x0F, await self.exactly(size)

    async def rest(self) -> bytes:
        """Everything until the end."""
        data, self._unread = self._unread, b""
        while more := await self._some():
            data += more
        return data

    async def ended(self) -> None:
        """Expect the end and nothing before it, then end too."""
        assert await self.rest() == b""
        await self.stream.aclose()

    async def closed_with(self, code: int) -> str:
        """Expect a Close with this code, answer it, expect the end; returns the reason."""
        opcode, payload = await self.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (8, code), payload
        await self.send(frame(close_body(code), 8))
        await self.ended()
        return payload[2:].decode()

    async def _some(self) -> bytes:
        return bytes(await self.stream.receive_some(65_536))


def pytest_fail(message: str) -> bytes:
    raise AssertionError(message)


class Wire:
    """Makes connected pairs of a Seat and a Peer, with or without TLS."""

    def __init__(self, nursery: trio.Nursery, reactor: Reactor, tls: tuple[TlsServer, ssl.SSLContext] | None) -> None:
        self._nursery = nursery
        self._reactor = reactor
        self._tls = tls
        self.sockets: list[trio.socket.SocketType] = []

    async def connect(
        self, settings: WebSocketSettings | None = None, *, messages: bool = False, address: str = "192.0.2.1"
    ) -> tuple[Seat, Peer]:
        """A fresh pair, before the upgrade."""
        theirs, ours = await loopback_pair()
        self.sockets.append(theirs)
        terms = WebSocketTerms(settings or WebSocketSettings(), messages=messages)
        below = (
            TcpLink(self._reactor, ours, address)
            if self._tls is None
            else TlsLink(self._reactor, ours, address, self._tls[0])
        )
        seat = Seat(WebSocketLink(below, terms))
        self._nursery.start_soon(seat.run)
        stream: trio.abc.Stream = trio.SocketStream(theirs)
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls[1], server_hostname="localhost", https_compatible=True)
        return seat, Peer(stream, theirs)

    async def upgraded(self, settings: WebSocketSettings | None = None, *, messages: bool = False) -> tuple[Seat, Peer]:
        """A fresh pair, after the upgrade."""
        seat, peer = await self.connect(settings, messages=messages)
        assert (await peer.upgrade()).startswith(b"HTTP/1.1 101 ")
        await seat.opened.wait()
        return seat, peer


async def loopback_pair() -> tuple[trio.socket.SocketType, socket.socket]:
    """A client's socket and the server's, connected over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = trio.socket.socket()
        await client.connect(listener.getsockname())
        server, _ = listener.accept()
    server.setblocking(False)
    return client, server


def certificates(folder: Path) -> tuple[TlsServer, ssl.SSLContext]:
    """A server for `localhost`, and a client's context that trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return load_tls(TlsSettings(certificate=str(folder / "server.pem"))), client


@asynccontextmanager
async def open_wire(tls: tuple[TlsServer, ssl.SSLContext] | None = None) -> AsyncIterator[Wire]:
    """Run a reactor; on leaving, nothing of any link may be left."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            reactor = Reactor()
            await nursery.start(reactor.run)
            wire = Wire(nursery, reactor, tls)
            yield wire
            nursery.cancel_scope.cancel()
        for sock in wire.sockets:
            sock.close()
        assert reactor.statistics().registered == 0
        assert reactor.statistics().failures == 0
