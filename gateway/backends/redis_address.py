"""Whom to connect to, from the settings: a URL or its parts, Sentinels, a cluster. Nothing is opened here."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.backends.settings_redis import RedisSettings, RedisTlsSettings

PORT: Final = 6379
SENTINEL_PORT: Final = 26379


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One server, and how to present oneself there."""

    host: str
    port: int
    user: str
    password: str
    db: int
    tls: bool

    def __repr__(self) -> str:
        return f"RedisAddress({self.host}:{self.port}/{self.db})"  # never the password


def redis_address(settings: RedisSettings) -> RedisAddress:
    """What the settings name.

    Raises:
        ValueError: `url` is no Redis URL; the text never shows it, since it holds the password.
    """
    if not settings.url:
        return RedisAddress(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password,
            db=settings.db,
            tls=settings.tls is not None,
        )
    try:
        parts = urlsplit(settings.url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError("must be like redis://user:password@host:6379/0") from None
    path = parts.path.strip("/")
    if parts.scheme not in ("redis", "rediss") or not host or (path and not (path.isascii() and path.isdecimal())):
        raise ValueError("must be like redis://user:password@host:6379/0, or rediss:// for TLS")
    if parts.query or parts.fragment:
        raise ValueError("must have nothing after the database: other settings have fields of their own")
    return RedisAddress(
        host=host,
        port=PORT if port is None else port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        db=int(path or 0),
        tls=parts.scheme == "rediss" or settings.tls is not None,
    )


def sentinel_address(text: str) -> tuple[str, int]:
    """`host:port` or `host` of a Sentinel, IPv6 in brackets.

    Raises:
        ValueError: it is neither.
    """
    return _pair(text, SENTINEL_PORT)


def cluster_address(text: str) -> tuple[str, int]:
    """The same of a server of a Redis Cluster.

    Raises:
        ValueError: it is neither.
    """
    return _pair(text, PORT)


def _pair(text: str, usual: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port, host = parts.port, parts.hostname
    except ValueError:
        host = port = None
    if not host or "@" in text or "/" in text:
        raise ValueError(f"must hold addresses like 10.0.0.1:{usual}, not {text[:80]!r}")
    return host, usual if port is None else port


def load_redis_tls(settings: RedisTlsSettings) -> ssl.SSLContext:
    """What the files of the settings give.

    Raises:
        ValueError: which of them cannot be used, and why.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except OSError as error:  # SSLError is one
        raise ValueError(f"ca {settings.ca!r} cannot be used: {error}") from None
    if settings.certificate or settings.key:
        try:
            context.load_cert_chain(settings.certificate, settings.key or None)
        except OSError as error:
            raise ValueError(f"certificate {settings.certificate!r} or its key cannot be used: {error}") from None
    return context
