"""A real-time access gateway on Trio.

The rooms, from the bottom up; imports point down only:

    _framing, _websocket,  the hot path in Cython: frames, verification, building; WebSocket frames; from a
    _sockets, _clock       socket's readiness to its receiver; the time. Without them nothing works: told at once
    protocol               bytes and meaning: messages, codes, subjects
    core                   what a gateway is: Connection, Session, Outbox, Registry, Hub, and the ports
    backends               ports made real: memory; NATS and Redis on the one asyncio thread; JWT; files
    transports             links: TCP, TLS and WebSocket over the reactor; QUIC and WebTransport over the datagram pump
    logic, console         the reference Logic; HTTP for health, metrics and the chat page
    config, cluster,       put together: one machine by itself, or a node of several that meet on NATS and Redis
    node, cli
    backend                beside node: for a Logic of one's own in its own process
    client                 beside all of it, on protocol alone

Embedding: `async with gateway.open_node(config, on_message=...) as node: await nursery.start(node.run)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gateway._version import __version__ as __version__

try:
    import gateway._framing  # noqa: F401
except ImportError as error:
    raise ImportError(
        "gateway._framing, the compiled hot path, cannot be imported. In a source checkout build it with `make run` or "
        f"`python setup.py build_ext --inplace` (needs a C compiler). The cause: {error}"
    ) from error

if TYPE_CHECKING:
    from gateway.backends.settings import BusSettings as BusSettings
    from gateway.backends.settings import JwtSettings as JwtSettings
    from gateway.backends.settings import KeySettings as KeySettings
    from gateway.backends.settings_nats import NatsSettings as NatsSettings
    from gateway.backends.settings_nats import NatsTlsSettings as NatsTlsSettings
    from gateway.backends.settings_redis import RedisSettings as RedisSettings
    from gateway.backends.settings_redis import RedisTlsSettings as RedisTlsSettings
    from gateway.config import Config as Config
    from gateway.config import ConfigError as ConfigError
    from gateway.console.settings import ConsoleSettings as ConsoleSettings
    from gateway.core.ports import LoginPolicy as LoginPolicy
    from gateway.core.settings import DrainSettings as DrainSettings
    from gateway.core.settings import HeartbeatSettings as HeartbeatSettings
    from gateway.core.settings import LimitSettings as LimitSettings
    from gateway.core.settings import LoginSettings as LoginSettings
    from gateway.core.settings_files import FileSettings as FileSettings
    from gateway.logic.function import Incoming as Incoming
    from gateway.logic.function import Refused as Refused
    from gateway.logic.settings import LogicSettings as LogicSettings
    from gateway.logs.settings import LogSettings as LogSettings
    from gateway.node import Node as Node
    from gateway.node import open_node as open_node
    from gateway.transports.settings import TcpSettings as TcpSettings
    from gateway.transports.settings import TlsSettings as TlsSettings
    from gateway.transports.settings_quic import QuicSettings as QuicSettings
    from gateway.transports.settings_websocket import WebSocketSettings as WebSocketSettings
    from gateway.transports.settings_webtransport import WebTransportSettings as WebTransportSettings

_HOMES = {
    "BusSettings": "gateway.backends.settings",
    "Config": "gateway.config",
    "ConfigError": "gateway.config",
    "ConsoleSettings": "gateway.console.settings",
    "DrainSettings": "gateway.core.settings",
    "FileSettings": "gateway.core.settings_files",
    "HeartbeatSettings": "gateway.core.settings",
    "Incoming": "gateway.logic.function",
    "JwtSettings": "gateway.backends.settings",
    "KeySettings": "gateway.backends.settings",
    "LimitSettings": "gateway.core.settings",
    "LogSettings": "gateway.logs.settings",
    "LogicSettings": "gateway.logic.settings",
    "LoginPolicy": "gateway.core.ports",
    "LoginSettings": "gateway.core.settings",
    "NatsSettings": "gateway.backends.settings_nats",
    "NatsTlsSettings": "gateway.backends.settings_nats",
    "Node": "gateway.node",
    "QuicSettings": "gateway.transports.settings_quic",
    "RedisSettings": "gateway.backends.settings_redis",
    "RedisTlsSettings": "gateway.backends.settings_redis",
    "Refused": "gateway.logic.function",
    "TcpSettings": "gateway.transports.settings",
    "TlsSettings": "gateway.transports.settings",
    "WebSocketSettings": "gateway.transports.settings_websocket",
    "WebTransportSettings": "gateway.transports.settings_webtransport",
    "open_node": "gateway.node",
}
__all__ = [
    "BusSettings",
    "Config",
    "ConfigError",
    "ConsoleSettings",
    "DrainSettings",
    "FileSettings",
    "HeartbeatSettings",
    "Incoming",
    "JwtSettings",
    "KeySettings",
    "LimitSettings",
    "LogSettings",
    "LogicSettings",
    "LoginPolicy",
    "LoginSettings",
    "NatsSettings",
    "NatsTlsSettings",
    "Node",
    "QuicSettings",
    "RedisSettings",
    "RedisTlsSettings",
    "Refused",
    "TcpSettings",
    "TlsSettings",
    "WebSocketSettings",
    "WebTransportSettings",
    "__version__",
    "open_node",
]


if not TYPE_CHECKING:  # to a type checker the surface is exactly what stands above

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for: the client does not load the server."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'gateway' has no attribute {name!r}")
        return getattr(import_module(home), name)
