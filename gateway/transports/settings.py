"""What an operator may turn in the socket transports. `config` composes these; every field says its unit and reason."""

from __future__ import annotations

from typing import Literal

from gateway.core.settings import Count, Port, Settings


class TlsSettings(Settings, frozen=True):
    """TLS of one listener. Old versions are refused, renegotiation does not exist."""

    certificate: str
    """PEM file: the server's certificate, then its intermediates."""
    key: str = ""
    """PEM file of the private key, not encrypted; empty when it stands in the certificate's file."""
    minimum_version: Literal["1.2", "1.3"] = "1.3"
    """Oldest TLS version spoken. 1.2 only for clients that cannot be renewed."""


class TcpSettings(Settings, frozen=True):
    """Frames over a plain byte stream."""

    enabled: bool = True
    """Whether to listen at all."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for every interface. A name stands for its first address."""
    port: Port = 9000
    """Port to listen on; 0 lets the system choose."""
    backlog: Count = 1024
    """Connections that the kernel holds until they are accepted; the kernel caps it at net.core.somaxconn."""
    tls: TlsSettings | None = None
    """TLS; without it everything, tokens included, is readable on the way."""
    proxy_protocol: bool = False
    """Whether `trusted_proxies` put a PROXY protocol v2 header in front that names the client's address."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (`10.0.0.0/8`, `192.0.2.7`) whose header is required and believed. Others are served as they come."""
