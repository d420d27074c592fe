"""What a person reads when a node has started: where it listens, and what to type next."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

from gateway._version import __version__
from gateway.backends.dev_keys import FILE_NAME
from gateway.config import Config


def banner(config: Config, addresses: Mapping[str, str], certificate_sha256: str = "") -> str:
    """The whole text. `addresses` are `host:port` by listener; `certificate_sha256` is the self-signed one's."""
    return "\n".join([*_lines(config, addresses, certificate_sha256)]) + "\n"


def _lines(config: Config, addresses: Mapping[str, str], certificate_sha256: str) -> Iterator[str]:
    yield f"trio-gateway {__version__}, node {config.node_id}"
    for name, url in urls(config, addresses).items():
        yield f"  {name:<12} {url}"
    if config.development:
        command = _command()
        where = "" if config.data_dir == Config().data_dir else f" --data-dir {quote(config.data_dir)}"
        tcp = urls(config, addresses).get("tcp", "")
        chat = where if tcp in ("", "tcp://127.0.0.1:9000") else f"{where} --url {tcp}"
        yield f"Development mode, for this machine only: tokens are signed with {Path(config.data_dir) / FILE_NAME}."
        if certificate_sha256:
            yield f"  certificate  {certificate_sha256} (SHA-256, self-signed, of QUIC and WebTransport)"
        if "websocket" in addresses and "console" in addresses:
            yield f"  a browser    {urls(config, addresses)['console']}"
        yield f"  a token      {command} token --user 1001{where}"
        yield f"  a chat       {command} chat --user 1001 --to 1002{chat}"
        yield f"               {command} chat --user 1002 --to 1001{chat}"
    yield "Ctrl-C drains and stops; twice stops at once."


def _command() -> str:
    """How to run this very program from here: its Python knows the packages, another one may not."""
    python = Path(sys.executable)
    here = Path.cwd()
    return f"{quote(str(python.relative_to(here) if python.is_relative_to(here) else python))} -m gateway"


def urls(config: Config, addresses: Mapping[str, str]) -> dict[str, str]:
    """What clients, browsers and operators would type, by listener."""
    found = {}
    if "tcp" in addresses:
        found["tcp"] = f"{'tcp' if config.tcp.tls is None else 'tls'}://{addresses['tcp']}"
    if "websocket" in addresses:
        scheme = "ws" if config.websocket.tls is None else "wss"
        found["websocket"] = f"{scheme}://{addresses['websocket']}{config.websocket.path}"
    if "quic" in addresses:
        found["quic"] = f"quic://{addresses['quic']}"
        if config.webtransport.enabled:
            found["webtransport"] = f"https://{addresses['quic']}{config.webtransport.path}"
    if "console" in addresses:
        found["console"] = f"http://{addresses['console']}/"
    return found
