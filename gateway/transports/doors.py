"""All listeners of a node: those for sockets on one reactor, and the UDP port."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import trio

from gateway.core.limits import Admission
from gateway.core.link import Link
from gateway.core.refusal import refusal_frame
from gateway.transports.listener import Listener
from gateway.transports.proxy_protocol import TrustedProxies
from gateway.transports.reactor import Reactor
from gateway.transports.settings import TcpSettings, TlsSettings
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.tcp import TcpLink
from gateway.transports.tls import TlsLink, TlsServer, load_tls
from gateway.transports.upgrade import unavailable
from gateway.transports.websocket import WebSocketLink, WebSocketTerms

if TYPE_CHECKING:
    from gateway.transports.quic.door import QuicDoor


class Host(Protocol):
    """Who takes the links: a Hub."""

    admission: Admission

    async def serve(self, link: Link) -> None:
        """Run one connection to its end."""


class Doors:
    """The ways in.

    Raises:
        ValueError: settings that cannot be followed (a certificate that cannot be read, a network that is none).
    """

    def __init__(
        self, tcp: TcpSettings, websocket: WebSocketSettings, host: Host, *, quic: QuicDoor | None = None
    ) -> None:
        self._quic = quic
        self._reactor = Reactor()
        self._host = host
        self._terms: WebSocketTerms | None = None
        self._listeners: list[Listener] = []
        self._secured: list[TlsServer] = []
        if tcp.enabled:
            self._listeners.append(self._tcp(tcp))
        if websocket.enabled:
            self._listeners.append(self._websocket(websocket))

    async def run(self, *, task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; reports `name: host:port` of each listener.

        Raises:
            OSError: an address cannot be listened on.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._reactor.run)
            for listener in self._listeners:
                await nursery.start(listener.run)
            addresses = {each.name: _printed(each.address, each.port) for each in self._listeners}
            if self._quic is not None:
                addresses["quic"] = _printed(*await nursery.start(self._quic.run))
            task_status.started(addresses)

    def allow_origins(self, origins: Iterable[str]) -> None:
        """Let pages of further origins connect, as the settings' may."""
        if self._terms is not None:
            self._terms.rules.allow(origins)
        if self._quic is not None:
            self._quic.allow_origins(origins)

    def reload(self) -> None:
        """Read the certificates anew, for handshakes that begin from now on."""
        for each in self._secured:
            each.reload()
        if self._quic is not None:
            self._quic.reload()

    async def close(self) -> None:
        """Accept nobody more; connections stay."""
        for listener in self._listeners:
            listener.close()
        if self._quic is not None:
            self._quic.close()
        await trio.lowlevel.checkpoint()

    def _tcp(self, settings: TcpSettings) -> Listener:
        tls = self._tls(settings.tls)
        return Listener(
            "tcp",
            settings.host,
            settings.port,
            link=lambda sock, address: self._below(sock, address, tls),
            serve=self._host.serve,
            admit=self._host.admission.admit,
            refusal=refusal_frame if tls is None else lambda _code: b"",
            trusted_proxies=TrustedProxies(settings.trusted_proxies) if settings.proxy_protocol else None,
            backlog=settings.backlog,
        )

    def _websocket(self, settings: WebSocketSettings) -> Listener:
        tls = self._tls(settings.tls)
        self._terms = terms = WebSocketTerms(settings)
        return Listener(
            "websocket",
            settings.host,
            settings.port,
            link=lambda sock, address: WebSocketLink(self._below(sock, address, tls), terms),
            serve=self._host.serve,
            admit=self._host.admission.admit,
            refusal=unavailable if tls is None else lambda _code: b"",
            backlog=settings.backlog,
        )

    def _tls(self, settings: TlsSettings | None) -> TlsServer | None:
        if settings is None:
            return None
        server = load_tls(settings)
        self._secured.append(server)
        return server

    def _below(self, sock: socket.socket, address: str, tls: TlsServer | None) -> TcpLink:
        if tls is None:
            return TcpLink(self._reactor, sock, address)
        return TlsLink(self._reactor, sock, address, tls)


def _printed(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
