"""A client over aioquic's sans-I/O connection and a plain UDP socket, for the tests of the pump and the endpoint."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
)

PATIENCE = 20.0
"""Seconds until a wait is given up: far more than any needs on a busy machine."""


def client_configuration(**fields: Any) -> QuicConfiguration:
    """Of a client that believes any certificate."""
    settings: dict[str, Any] = {
        "alpn_protocols": ["im-access"],
        "verify_mode": ssl.CERT_NONE,
        "server_name": "localhost",
        "max_datagram_frame_size": 65_535,
        "idle_timeout": 30.0,
    }
    return QuicConfiguration(is_client=True, **{**settings, **fields})


class Client:
    """One connection. `events` keeps all that came; `intercept` may change or drop what leaves."""

    def __init__(self, quic: QuicConnection, server: tuple[str, int]) -> None:
        self.quic = quic
        self.server = server
        self.events: list[QuicEvent] = []
        self.streams: dict[int, bytearray] = {}
        self.received: list[bytes] = []
        """Raw datagrams, as they came."""
        self.sent = 0
        """Bytes that left."""
        self.intercept: Callable[[bytes], bytes | None] = lambda data: data
        self._sock = self._bound()
        self._news = trio.Event()
        self._timer: trio.CancelScope | None = None
        self._moved = trio.Event()

    @staticmethod
    def _bound() -> trio.socket.SocketType:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        return trio.socket.from_stdlib_socket(sock)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    async def run(self) -> None:
        """Receive, and keep the time, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_time)
                while True:
                    with trio.CancelScope() as self._reading:
                        try:
                            data, _ = await self._sock.recvfrom(65_536)
                        except (OSError, trio.ClosedResourceError):  # of the socket that we moved away from
                            await trio.lowlevel.checkpoint()
                            continue
                        self.received.append(data)
                        if self.quic._connect_called:
                            self.quic.receive_datagram(data, self.server, trio.current_time())
                            await self.flush()
        finally:
            self._sock.close()

    async def move(self, *, new_id: bool = True) -> None:
        """Go on from another port: by choice with a fresh connection id, or by a NAT that forgot us without one."""
        old, self._sock = self._sock, self._bound()
        self._reading.cancel()
        old.close()
        if new_id:
            self.quic.change_connection_id()
            self.quic.send_ping(1)
        await self.flush()

    async def flush(self) -> None:
        """Send what may go, and look at what came."""
        for data, _ in self.quic.datagrams_to_send(trio.current_time()):
            await self.throw(data)
        while (event := self.quic.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, StreamDataReceived):
                self.streams.setdefault(event.stream_id, bytearray()).extend(event.data)
        self._news.set()
        self._news = trio.Event()
        if self._timer is not None:
            self._timer.deadline = min(self._timer.deadline, self._deadline)

    @property
    def _deadline(self) -> float:
        at = self.quic.get_timer() if self.quic._connect_called else None
        return float("inf") if at is None else at

    def was_reset(self) -> bool:
        """Whether a stateless reset came, which aioquic does not look for."""
        known = [self.quic._peer_cid, *self.quic._peer_cid_available]
        return any(data[-16:] == each.stateless_reset_token for data in self.received for each in known)

    async def throw(self, data: bytes) -> None:
        """Send a datagram as it is."""
        altered = self.intercept(data)
        if altered is not None:
            self.sent += len(altered)
            with contextlib.suppress(OSError, trio.ClosedResourceError):  # we moved meanwhile: lost on the way
                await self._sock.sendto(altered, self.server)

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._deadline) as self._timer:
                await trio.sleep_forever()
            if self._deadline <= trio.current_time():
                self.quic.handle_timer(trio.current_time())
                await self.flush()

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something to become true; looked at whenever something came."""
        with trio.fail_after(PATIENCE):
            while not true():
                await self._news.wait()

    def seen(self, kind: type[QuicEvent]) -> list[Any]:
        """Events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def connected(self) -> HandshakeCompleted:
        """Wait for the handshake."""
        await self.until(lambda: self.seen(HandshakeCompleted) or self.seen(ConnectionTerminated))
        assert self.seen(HandshakeCompleted), self.seen(ConnectionTerminated)
        completed: HandshakeCompleted = self.seen(HandshakeCompleted)[0]
        return completed

    async def ended(self) -> ConnectionTerminated:
        """Wait for the end."""
        await self.until(lambda: self.seen(ConnectionTerminated))
        event: ConnectionTerminated = self.seen(ConnectionTerminated)[0]
        return event

    async def say(self, data: bytes, stream_id: int = 0, *, fin: bool = False) -> None:
        """Send bytes on a stream."""
        self.quic.send_stream_data(stream_id, data, fin)
        await self.flush()

    async def hear(self, data: bytes, stream_id: int = 0) -> None:
        """Wait until a stream has brought exactly this."""
        await self.until(lambda: len(self.streams.get(stream_id, b"")) >= len(data))
        assert self.streams[stream_id] == data

    def datagrams(self) -> list[bytes]:
        """What came by DATAGRAM frames."""
        return [event.data for event in self.seen(DatagramFrameReceived)]


@asynccontextmanager
async def open_client(
    server: tuple[str, int], *, connect: bool = True, quic: QuicConnection | None = None, **fields: Any
) -> AsyncIterator[Client]:
    """A client whose handshake is complete; with `connect=False` one that has sent nothing."""
    made = quic if quic is not None else QuicConnection(configuration=client_configuration(**fields))
    client = Client(made, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        if connect:
            made.connect(server, trio.current_time())
            await client.flush()
            await client.connected()
            await client.until(lambda: made._handshake_confirmed)  # so that the server's handler is there
        yield client
        nursery.cancel_scope.cancel()
