"""A real node on loopback inside the test's own Trio run, peers over every link, and an innocent neighbour."""

from __future__ import annotations

import gc
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec
import trio
import trustme

from gateway.backends.dev_keys import development_key, issue_token
from gateway.client.dial import dialler
from gateway.client.endpoint import parse_url
from gateway.client.transport import Transport
from gateway.config import Config
from gateway.console.settings import ConsoleSettings
from gateway.logic.function import OnMessage
from gateway.node import Node, open_node
from gateway.protocol.types import Lane
from gateway.transports.settings import TcpSettings, TlsSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings
from tests.support.peer import Peer
from tests.support.quic_peer import QuicClient, start_quic
from tests.support.webtransport_peer import Session, start_session

LinkKind = Literal["tcp", "tcps", "ws", "wss", "quic", "https"]
SOCKET_LINKS: tuple[LinkKind, ...] = ("tcp", "tcps", "ws", "wss")
"""Those of the reactor: each is a socket of its own, which `raw` opens."""
LINKS: tuple[LinkKind, ...] = (*SOCKET_LINKS, "quic", "https")
PATIENCE = 30.0
"""Seconds until a wait is given up: far more than any needs on a busy machine."""


@cache
def _authority() -> tuple[trustme.CA, TemporaryDirectory[str], str]:
    folder = TemporaryDirectory(prefix="gateway-tls-")
    authority = trustme.CA()
    pem = str(Path(folder.name) / "server.pem")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(str(Path(folder.name) / "ca.pem"))
    return authority, folder, pem


def server_tls() -> TlsSettings:
    """A certificate for 127.0.0.1."""
    return TlsSettings(certificate=_authority()[2])


@cache
def client_tls() -> ssl.SSLContext:
    """Trusts it, and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _authority()[0].configure_trust(context)
    return context


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


class RunningNode:
    """A node that listens, and ways to reach it."""

    def __init__(self, node: Node, kind: LinkKind, nursery: trio.Nursery) -> None:
        self.node = node
        self.hub = node.hub
        self.kind = kind
        self._nursery = nursery
        self._opened: list[Transport | trio.SocketStream] = []
        self._quic: list[QuicClient] = []
        self._key = development_key(node.config.data_dir)

    @property
    def url(self) -> str:
        """Where clients connect."""
        name, path = ("tcp", "") if self.kind.startswith("tcp") else ("websocket", "/ws")
        if self.kind in ("quic", "https"):
            name, path = "quic", "/im" if self.kind == "https" else ""
        return f"{self.kind}://{self.node.addresses[name]}{path}"

    def token(self, user: int, **claims: Any) -> str:
        """A development token."""
        return issue_token(self._key, user, **claims)

    async def raw(self) -> trio.SocketStream:
        """A bare TCP connection, nothing sent."""
        endpoint = parse_url(self.url)
        stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        self._opened.append(stream)
        return stream

    async def transport(self) -> Transport:
        """A link that is up."""
        with trio.fail_after(PATIENCE):
            transport = await dialler(client_tls())(parse_url(self.url), self._nursery)
        self._opened.append(transport)
        return transport

    async def connect(self) -> Peer:
        """A link that is up, not authenticated. On QUIC and WebTransport it has a control lane only."""
        if self.kind == "quic":
            return Peer((await self.quic()).open(Lane.CONTROL))
        if self.kind == "https":
            return Peer((await self.webtransport()).open(Lane.CONTROL))
        return Peer(await self.transport())

    async def deaf(self, user: int) -> Peer:
        """A connection with a session whose client will never read. On QUIC such a client gives no credit."""
        if self.kind == "https":
            peer = Peer((await self.webtransport(stingy=True, max_stream_data=16_384)).open(Lane.CONTROL))
        elif self.kind == "quic":
            peer = Peer((await self.quic(stingy=True, max_stream_data=16_384)).open(Lane.CONTROL))
        else:
            return await self.seated(user)
        with trio.fail_after(PATIENCE):
            await peer.log_in(self.token(user))
        return peer

    async def quic(self, **settings: Any) -> QuicClient:
        """A QUIC connection without any stream; `settings` are of `start_quic`."""
        settings = {"authority": _authority()[1].name + "/ca.pem", **settings}
        client = await start_quic(self._nursery, self.node.addresses["quic"], **settings)
        self._quic.append(client)
        return client

    async def webtransport(self, **settings: Any) -> Session:
        """A session without any stream; `settings` are of `start_quic`."""
        return await start_session(await self.quic(alpn="h3", **settings))

    async def seated(self, user: int, device: str = "phone", **fields: Any) -> Peer:
        """A connection with a session."""
        peer = await self.connect()
        with trio.fail_after(PATIENCE):
            await peer.log_in(self.token(user), device, **fields)
        return peer

    async def free(self) -> None:
        """Close every link that a test left open, without a word; on QUIC there is none without."""
        for client in self._quic:
            if client.closed is None:
                client.close(0)
        for each in self._opened:
            with trio.CancelScope() as scope:
                scope.cancel()
                await each.aclose()

    async def empty(self, but: int = 0) -> None:
        """Wait until no more than `but` connections are left."""
        with trio.fail_after(PATIENCE):
            while self.hub.admission.open > but:
                await trio.sleep(0.01)


class Neighbour:
    """An innocent connection beside the attack: never closed, always answered."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.answered = 0
        self.longest = 0.0

    async def live(self) -> None:
        """Beat until cancelled; fails when an answer does not come."""
        while True:
            await trio.sleep(0.02)
            before = trio.current_time()
            await self._peer.send_bytes(b"\0\0\0\0\0\0")
            with trio.fail_after(PATIENCE):
                frame = await self._peer.frame()
            assert frame is not None, "the innocent neighbour was closed"
            self.answered += 1
            self.longest = max(self.longest, trio.current_time() - before)


