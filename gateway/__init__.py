"""A real-time access gateway on Trio.

The rooms, from the bottom up; imports point down only:

    _framing, _websocket,  the hot path in Cython: frames, verification, building; WebSocket frames; from a
    _sockets, _clock       socket's readiness to its receiver; the time. Without them nothing works: told at once
    protocol               bytes and meaning: messages, codes, subjects
    core                   what a gateway is: Connection, Session, Outbox, Registry, Hub, and the ports
    backends               ports made real: memory, JWT
    transports             links over sockets: reactor, TCP, TLS, WebSocket
    logic, console         the reference Logic; HTTP for health, metrics and the chat page
    config, node, cli      put together; `client` stands beside them, on protocol alone
    backend                beside node: for a Logic of one's own in its own process

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
    from gateway.config import Config as Config
    from gateway.config import ConfigError as ConfigError
    from gateway.logic.function import Incoming as Incoming
    from gateway.logic.function import Refused as Refused
    from gateway.node import Node as Node
    from gateway.node import open_node as open_node

_HOMES = {
    "Config": "gateway.config",
    "ConfigError": "gateway.config",
    "Incoming": "gateway.logic.function",
    "Node": "gateway.node",
    "Refused": "gateway.logic.function",
    "open_node": "gateway.node",
}
__all__ = ["Config", "ConfigError", "Incoming", "Node", "Refused", "__version__", "open_node"]


if not TYPE_CHECKING:  # to a type checker the surface is exactly what stands above

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for: the client does not load the server."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'gateway' has no attribute {name!r}")
        return getattr(import_module(home), name)
