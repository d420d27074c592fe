"""A Link over any Trio stream that somebody else accepted: for embedders, and for tests in memory.

Streams are pulled where sockets are pushed, so this link has a task's worth of waiting in `open`'s nursery;
it costs more than the reactor's links and is meant for hundreds of connections, not for hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from gateway.core.link import Link, LinkClosed, Receiver

CHUNK = 65_536


class StreamLink:
    """Carries frames over a `trio.abc.Stream`. `pump` must run beside the Connection, see `serve_stream`."""

    prefix: Callable[[int], bytes] | None = None

    def __init__(self, stream: trio.abc.Stream, address: str, transport: str = "tcp") -> None:
        self.transport = transport
        self.address = address
        self._stream = stream
        self._receiver: Receiver | None = None
        self._unsent = bytearray()
        self._reading = trio.Event()
        self._attached = trio.Event()
        self._closed = False

    def attach(self, receiver: Receiver) -> None:
        """Say who is told."""
        self._receiver = receiver
        self._reading.set()
        self._attached.set()

    async def open(self) -> None:
        """The stream is up already."""
        await trio.lowlevel.checkpoint()

    async def pump(self) -> None:
        """Pull bytes and push them to the receiver until the stream ends."""
        await self._attached.wait()
        assert self._receiver is not None
        reason = ""
        try:
            while not self._closed:
                await self._reading.wait()
                data = await self._stream.receive_some(CHUNK)
                if self._closed or not data:
                    break
                self._receiver.feed(0, bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError) as error:
            reason = repr(error)
        if not self._closed:
            self._receiver.lost(reason)

    def send(self, data: bytes) -> bool:
        """Keep the bytes for `flush`: a stream cannot be written to without waiting."""
        if not self._closed:
            self._unsent += data
        return self._closed

    @property
    def unsent(self) -> int:
        """Bytes that wait for `flush`."""
        return len(self._unsent)

    async def flush(self) -> None:
        """Write everything.

        Raises:
            LinkClosed: the stream is broken.
        """
        while self._unsent and not self._closed:
            data, self._unsent = self._unsent, bytearray()
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise LinkClosed(repr(error)) from error

    def pause(self) -> None:
        """Stop reading after what is being received."""
        if self._reading.is_set():
            self._reading = trio.Event()

    def resume(self) -> None:
        """Read again."""
        self._reading.set()

    async def say_goodbye(self, code: int, reason: str) -> None:
        """A bare stream has no words of its own: end of file says it."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Nothing is told any more; `serve_stream` closes the stream."""
        self._closed = True
        self._reading.set()


async def serve_stream(
    serve: Callable[[Link], Awaitable[None]], stream: trio.abc.Stream, address: str = "", transport: str = "tcp"
) -> None:
    """Run `serve(link)` over an accepted stream, and close the stream after it."""
    link = StreamLink(stream, address, transport)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.pump)
            await serve(link)
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)
