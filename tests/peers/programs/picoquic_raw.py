"""picoquic, raw QUIC."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiopquic.asyncio.client import connect
from aiopquic.asyncio.protocol import QuicConnectionProtocol
from aiopquic.quic.configuration import QuicConfiguration
from aiopquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived
from conversation import Stack, run


class Streams(QuicConnectionProtocol):
    """Events to queues."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.received: dict[int, asyncio.Queue[bytes]] = {}
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: Any) -> None:
        if isinstance(event, StreamDataReceived):
            self.received.setdefault(event.stream_id, asyncio.Queue()).put_nowait(bytes(event.data))
        elif isinstance(event, DatagramFrameReceived):
            self.datagrams.put_nowait(bytes(event.data))
        elif isinstance(event, ConnectionTerminated) and not self.code.done():
            self.code.set_result(event.error_code)


class Stream:
    def __init__(self, peer: Streams, number: int) -> None:
        self._peer, self._number = peer, number
        peer.received.setdefault(number, asyncio.Queue())

    async def write(self, data: bytes, *, end: bool = False) -> None:
        await self._peer._quic.send_stream_data_drained(self._number, data, end)

    async def read(self) -> bytes:
        return await self._peer.received[self._number].get()


class Picoquic:
    def __init__(self, peer: Streams) -> None:
        self._peer = peer

    async def open(self, *, bidirectional: bool) -> Stream:
        return Stream(self._peer, self._peer._quic.get_next_available_stream_id(is_unidirectional=not bidirectional))

    async def send_datagram(self, data: bytes) -> None:
        self._peer._quic.send_datagram_frame(data)

    async def receive_datagram(self) -> bytes:
        return await self._peer.datagrams.get()

    async def closed(self) -> int:
        return await self._peer.code


async def connected(order: dict[str, Any], talk: Callable[[Stack], Awaitable[None]]) -> None:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["im-access"], server_name="localhost", cafile=order["ca"]
    )
    async with connect(order["host"], order["port"], configuration=configuration, create_protocol=Streams) as peer:
        await talk(Picoquic(peer))
        sys.stdout.flush()


if __name__ == "__main__":
    run(connected)
    os._exit(0)  # its network thread does not always end by itself
