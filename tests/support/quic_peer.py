"""A QUIC client for tests: aioquic without its asyncio part, driven by Trio, with nothing hidden.

It says what a test says and nothing else: no heartbeat, no login, no retry. Streams are `Pipe`s, which a `Peer` can
stand on:

    async with open_quic("127.0.0.1:8443", authority=pem) as client:
        peer = Peer(client.open(Lane.CONTROL))
        await peer.log_in(token)
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.tls import SessionTicket

from gateway.core.link import Lane

PATIENCE = 30.0
"""Seconds until a wait is given up."""
SENDING = 262_144
"""Unacknowledged bytes of a pipe at which `send_all` waits."""


class Refused(Exception):
    """The node refused a stream, with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


class Pipe:
    """One stream. Reads whatever came; writes, and waits while too much is unacknowledged."""

    def __init__(self, client: QuicClient, stream_id: int) -> None:
        self.client = client
        self.stream_id = stream_id
        self.received = bytearray()
        """What came and was not read."""
        self.ended = False
        self.reset_code: int | None = None
        """With what the node gave up sending."""
        self.stop_code: int | None = None
        """With what the node asked us to stop."""

    async def send_all(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError when the connection or the stream is gone."""
        await trio.lowlevel.checkpoint()
        self.write(data)
        while self.unacknowledged > SENDING:
            self._check()
            await self.client.change()

    def write(self, data: bytes, end: bool = False) -> None:
        """Without waiting."""
        self._check()
        try:
            self.client.quic.send_stream_data(self.stream_id, data, end)
        except (RuntimeError, ValueError):
            raise trio.BrokenResourceError("the stream is gone") from None
        self.client.transmit()

    @property
    def unacknowledged(self) -> int:
        stream = self.client.quic._streams.get(self.stream_id)
        return len(stream.sender._buffer) if stream is not None else 0

    async def receive_some(self) -> bytes:
        """What has come, or nothing at the end of the stream or of the connection."""
        await trio.lowlevel.checkpoint()
        while not self.received and not self.ended and self.client.closed is None:
            await self.client.change()
        data = bytes(self.received)
        self.received.clear()
        return data

    async def read_all(self) -> bytes:
        """Everything to the end of the stream."""
        data = b""
        while more := await self.receive_some():
            data += more
        return data

    async def refused(self) -> int:
        """Wait until the node refuses the stream; the code."""
        with trio.fail_after(PATIENCE):
            while self.stop_code is None and self.reset_code is None and self.client.closed is None:
                await self.client.change()
        code = self.stop_code if self.stop_code is not None else self.reset_code
        assert code is not None, f"the connection was closed instead: {self.client.closed}"
        return code

    def reset(self, code: int) -> None:
        self.client.quic.reset_stream(self.stream_id, code)
        self.client.transmit()

    def stop(self, code: int) -> None:
        self.client.quic.stop_stream(self.stream_id, code)
        self.client.transmit()

    def finish(self) -> None:
        self.write(b"", end=True)

    async def aclose(self) -> None:
        """Close the connection: what a client's `hang_up` is."""
        await trio.lowlevel.checkpoint()
        self.client.close(0)

    def _check(self) -> None:
        if self.client.closed is not None or self.stop_code is not None:
            raise trio.BrokenResourceError("closed")


class _Stingy(QuicConnection):
    """Gives the node no credit beyond the first."""

    def _write_stream_limits(self, *_: Any, **__: Any) -> None:
        pass

    def _write_connection_limits(self, *_: Any, **__: Any) -> None:
        pass


class QuicClient:
    """One connection. `quic` is aioquic's own: whatever a test wants to do wrong, it can; then `transmit`."""

    def __init__(self, address: str, configuration: QuicConfiguration, *, stingy: bool = False) -> None:
        host, _, port = address.rpartition(":")
        self.server = (host.strip("[]"), int(port))
        self.tickets: list[SessionTicket] = []
        """TLS session tickets that came."""
        self.quic = (_Stingy if stingy else QuicConnection)(
            configuration=configuration, session_ticket_handler=self.tickets.append
        )
        self.handshaken: HandshakeCompleted | None = None
        self.closed: tuple[int, str] | None = None
        """Code and reason of the end; code -1 where it was the transport's own error."""
        self.datagrams: list[bytes] = []
        self.pipes: dict[int, Pipe] = {}
        self.incoming: list[Pipe] = []
        """Streams that the node opened and nobody accepted yet."""
        self.deaf = False
        """Whether what comes is dropped unheard."""
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = self._bound()
        self._scope: trio.CancelScope | None = None
        self._changed = trio.Event()

    # -- streams and datagrams -----------------------------------------------------------------------------

    def open(self, lane: int, data: bytes = b"", *, unidirectional: bool | None = None) -> Pipe:
        """Open a stream whose first byte is `lane`."""
        if unidirectional is None:
            unidirectional = lane == Lane.EPHEMERAL
        stream_id = self.quic.get_next_available_stream_id(unidirectional)
        pipe = self.pipes[stream_id] = Pipe(self, stream_id)
        pipe.write(bytes((lane,)) + data)
        return pipe

    async def accept(self) -> Pipe:
        """The next stream that the node opens."""
        with trio.fail_after(PATIENCE):
            while not self.incoming:
                assert self.closed is None, self.closed
                await self.change()
        return self.incoming.pop(0)

    def send_datagram(self, data: bytes) -> None:
        self.quic.send_datagram_frame(data)
        self.transmit()

    async def receive_datagram(self) -> bytes:
        with trio.fail_after(PATIENCE):
            while not self.datagrams:
                assert self.closed is None, self.closed
                await self.change()
        return self.datagrams.pop(0)

    # -- the connection --------------------------------------------------------------------------------------

    @property
    def local(self) -> tuple[str, int]:
        """Our address."""
        host, port, *_ = self._socket.getsockname()
        return host, port

    async def wait_handshaken(self) -> HandshakeCompleted:
        """Raises Refused when the connection ends instead."""
        with trio.fail_after(PATIENCE):
            while self.handshaken is None:
                if self.closed is not None:
                    raise Refused(self.closed[0])
                await self.change()
        return self.handshaken

    async def wait_ticket(self) -> SessionTicket:
        """The first session ticket."""
        with trio.fail_after(PATIENCE):
            while not self.tickets:
                assert self.closed is None, self.closed
                await self.change()
        return self.tickets[0]

    async def wait_closed(self) -> tuple[int, str]:
        """Until the connection has ended: code and reason."""
        with trio.fail_after(PATIENCE):
            while self.closed is None:
                await self.change()
        return self.closed

    def close(self, code: int, reason: str = "") -> None:
        self.quic.close(error_code=code, reason_phrase=reason)
        self.transmit()

    def migrate(self) -> None:
        """Go on from another port; the old one is gone."""
        old, self._socket = self._socket, self._bound()
        trio.lowlevel.notify_closing(old)
        old.close()
        self.quic.change_connection_id()  # as RFC 9000 section 9.5 asks of whoever does not want to be recognised
        self.quic.send_ping(1)
        self.transmit()

    def transmit(self) -> None:
        """Send what waits in `quic`."""
        if self._socket.fileno() < 0:
            return  # nobody runs it any more
        for data, _ in self.quic.datagrams_to_send(trio.current_time()):
            with suppress(BlockingIOError, ConnectionRefusedError):  # lost: QUIC sends it again
                self._socket.sendto(data, self.server)
        if self._scope is not None:
            self._scope.deadline = self._timer()
        self._handle_events()

    async def change(self) -> None:
        """Wait until anything has happened."""
        await self._changed.wait()

    async def run(self) -> None:
        """Receive, and keep the time, until the connection has ended."""
        try:
            while self.closed is None:
                moved = suppress(trio.ClosedResourceError)  # to another socket
                with trio.CancelScope(deadline=self._timer()) as self._scope, moved:
                    await trio.lowlevel.wait_readable(self._socket)
                self._scope = None
                self._receive()
                if self._timer() <= trio.current_time():
                    self.quic.handle_timer(trio.current_time())
                self.transmit()
        finally:
            self._socket.close()

    def _timer(self) -> float:
        timer = self.quic.get_timer()
        return float("inf") if timer is None else timer

    def _bound(self) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_DGRAM)
        bound.setblocking(False)
        bound.bind(("::1" if self._family == socket.AF_INET6 else "127.0.0.1", 0))
        return bound

    def _receive(self) -> None:
        for _ in range(64):
            try:
                data = self._socket.recv(65_536)
            except (BlockingIOError, ConnectionRefusedError):
                break
            if not self.deaf:
                self.quic.receive_datagram(data, self.server, trio.current_time())

    def _handle_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self._handle(event)
            self._changed.set()
        self._changed.set()
        self._changed = trio.Event()

    def _handle(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            pipe = self.pipes.get(event.stream_id)
            if pipe is None:
                pipe = self.pipes[event.stream_id] = Pipe(self, event.stream_id)
                self.incoming.append(pipe)
            pipe.received += event.data
            pipe.ended = pipe.ended or event.end_stream
        elif isinstance(event, StreamReset):
            if event.stream_id in self.pipes:
                self.pipes[event.stream_id].reset_code = event.error_code
                self.pipes[event.stream_id].ended = True
        elif isinstance(event, StopSendingReceived):
            self.pipes[event.stream_id].stop_code = event.error_code
        elif isinstance(event, DatagramFrameReceived):
            self.datagrams.append(event.data)
        elif isinstance(event, HandshakeCompleted):
            self.handshaken = event
        elif isinstance(event, ConnectionTerminated):
            self.closed = (event.error_code if event.frame_type is None else -1), event.reason_phrase


def configuration(
    *, authority: str | None = None, alpn: str = "im-access", ticket: SessionTicket | None = None, **more: Any
) -> QuicConfiguration:
    """A client's. `authority` is a PEM file of whom to trust; without it anybody is believed."""
    more.setdefault("max_datagram_frame_size", 65_536)
    more.setdefault("server_name", "localhost")
    made = QuicConfiguration(is_client=True, alpn_protocols=[alpn], session_ticket=ticket, **more)
    if authority is not None:
        made.load_verify_locations(cafile=authority)
    else:
        made.verify_mode = 0  # ssl.CERT_NONE
    return made


async def start_quic(
    nursery: trio.Nursery,
    address: str,
    *,
    early: Callable[[QuicClient], None] | None = None,
    wait: bool = True,
    stingy: bool = False,
    **settings: Any,
) -> QuicClient:
    """Connect, and run the connection in `nursery` until it ends.

    Args:
        early: called before the first packet leaves: what it sends is 0-RTT data, if `ticket` allows any.
        wait: for the handshake; raises Refused when there is none.
        stingy: give the node no credit beyond the first, as who never reads does.
        settings: of `configuration`.
    """
    client = QuicClient(address, configuration(**settings), stingy=stingy)
    client.quic.connect(client.server, now=trio.current_time())
    if early is not None:
        early(client)
    client.transmit()
    nursery.start_soon(client.run)
    if wait:
        await client.wait_handshaken()
    return client


@asynccontextmanager
async def open_quic(address: str, **settings: Any) -> AsyncIterator[QuicClient]:
    """Connect; at the end of the block the connection is closed with code 0 if it is still there."""
    async with trio.open_nursery() as nursery:
        client = await start_quic(nursery, address, **settings)
        try:
            yield client
        finally:
            client.close(0)
            nursery.cancel_scope.cancel()
