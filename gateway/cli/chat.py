"""`chat`: the client's terminal chat, given the gateway's address and a token by this machine's configuration."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path

import trio

from gateway.cli.banner import urls
from gateway.cli.failure import CommandFailed
from gateway.cli.token import make_token
from gateway.client.chat import ChatOptions
from gateway.client.chat import chat as talk
from gateway.client.token import TokenSource
from gateway.config import Config, load

TOKEN_VARIABLE = "CHAT_TOKEN"
"""Holds the token of whoever is no user of this machine's node; a flag would show in the list of processes."""
TTL = 3600.0
"""Seconds: a token is made anew for every login."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def chat(arguments: argparse.Namespace) -> int:
    """Talk until the end of input."""
    config = load(arguments.config, flags=arguments.flags, files=False).config
    options = ChatOptions(
        url=arguments.url or configured_url(config),
        token=_token(arguments, config),
        user=arguments.user,
        to=arguments.to,
        group=arguments.group,
        device=arguments.device or "",
        data_dir=Path(config.data_dir),
        state=arguments.state,
        json=arguments.json,
        ssl_context=_trust(arguments.ca),
    )
    return trio.run(talk, options)


def configured_url(config: Config) -> str:
    """Where the node with this configuration is reached from its own machine.

    Raises:
        CommandFailed: it listens nowhere that can be told beforehand.
    """
    addresses = {}
    for name in ("tcp", "websocket"):
        listener = getattr(config, name)
        if listener.enabled and listener.port:
            host = _WILDCARDS.get(listener.host, listener.host)
            addresses[name] = f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"
    if not addresses:
        raise CommandFailed("say where: --url tcp://127.0.0.1:PORT; the node chooses its port itself")
    return next(iter(urls(config, addresses).values()))


def _token(arguments: argparse.Namespace, config: Config) -> TokenSource:
    given: str = arguments.token or os.environ.get(TOKEN_VARIABLE, "")
    if given:
        return given
    make_token(config, arguments.user, ttl=TTL)  # so that what cannot be is told before anything is shown
    return lambda: make_token(config, arguments.user, ttl=TTL)


def _trust(path: str | None) -> ssl.SSLContext | None:
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot use {path!r}: {getattr(error, 'strerror', None) or error}") from None
