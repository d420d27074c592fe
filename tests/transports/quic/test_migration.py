"""Clients that go on from another address: by choice, or because a NAT forgot them."""

from __future__ import annotations

import pytest
import trio
from aioquic.quic.events import StreamDataReceived

from gateway.transports.quic.addresses import address_bytes, address_text
from tests.transports.quic.client import Client, open_client
from tests.transports.quic.world import Echo, open_world

HELLO = b"\x01hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "2001:db8::1"])
def test_addresses_as_bytes_and_text(host: str) -> None:
    assert address_text(address_bytes(host, 4433)) == host
    assert address_text(address_bytes("::ffff:192.0.2.7", 1)) == "192.0.2.7"


@pytest.mark.parametrize("new_id", [True, False], ids=["by choice", "by a NAT"])
async def test_a_client_goes_on_from_another_port_and_is_validated_there(new_id: bool) -> None:
    async with open_world() as world, open_client(world.server) as client:
        await client.say(HELLO)
        await client.hear(HELLO)
        echo: Echo = world.handlers[0]
        old = client.port
        await client.move(new_id=new_id)
        assert client.port != old
        await client.say(b"more")
        await client.hear(HELLO + b"more")
        path = echo.peer.quic._network_paths[0]
        await world.until(lambda: echo.peer.quic._network_paths[0].is_validated)
        assert int.from_bytes(path.addr[2:4], "big") == client.port
        assert world.endpoint.statistics().migrations == 1
        assert world.endpoint.statistics().connections == 1
        if new_id:
            await world.until(lambda: len(echo.peer.quic.ids()) == 4)  # the retired one has been replaced


async def test_many_moves_use_nothing_up() -> None:
    async with open_world() as world, open_client(world.server) as client:
        said = b""
        for number in range(10):
            await client.move()
            said += b"%d" % number
            await client.say(b"%d" % number)
            await client.hear(said)
        echo: Echo = world.handlers[0]
        await world.until(lambda: world.endpoint.statistics().connection_ids <= 5)
        assert len(echo.peer.quic._network_paths) <= 8


@pytest.mark.parametrize("new_id", [True, False], ids=["by choice", "by a NAT"])
async def test_a_transfer_goes_on_over_a_move(new_id: bool) -> None:
    async with open_world() as world, open_client(world.server) as client:
        data = bytes(range(256)) * 1_600
        echo: Echo = world.handlers[0]
        await client.say(data, fin=True)
        await echo.until(lambda: echo.heard > len(data) // 4)
        await client.move(new_id=new_id)
        await client.hear(data)


async def test_t11_an_address_that_was_never_validated_gets_three_times_what_came_from_it() -> None:
    """A packet of the client's, sent on by somebody else: where the echo goes, but not more of it."""
    async with open_world() as world, open_client(world.server) as client:
        await client.say(HELLO)
        await client.hear(HELLO)
        async with open_client(world.server, connect=False) as other:
            caught: list[bytes] = []
            client.intercept = caught.append
            await client.say(bytes(1_000))
            client.intercept = lambda _data: None
            await other.throw(caught[0])
            echo: Echo = world.handlers[0]
            await echo.until(lambda: echo.heard > 1_000)
            for _ in range(200):
                echo.peer.send(0, bytes(1_000))
            for _ in range(20):
                await trio.sleep(0.02)
                assert sum(map(len, other.received)) <= 3 * other.sent
            client.intercept = lambda data: data
            before = len(client.streams[0])
            await client.until(lambda: len(client.streams[0]) > before)  # the path falls back to where it was


async def test_datagrams_follow() -> None:
    async with open_world() as world, open_client(world.server) as client:
        await client.move()
        client.quic.send_datagram_frame(b"typing")
        await client.flush()
        await client.until(lambda: client.datagrams() == [b"typing"])


async def test_neighbours_do_not_notice() -> None:
    async with open_world() as world, open_client(world.server) as innocent, open_client(world.server) as client:
        await client.move()
        for number in range(5):
            await heard(innocent, b"%d" % number, number)
            await heard(client, b"%d" % number, number)


async def heard(client: Client, data: bytes, number: int) -> None:
    await client.say(data, 4 * number)
    await client.hear(data, 4 * number)
    assert client.seen(StreamDataReceived)
