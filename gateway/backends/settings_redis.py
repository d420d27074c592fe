"""What an operator may turn about Redis. Settings only; nothing is opened here."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.core.settings import Port, Seconds, Secret, Settings


class RedisTlsSettings(Settings, frozen=True):
    """TLS towards Redis. The server's certificate is always checked, its name included."""

    ca: str = ""
    """PEM file of who may have signed the server's certificate; empty for the system's authorities."""
    certificate: str = ""
    """PEM file of our own certificate, for a server that asks for one."""
    key: str = ""
    """PEM file of its private key; empty when it stands in the certificate's file."""


class RedisSettings(Settings, frozen=True):
    """Where locations are kept for all nodes together: Redis 6.2 or newer, or Valkey. Without this section they are
    kept in the process, which is enough for one node."""

    url: Secret = ""
    """`redis://user:password@host:port/db`, or `rediss://` for TLS, instead of the five settings below."""
    host: str = "127.0.0.1"
    """Host name or address of the server."""
    port: Port = 6379
    """Port that the server listens on."""
    user: str = ""
    """ACL user; empty for the default user."""
    password: Secret = ""
    """Password of that user."""
    db: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """Number of the database."""
    tls: RedisTlsSettings | None = None
    """TLS; without it, and without `rediss://`, the password is readable on the way."""
    sentinels: tuple[str, ...] = ()
    """`host:port` of the Sentinels that know which server is the master, instead of `host` and `port`."""
    master: str = "mymaster"
    """Name of the master among the Sentinels."""
    sentinel_user: str = ""
    """ACL user at the Sentinels."""
    sentinel_password: Secret = ""
    """Password at the Sentinels."""
    cluster: tuple[str, ...] = ()
    """`host:port` of some servers of a Redis Cluster, instead of `host` and `port`; they tell of the others. `user`,
    `password` and `tls` are the same for all of them."""
    prefix: str = "im"
    """First part of every key."""
    timeout: Seconds = 1.0
    """Seconds that one operation may take in all; then the store counts as away."""
