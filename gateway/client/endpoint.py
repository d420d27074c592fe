"""Where a server is: a URL taken apart, and which of those a GoAway names may be followed."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from gateway.client.errors import UnsupportedTransport

DEFAULT_PORTS = {"quic": 8443, "https": 443, "tcp": 9000, "tcps": 9000, "ws": 80, "wss": 443}
ALIASES = {"tls": "tcps"}
SECURE = frozenset({"quic", "https", "tcps", "wss"})
TRANSPORTS = {
    "quic": "quic",
    "https": "webtransport",
    "wss": "websocket",
    "ws": "websocket",
    "tcps": "tcp",
    "tcp": "tcp",
}
NAMES = {
    "quic": "QUIC",
    "https": "WebTransport",
    "wss": "WebSocket, TLS",
    "ws": "WebSocket",
    "tcps": "TCP, TLS",
    "tcp": "TCP",
}
"""For people."""
PATHS = {"ws": "/ws", "wss": "/ws", "https": "/im"}
"""The path that is meant when none is given; other schemes have none."""
SUPPORTED = (
    "quic://host:port, https://host:port/im, tcp://host:port, tcps://host:port, ws://host:port/ws, wss://host:port/ws"
)


class Endpoint(msgspec.Struct, frozen=True):
    """One address of a server."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def secure(self) -> bool:
        """Whether the link is encrypted and the server's name verified."""
        return self.scheme in SECURE

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, normalised."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(url: str) -> Endpoint:
    """Take a URL apart.

    Raises:
        UnsupportedTransport: no URL, or a scheme that this client does not speak.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnsupportedTransport(f"{url!r} is not a URL: {error}") from None
    scheme = ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in DEFAULT_PORTS:
        known = f"scheme {scheme!r} is not supported" if scheme and parts.netloc else "not a URL of a gateway"
        raise UnsupportedTransport(f"{url!r}: {known}; supported are {SUPPORTED}")
    if not parts.hostname:
        raise UnsupportedTransport(f"{url!r} names no host; supported are {SUPPORTED}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UnsupportedTransport(f"{scheme}://{parts.hostname}: user, password and fragment have no meaning here")
    path = ""
    if scheme in PATHS:
        path = (parts.path or PATHS[scheme]) + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or not path.isprintable() or " " in path:
            raise UnsupportedTransport(f"{url!r}: the path must be percent-encoded")
    elif parts.path not in ("", "/") or parts.query:
        raise UnsupportedTransport(f"{url!r}: a {scheme} address has no path")
    if port == 0:
        raise UnsupportedTransport(f"{url!r}: port 0 cannot be connected to")
    return Endpoint(scheme, parts.hostname, DEFAULT_PORTS[scheme] if port is None else port, path)


def parse_urls(urls: str | Sequence[str]) -> tuple[Endpoint, ...]:
    """One URL or several, in their order, each once.

    Raises:
        UnsupportedTransport: none at all, or one that `parse_url` refuses.
    """
    endpoints = tuple(dict.fromkeys(map(parse_url, [urls] if isinstance(urls, str) else urls)))
    if not endpoints:
        raise UnsupportedTransport(f"no URL was given; supported are {SUPPORTED}")
    return endpoints


def told_endpoints(origin: Endpoint, told: Sequence[str]) -> list[Endpoint]:
    """Those of a GoAway's endpoints that this client may follow, in their order.

    `host:port` alone means the origin's scheme and path. What it cannot speak is left out, and so is plain
    text where the program asked for TLS: the token would travel readable.
    """
    followed = []
    for text in told[:16]:
        full = text if "://" in text else f"{origin.scheme}://{text}{origin.path}"
        try:
            endpoint = parse_url(full)
        except UnsupportedTransport:
            continue
        if (endpoint.secure or not origin.secure) and endpoint not in followed:
            followed.append(endpoint)
    return followed
