"""The UDP port put together: certificate, endpoint, and who speaks what on it. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import trio

from gateway.core.books import Account
from gateway.core.limits import Admission
from gateway.core.link import Link
from gateway.transports.quic import link as raw
from gateway.transports.quic.certificates import open_certificates
from gateway.transports.quic.endpoint import QuicEndpoint
from gateway.transports.quic.keeping import quic_secret
from gateway.transports.quic.link import QuicLink
from gateway.transports.quic.peer import PeerHandler, QuicPeer
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport import transport as web
from gateway.transports.webtransport.transport import WebTransport


class QuicDoor:
    """Raw QUIC and WebTransport on one port.

    Raises:
        ValueError: settings that cannot be followed; one line that begins with the setting concerned.
    """

    def __init__(
        self,
        quic: QuicSettings,
        webtransport: WebTransportSettings,
        *,
        serve: Callable[[Link], Awaitable[None]],
        admission: Admission,
        data_dir: str | Path,
        origins: Iterable[str] = (),
    ) -> None:
        """`origins`: whose pages may open sessions, while the settings of WebTransport name none of their own."""
        self.certificates = open_certificates(quic.certificate, quic.key, data_dir)
        self.webtransport = WebTransport(webtransport, origins) if webtransport.enabled else None
        protocols: dict[str, Callable[[QuicPeer], PeerHandler]] = {raw.ALPN: self._raw}
        if self.webtransport is not None:
            protocols[web.ALPN] = self.webtransport.handler(self._serve_link)
        self.endpoint = QuicEndpoint(
            quic,
            protocols=protocols,
            serve=serve,
            admission=admission,
            certificates=self.certificates,
            secret=quic_secret(quic.secret, data_dir),
        )

    async def run(self, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; reports address and port.

        Raises:
            OSError: the address cannot be listened on.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.endpoint.run)
            nursery.start_soon(self.certificates.run)
            task_status.started((self.endpoint.address, self.endpoint.port))

    def close(self) -> None:
        """Take nobody more, and ask the pages that are connected to leave soon; connections stay."""
        self.endpoint.close()
        if self.webtransport is not None:
            self.webtransport.drain()

    def reload(self) -> None:
        """Read the certificate anew."""
        self.certificates.reload()

    def allow_origins(self, origins: Iterable[str]) -> None:
        """Let pages of further origins open sessions, as the settings' may."""
        if self.webtransport is not None:
            self.webtransport.allow_origins(origins)

    def books(self) -> list[Account]:
        """What came over HTTP/3, and what became of it."""
        return self.webtransport.counts.books() if self.webtransport is not None else []

    def _raw(self, peer: QuicPeer) -> PeerHandler:
        return QuicLink(peer, self._serve_link)

    def _serve_link(self, link: Link) -> None:
        self.endpoint.serve_link(link)
