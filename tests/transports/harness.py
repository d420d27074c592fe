"""Links over real loopback sockets, with a receiver that remembers. Shared by the tests of this folder."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trustme

from gateway.transports.reactor import Reactor
from gateway.transports.settings import TlsSettings
from gateway.transports.tcp import TcpLink
from gateway.transports.tls import TlsLink, TlsServer, load_tls

PATIENCE = 20.0
"""Seconds until a test is given up: far more than any needs on a busy machine."""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def reset(sock: socket.socket | trio.socket.SocketType) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass
class Ear:
    """A Receiver that remembers what it was told."""

    heard: bytearray = field(default_factory=bytearray)
    told: list[tuple[str, object]] = field(default_factory=list)
    on_feed: Callable[[bytes], object] | None = None
    _news: trio.Event = field(default_factory=trio.Event)

    def feed(self, lane: int, data: bytes) -> None:
        assert lane == 0
        assert data
        assert not self.told, "bytes after the end"
        self.heard += data
        self._tell()
        if self.on_feed is not None:
            self.on_feed(data)

    def close(self, code: int, reason: str = "") -> None:
        self.told.append(("close", code))
        self._tell()

    def lost(self, reason: str = "") -> None:
        self.told.append(("lost", reason))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, true: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                await self._news.wait()

    async def until_heard(self, data: bytes) -> None:
        await self.until(lambda: len(self.heard) >= len(data))
        assert self.heard == data

    async def until_told(self, what: str) -> object:
        await self.until(lambda: bool(self.told))
        assert [kind for kind, _ in self.told] == [what]
        return self.told[0][1]


@dataclass
class Certificates:
    """A server's side and a client's that trusts it."""

    server: TlsServer
    client: ssl.SSLContext
    settings: TlsSettings


@dataclass
class Pair:
    """A link that has been attached, and its peer's plain socket."""

    reactor: Reactor
    link: TcpLink
    ear: Ear
    peer: trio.SocketStream
    tls: Certificates | None

    async def up(self) -> trio.abc.Stream:
        """Bring both ends up; the peer's stream."""
        if self.tls is None:
            await self.link.open()
            return self.peer
        stream = trio.SSLStream(self.peer, self.tls.client, server_hostname="localhost", https_compatible=True)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.link.open)
                await stream.do_handshake()
        return stream


def connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback, non-blocking: ours and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


def link_around(sock: socket.socket, reactor: Reactor, tls: Certificates | None) -> TcpLink:
    if tls is None:
        return TcpLink(reactor, sock, "127.0.0.1")
    return TlsLink(reactor, sock, "127.0.0.1", tls.server)


@asynccontextmanager
async def running_reactor() -> AsyncIterator[Reactor]:
    reactor = Reactor()
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        yield reactor
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_pair(tls: Certificates | None = None) -> AsyncIterator[Pair]:
    """Fails if a descriptor is left behind."""
    before = descriptors()
    async with running_reactor() as reactor:
        ours, theirs = connected()
        link = link_around(ours, reactor, tls)
        ear = Ear()
        link.attach(ear)
        peer = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        try:
            yield Pair(reactor, link, ear, peer, tls)
        finally:
            link.abort()
            await trio.aclose_forcefully(peer)
        assert reactor.statistics().registered == 0
        assert reactor.statistics().failures == 0
    assert descriptors() == before


def certificates(folder: pytest.TempPathFactory) -> Certificates:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    pem = folder.mktemp("tls") / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    settings = TlsSettings(certificate=str(pem))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificates(load_tls(settings), client, settings)


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(PATIENCE):
        while len(data) < size:
            part = await stream.receive_some(65_536)
            assert part, f"end of file after {len(data)} of {size} bytes"
            data += part
    return data
