"""An endpoint and aioquic clients: handshake, streams, datagrams, the end in both directions."""

from __future__ import annotations

from tests.transports.quic.client import open_client
from tests.transports.quic.world import Echo, open_world


async def test_handshake_and_echo() -> None:
    async with open_world() as world, open_client(world.server) as client:
        await client.say(b"\x01hello")
        await client.hear(b"\x01hello")
        client.quic.send_datagram_frame(b"a datagram")
        await client.flush()
        await client.until(lambda: client.datagrams() == [b"a datagram"])
        echo: Echo = world.handlers[0]
        assert echo.peer.alpn == "im-access"
        assert echo.peer.address == "127.0.0.1"
        assert not echo.peer.early
        assert echo.pumps > 0
