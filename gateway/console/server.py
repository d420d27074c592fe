"""The HTTP server of the console: Hypercorn's connection handling on Trio, behind an accept loop of our own.

Hypercorn's own `serve` lets one connection's exception end all, waits in shielded sends for peers that never read, and
has no bound on connections. Here a connection's fault is its own, its time is bounded, and cancelling ends it at once.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from gateway.console.app import Console, Page, Provider
from gateway.console.settings import ConsoleSettings

log = logging.getLogger("gateway.console")

MOST_CONNECTIONS = 64
"""At once; operators and scrapers need a handful, and descriptors belong to clients."""
LONGEST_CONNECTION = 60.0
"""Seconds that one connection may last, idle or not: nobody can hold a place by being slow."""
LAST_ANSWER = 0.5
"""Seconds that a client which has said its last may still wait for an answer."""
LONGEST_REQUEST = 8_192
"""Bytes of a request's head."""


async def serve_console(
    settings: ConsoleSettings,
    provider: Provider,
    *,
    page: Callable[[int], Page] | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP until cancelled; `started` with the address as `host:port`.

    Args:
        settings: Where to listen, and the token.
        provider: What is shown.
        page: Builds what answers for paths of its own, given the port that is listened on.
        task_status: Told once requests are answered.

    Raises:
        OSError: the address cannot be listened on; says which and why.
    """
    listener = await _listen(settings.host, settings.port)
    async with listener:
        host, port = listener.socket.getsockname()[:2]
        console = Console(provider, token=settings.token, page=page(port) if page is not None else None)
        connection = _Connections(console)
        async with trio.open_nursery() as nursery:
            task_status.started(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            await trio.serve_listeners(connection.serve, [listener], handler_nursery=nursery)


async def _listen(host: str, port: int) -> trio.SocketListener:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        (listener,) = await trio.open_tcp_listeners(port, host=str(found[0][4][0]), backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise OSError(error.errno, f"console: cannot listen on {host} port {port}: {_why(error)}") from error
    return listener


def _why(error: OSError) -> str:
    inner = error.__cause__
    if isinstance(inner, ExceptionGroup):  # Trio groups the attempts of one address, too
        inner = inner.exceptions[0]
    return (inner if isinstance(inner, OSError) else error).strerror or str(error)


class _Connections:
    """Serves accepted sockets, each within its bounds, none of them hurting another."""

    def __init__(self, console: Console) -> None:
        self._app = ASGIWrapper(console)  # type: ignore[arg-type]  # our ASGI types are plain mappings
        self._config = _hypercorn_config()
        self._context = WorkerContext(max_requests=None)
        self._open = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        if self._open >= MOST_CONNECTIONS:
            log.warning("console_full", extra={"most": MOST_CONNECTIONS})
            await trio.aclose_forcefully(stream)
            return
        self._open += 1
        try:
            await self._serve(stream)
        except Exception:  # whatever a request can make the server stumble over
            log.exception("console_connection_failed")
        finally:
            self._open -= 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + LONGEST_CONNECTION
            nursery.start_soon(_close_when_cancelled, stream)
            bounded: Any = _Stream(stream, nursery.cancel_scope)
            await TCPServer(self._app, self._config, self._context, ConnectionState({}), bounded)
            nursery.cancel_scope.cancel()


class _Stream:
    """A socket as Hypercorn uses it. After the peer's last byte Hypercorn would idle on; here little time is left."""

    def __init__(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        self.socket = stream.socket
        self.send_all = stream.send_all
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        self._receive_some = stream.receive_some
        self._scope = scope

    async def receive_some(self, max_bytes: int) -> bytes:
        data = b""
        try:
            data = await self._receive_some(max_bytes)
        finally:
            if not data:  # the end, or a reset
                self._scope.deadline = min(self._scope.deadline, trio.current_time() + LAST_ANSWER)
        return data


async def _close_when_cancelled(stream: trio.SocketStream) -> None:
    """Hypercorn shields its sends; a closed socket ends them where a cancelled scope cannot."""
    try:
        await trio.sleep_forever()
    finally:
        stream.socket.close()


def _hypercorn_config() -> HypercornConfig:
    config: Any = HypercornConfig()
    config.errorlog = logging.getLogger("gateway.console.http")
    config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = 10.0
    config.h11_max_incomplete_size = LONGEST_REQUEST
    config.h2_max_header_list_size = LONGEST_REQUEST
    config.h2_max_concurrent_streams = 8
    result: HypercornConfig = config
    return result