@asynccontextmanager
async def neighbour(running: RunningNode) -> AsyncIterator[Neighbour]:
    """Live beside the block; at its end it must still be served."""
    peer = await running.seated(999_999, "neighbour")
    innocent = Neighbour(peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(innocent.live)
        yield innocent
        answered = innocent.answered
        with trio.fail_after(PATIENCE):
            while innocent.answered < answered + 2:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    await peer.hang_up()


def test_config(data_dir: Path, kind: LinkKind, **sections: Any) -> Config:
    """Every port chosen by the system; `sections` replaces whole sections, or single settings of `tcp`, `websocket` and
    `quic`."""
    tls = server_tls() if kind in ("tcps", "wss") else None
    tcp = TcpSettings(port=0, tls=tls if kind == "tcps" else None, enabled=kind.startswith("tcp"))
    websocket = WebSocketSettings(port=0, tls=tls if kind == "wss" else None, enabled=kind.startswith("ws"))
    quic = QuicSettings(port=0, certificate=_authority()[2], enabled=kind in ("quic", "https"))
    if isinstance(sections.get("quic"), dict):
        quic = msgspec.structs.replace(quic, **sections.pop("quic"))
    if isinstance(sections.get("tcp"), dict):
        tcp = msgspec.structs.replace(tcp, **sections.pop("tcp"))
    if isinstance(sections.get("websocket"), dict):
        websocket = msgspec.structs.replace(websocket, **sections.pop("websocket"))
    console = ConsoleSettings(enabled=False)
    fields: dict[str, Any] = {"tcp": tcp, "websocket": websocket, "quic": quic, "console": console, **sections}
    return Config(data_dir=str(data_dir), **fields)


test_config.__test__ = False  # type: ignore[attr-defined]


@asynccontextmanager
async def open_running(
    data_dir: Path, kind: LinkKind = "tcp", *, on_message: OnMessage | None = None, **sections: Any
) -> AsyncIterator[RunningNode]:
    """Run a node; afterwards descriptors, sessions and locations must be back where they were."""
    _authority()
    gc.collect()
    before = descriptors()
    async with open_node(test_config(data_dir, kind, **sections), on_message=on_message) as node:
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            async with trio.open_nursery() as links:
                running = RunningNode(node, kind, links)
                try:
                    yield running
                finally:
                    await running.free()
                links.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        left = node.hub.statistics()
    assert left == {"connections": 0, "users": 0, "seats": 0, "open": 0, "addresses": 0}
    with trio.CancelScope(shield=True):
        for _ in range(100):
            gc.collect()
            if descriptors() <= before:
                break
            await trio.sleep(0.02)
    assert descriptors() <= before, "descriptors were left open"
