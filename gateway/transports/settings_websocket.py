"""What an operator may turn in the WebSocket transport. `config` composes it; every field says its unit and reason."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.core.settings import Count, Port, Settings
from gateway.transports.settings import TlsSettings


class WebSocketSettings(Settings, frozen=True):
    """Frames over WebSocket, for browsers and whoever passes proxies."""

    enabled: bool = True
    """Whether to listen at all."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for every interface. A name stands for its first address."""
    port: Port = 8080
    """Port to listen on; 0 lets the system choose."""
    path: Annotated[str, Meta(pattern=r"^/[^\s?#]*$")] = "/ws"
    """The one path that is upgraded; every other is 404."""
    backlog: Count = 1024
    """Connections that the kernel holds until they are accepted; the kernel caps it at net.core.somaxconn."""
    tls: TlsSettings | None = None
    """TLS (`wss`); without it everything, tokens included, is readable on the way."""
    origins: tuple[str, ...] = ()
    """Origins whose pages may connect (`https://chat.example.org`, with the port unless it is the scheme's own).
    Any other `Origin`, `null` too, is 403; a client that sends none is no browser and may pass."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (`10.0.0.0/8`, `192.0.2.7`) of our own proxies, whose `X-Forwarded-For` is believed."""
    max_message: Count = 1_048_576
    """Largest WebSocket message in bytes, over all its fragments; larger closes with 1009. Not the limit of a frame of
    ours (`limits.max_frame`): a message may hold many of those, and is never gathered."""
    max_fragments: Count = 64
    """Most fragments of one message; more closes with 1009."""
    ping_rate: Annotated[float, Meta(gt=0, le=10_000)] = 10.0
    """Pings and pongs per second that one client may send."""
    ping_burst: Count = 32
    """Pings and pongs that a client may send at once after silence; one more closes with 1008."""
