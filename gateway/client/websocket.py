"""`ws://` and `wss://` by trio-websocket: binary messages, subprotocol `im.v1`. Nobody else knows it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from gateway.client.endpoint import Endpoint
from gateway.client.transport import RECEIVE_BYTES, Transport, TransportFailed, open_stream, why
from gateway.client.trust import Trust

SUBPROTOCOL = "im.v1"
MAX_MESSAGE = 16_777_216 + 65_536
"""One message may hold many frames: the server joins what waits into one write."""
OWN_CODES = range(4000, 5000)
RETRIED_STATUS = frozenset({408, 425, 429})
"""HTTP refusals below 500 that are worth another try."""
STANDARD_PORTS = {"ws": 80, "wss": 443}


class _ReaderTask:
    """Stands for the nursery that trio-websocket puts its reader into, to learn of the reader's end.

    The library waits for the upgrade with no eye on the reader: a server that hangs up before its answer
    would be noticed only by the connect deadline, and an exception of the reader would end the nursery.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.failure: Exception | None = None
        self.ended = trio.Event()

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._guarded, task)

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except Exception as error:
            self.failure = error
        finally:
            self.ended.set()

    async def cancel_at_end(self, scope: trio.CancelScope) -> None:
        await self.ended.wait()
        scope.cancel()


class WebSocketTransport:
    """An upgraded connection."""

    def __init__(self, connection: WebSocketConnection, stream: trio.abc.Stream, reader: _ReaderTask) -> None:
        self._connection = connection
        self._stream = stream
        self._reader = reader

    async def send_all(self, data: bytes) -> None:
        try:
            await self._connection.send_message(data)
        except ConnectionClosed as closed:
            raise self._failed(closed) from None
        except ProtocolError as error:  # sending into a close that is under way
            raise TransportFailed(str(error)) from None

    async def receive_some(self) -> bytes:
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as closed:
            raise self._failed(closed) from None
        if isinstance(message, str):
            raise TransportFailed("the server sent a text message")
        return bytes(message)

    async def aclose(self) -> None:
        try:
            with suppress(ConnectionClosed, ProtocolError):
                await self._connection.aclose()
        finally:
            await trio.aclose_forcefully(self._stream)

    def _failed(self, closed: ConnectionClosed) -> TransportFailed:
        if self._reader.failure is not None:
            return TransportFailed(f"broken WebSocket: {why(self._reader.failure)}")
        reason = closed.reason
        if reason is None:
            return TransportFailed("connection lost")
        text = str(reason.reason or "")
        if reason.code in OWN_CODES:
            return TransportFailed(text, code=reason.code)
        if reason.code in (1000, 1006):
            return TransportFailed(text or "connection lost")
        return TransportFailed(f"closed with {reason.code}" + (f": {text}" if text else ""))


async def open_websocket(
    endpoint: Endpoint, context: ssl.SSLContext | None, nursery: trio.Nursery, trust: Trust | None = None
) -> Transport:
    """Connect and upgrade. The caller holds a deadline.

    Raises:
        TransportFailed: nobody there, no TLS, or the upgrade was refused.
    """
    stream = await open_stream(endpoint, context, trust)
    host = endpoint.authority
    if STANDARD_PORTS[endpoint.scheme] == endpoint.port:
        host = host.rpartition(":")[0]
    reader = _ReaderTask(nursery)
    connection: WebSocketConnection | None = None
    transport: WebSocketTransport | None = None
    try:
        async with trio.open_nursery() as opening:
            opening.start_soon(reader.cancel_at_end, opening.cancel_scope)
            connection = await wrap_client_stream(
                reader,
                stream,
                host,
                endpoint.path,
                subprotocols=[SUBPROTOCOL],
                max_message_size=MAX_MESSAGE,
                receive_buffer_size=RECEIVE_BYTES,
            )
            opening.cancel_scope.cancel()
        if connection is None:
            raise _refused(endpoint, reader.failure)
        transport = WebSocketTransport(connection, stream, reader)
        return transport
    finally:
        if transport is None:  # also when cancelled with the connection just made
            await trio.aclose_forcefully(stream)


def _refused(endpoint: Endpoint, failure: Exception | None) -> TransportFailed:
    if not isinstance(failure, ConnectionRejected):
        reason = "it hung up" if failure is None else why(failure)
        return TransportFailed(f"{endpoint.url} did not upgrade: {reason}")
    status = failure.status_code
    body = bytes(failure.body or b"")[:200].decode("utf-8", "replace").strip()
    final = 400 <= status < 500 and status not in RETRIED_STATUS
    return TransportFailed(
        f"{endpoint.url} refused the upgrade: HTTP {status}" + (f" {body}" if body else ""), final=final
    )
