"""A Link over a WebSocket that somebody's own trio-websocket server accepted: for embedders.

Pulled, not pushed, see `gateway.transports.stream`. Origin rule, path and deadlines of the upgrade are the embedder's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from gateway.core.link import Link
from gateway.protocol.websocket import CloseCode, sendable
from gateway.transports.stream import StreamLink


class TrioWebSocketLink(StreamLink):
    """Carries frames in the binary messages of a `WebSocketConnection`."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self._messages = _Messages(ws, self._refuse_text)
        super().__init__(self._messages, _address(ws), "websocket")
        self._ws = ws

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Send a Close and wait for the peer's."""
        self._messages.parting = True
        await self._ws.aclose(*sendable(code, reason))

    def _refuse_text(self) -> None:
        if self._receiver is not None and not self._closed:
            self._receiver.close(CloseCode.UNSUPPORTED_DATA, "binary messages only")


async def serve_websocket(serve: Callable[[Link], Awaitable[None]], ws: WebSocketConnection) -> None:
    """Run `serve(link)` over an accepted WebSocket, and close it after that."""
    link = TrioWebSocketLink(ws)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.pump)
            await serve(link)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(ws)


class _Messages(trio.abc.Stream):
    """The messages as a stream of bytes."""

    def __init__(self, ws: WebSocketConnection, refuse_text: Callable[[], None]) -> None:
        self._ws = ws
        self._refuse_text = refuse_text
        self.parting = False
        """Our Close is on its way; that the peer has ended is told by nobody but `say_goodbye`."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._ws.send_message(bytes(data))
        except ConnectionClosed as closed:
            raise trio.BrokenResourceError(str(closed)) from None

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next message that is not empty; nothing when the peer has closed."""
        message: bytes | str = b""
        while not message:
            try:
                message = await self._ws.get_message()
            except ConnectionClosed:
                if self.parting:
                    await trio.sleep_forever()
                return b""
            if isinstance(message, str):
                self._refuse_text()
                await trio.sleep_forever()
        return bytes(message)  # type: ignore[arg-type]

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._ws)


def _address(ws: WebSocketConnection) -> str:
    """The peer's address, where there is a network."""
    remote = ws.remote
    return "" if isinstance(remote, str) else str(remote.address)
