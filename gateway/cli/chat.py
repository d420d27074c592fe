"""`chat`: the client's terminal chat, given the gateway's address and a token by this machine's configuration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import trio

from gateway.cli.banner import urls
from gateway.cli.failure import CommandFailed
from gateway.cli.token import make_token
from gateway.client.chat import ChatOptions
from gateway.client.chat import chat as talk
from gateway.client.token import TokenSource
from gateway.client.trust import Trust
from gateway.config import Config, load
from gateway.transports.quic.certificates import FILE_NAME, load_identity

TOKEN_VARIABLE = "CHAT_TOKEN"
"""Holds the token of whoever is no user of this machine's node; a flag would show in the list of processes."""
TTL = 3600.0
"""Seconds: a token is made anew for every login."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def chat(arguments: argparse.Namespace) -> int:
    """Talk until the end of input."""
    config = load(arguments.config, flags=arguments.flags, files=False).config
    urls, trust = arguments.url, _trust(arguments)
    if not urls:
        urls, pin = configured_urls(config)
        trust = trust or Trust(certificate_sha256=pin)
    options = ChatOptions(
        urls=urls,
        token=_token(arguments, config),
        user=arguments.user,
        to=arguments.to,
        group=arguments.group,
        device=arguments.device or "",
        data_dir=Path(config.data_dir),
        state=arguments.state,
        json=arguments.json,
        trust=trust,
    )
    return trio.run(talk, options)


def configured_urls(config: Config) -> tuple[list[str], tuple[str, ...]]:
    """Where the node with this configuration is reached from its own machine, best first, and its certificate's pin.

    The certificate that a node made for itself is found in its data directory; without it, and beside listeners with
    TLS of their own, which a pin would shut out, QUIC is left alone.

    Raises:
        CommandFailed: it listens nowhere that can be told beforehand.
    """
    addresses = {}
    for name in ("quic", "websocket", "tcp"):
        listener = getattr(config, name)
        if listener.enabled and listener.port:
            host = _WILDCARDS.get(listener.host, listener.host)
            addresses[name] = f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"
    pin: tuple[str, ...] = ()
    if "quic" in addresses and not config.quic.certificate:
        pin = () if config.tcp.tls or config.websocket.tls else _own_pin(config)
        if not pin:
            del addresses["quic"]
    if not addresses:
        raise CommandFailed("say where: --url tcp://127.0.0.1:PORT; the node chooses its port itself")
    found = urls(config, addresses)
    return [found[name] for name in addresses], pin


def _own_pin(config: Config) -> tuple[str, ...]:
    path = Path(config.data_dir) / FILE_NAME
    try:
        return (load_identity(path).fingerprint,) if path.exists() else ()
    except ValueError:  # nobody's business here: the node itself complains of it
        return ()


def _token(arguments: argparse.Namespace, config: Config) -> TokenSource:
    given: str = arguments.token or os.environ.get(TOKEN_VARIABLE, "")
    if given:
        return given
    make_token(config, arguments.user, ttl=TTL)  # so that what cannot be is told before anything is shown
    return lambda: make_token(config, arguments.user, ttl=TTL)


def _trust(arguments: argparse.Namespace) -> Trust | None:
    """What the flags say; None when they say nothing."""
    if not (arguments.ca or arguments.certificate or arguments.insecure):
        return None
    try:
        trust = Trust(
            ca_file=arguments.ca or "", certificate_sha256=tuple(arguments.certificate), insecure=arguments.insecure
        )
        trust.ssl_context()
    except OSError as error:
        raise CommandFailed(f"cannot use {arguments.ca!r}: {error.strerror or error}") from None
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    return trust
