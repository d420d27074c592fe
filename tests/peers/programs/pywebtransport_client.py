"""pywebtransport: HTTP/3 and WebTransport of its own over quinn."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from conversation import Stack, run
from pywebtransport import ClientConfig, WebTransportClient
from pywebtransport.events import Event
from pywebtransport.session import WebTransportSession
from pywebtransport.types import EventType


class Stream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def write(self, data: bytes, *, end: bool = False) -> None:
        await self._stream.write_all(data=data, end_stream=end)

    async def read(self) -> bytes:
        return await self._stream.read(max_size=65536)


class PyWebTransport:
    def __init__(self, session: WebTransportSession) -> None:
        self._session = session
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        session.events.on(event_type=EventType.SESSION_CLOSED, handler=self._ended)

    def _ended(self, event: Event) -> None:
        if not self._code.done():
            self._code.set_result(int(event.data["error_code"]))

    async def open(self, *, bidirectional: bool) -> Stream:
        if bidirectional:
            return Stream(await self._session.create_bidirectional_stream())
        return Stream(await self._session.create_unidirectional_stream())

    async def send_datagram(self, data: bytes) -> None:
        await self._session.send_datagram(data=data)

    async def receive_datagram(self) -> bytes:
        return await self._session.read_datagram()

    async def closed(self) -> int:
        return await self._code


async def connected(order: dict[str, Any], talk: Callable[[Stack], Awaitable[None]]) -> None:
    config = ClientConfig(verify_mode=ssl.CERT_REQUIRED, ca_certs=order["ca"])
    async with WebTransportClient(config=config) as client:
        session = await client.connect(url=order["url"])
        await talk(PyWebTransport(session))


if __name__ == "__main__":
    run(connected)
