"""quinn, by web-transport-quinn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import web_transport
from conversation import Stack, run


class Stream:
    def __init__(self, sends: web_transport.SendStream, receives: web_transport.RecvStream | None) -> None:
        self._sends, self._receives = sends, receives

    async def write(self, data: bytes, *, end: bool = False) -> None:
        await self._sends.write(data)
        if end:
            await self._sends.finish()

    async def read(self) -> bytes:
        assert self._receives is not None
        return await self._receives.read(65536)


class Quinn:
    def __init__(self, session: web_transport.Session) -> None:
        self._session = session

    async def open(self, *, bidirectional: bool) -> Stream:
        if bidirectional:
            return Stream(*await self._session.open_bi())
        return Stream(await self._session.open_uni(), None)

    async def send_datagram(self, data: bytes) -> None:
        self._session.send_datagram(data)

    async def receive_datagram(self) -> bytes:
        return await self._session.receive_datagram()

    async def closed(self) -> int:
        await self._session.wait_closed()
        return int(getattr(self._session.close_reason, "code", None) or -1)


async def connected(order: dict[str, Any], talk: Callable[[Stack], Awaitable[None]]) -> None:
    hashes = [bytes.fromhex(order["hash"])]
    async with (
        web_transport.Client(server_certificate_hashes=hashes) as client,
        await client.connect(order["url"]) as session,
    ):
        await talk(Quinn(session))


if __name__ == "__main__":
    run(connected)
