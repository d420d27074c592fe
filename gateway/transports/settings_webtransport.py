"""What an operator may turn in the WebTransport transport. `config` composes it; every field says its unit and reason.

Where it listens and how its QUIC behaves is in section `quic`: both share one UDP port.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.core.settings import Settings


class WebTransportSettings(Settings, frozen=True):
    """Lanes over WebTransport (HTTP/3), for browsers, on the UDP port of section `quic`."""

    enabled: bool = True
    """Whether HTTP/3 is spoken on the QUIC port at all."""
    path: Annotated[str, Meta(pattern=r"^/[^\s?#]*$")] = "/im"
    """The one path where sessions are opened; every other is 404."""
    origins: tuple[str, ...] = ()
    """Origins whose pages may connect (`https://chat.example.org`, with the port unless it is the scheme's own);
    empty: those of `websocket.origins`. Any other `Origin`, `null` too, is 403; a client that sends none is no browser
    and may pass."""
