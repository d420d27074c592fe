"""What all WebTransport sessions of one endpoint share: who may come, and how to ask all of them to leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakSet

from gateway.core.link import Link
from gateway.transports.quic.peer import PeerHandler, QuicPeer
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport.counts import WebTransportCounts
from gateway.transports.webtransport.link import WebTransportLink
from gateway.transports.webtransport.request import WebTransportRules

ALPN: Final = "h3"


class WebTransport:
    """Makes the handler of each connection with ALPN `h3`.

    Raises:
        ValueError: a path or an origin of the settings that is none.
    """

    def __init__(self, settings: WebTransportSettings, origins: Iterable[str] = ()) -> None:
        """`origins`: the WebSocket listener's, which count while the settings have none of their own."""
        self.rules = WebTransportRules(settings, origins)
        self.counts = WebTransportCounts()
        self._links: WeakSet[WebTransportLink] = WeakSet()

    def handler(self, serve: Callable[[Link], None]) -> Callable[[QuicPeer], PeerHandler]:
        """For an endpoint: what makes a connection's handler. `serve(link)` begins to serve and does not wait."""

        def begin(peer: QuicPeer) -> PeerHandler:
            link = WebTransportLink(peer, self.rules, serve, self.counts)
            self._links.add(link)
            link.http3.start()
            return link.http3

        return begin

    def allow_origins(self, origins: Iterable[str]) -> None:
        """Let pages of further origins open sessions, as the settings' may."""
        self.rules.allow(origins)

    def drain(self) -> None:
        """Ask every client to leave soon (DRAIN_SESSION). Frames still flow; who closes the rest is the core."""
        for link in [*self._links]:
            link.drain()
