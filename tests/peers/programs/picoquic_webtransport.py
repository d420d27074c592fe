"""picoquic's WebTransport."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from aiopquic.asyncio.webtransport import WebTransportSession, connect_webtransport
from aiopquic.quic.configuration import QuicConfiguration
from aiopquic.quic.events import WebTransportDatagramReceived, WebTransportSessionClosed
from conversation import Stack, run


class Stream:
    def __init__(self, session: WebTransportSession, number: int) -> None:
        self._session, self._number = session, number
        self._events = session.receive_stream_data(number)

    async def write(self, data: bytes, *, end: bool = False) -> None:
        await self._session.send_stream_data_drained(self._number, data, end)

    async def read(self) -> bytes:
        async for event in self._events:
            return bytes(getattr(event, "data", b""))
        return b""


class Picoquic:
    def __init__(self, session: WebTransportSession) -> None:
        self._session = session
        self._datagrams: asyncio.Queue[bytes] = asyncio.Queue()
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for event in self._session.events():
            if isinstance(event, WebTransportDatagramReceived):
                self._datagrams.put_nowait(bytes(event.data))
            elif isinstance(event, WebTransportSessionClosed):
                self._code.set_result(event.error_code)
                return

    async def open(self, *, bidirectional: bool) -> Stream:
        return Stream(self._session, await self._session.create_stream(bidir=bidirectional))

    async def send_datagram(self, data: bytes) -> None:
        self._session.send_datagram_frame(data)

    async def receive_datagram(self) -> bytes:
        return await self._datagrams.get()

    async def closed(self) -> int:
        return await self._code


async def connected(order: dict[str, Any], talk: Callable[[Stack], Awaitable[None]]) -> None:
    configuration = QuicConfiguration(is_client=True, server_name="localhost", cafile=order["ca"])
    async with connect_webtransport(
        order["host"], order["port"], order["path"], configuration=configuration
    ) as session:
        await talk(Picoquic(session))


if __name__ == "__main__":
    run(connected)
    os._exit(0)  # its network thread does not always end by itself
