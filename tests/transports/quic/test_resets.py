"""T15: a packet for a connection that a restart has forgotten."""

from __future__ import annotations

import pytest
import trio

from gateway.transports.quic.stateless import RESET_LEAST, RESET_MOST, stateless_reset
from gateway.transports.quic.statistics import Drop
from tests.transports.quic.client import open_client
from tests.transports.quic.world import open_world


@pytest.mark.parametrize("trigger", [*range(18, 60), 1_200, 65_000])
def test_t15_a_reset_is_smaller_than_its_trigger_and_looks_like_a_short_packet(trigger: int) -> None:
    reset = stateless_reset(trigger, b"t" * 16)
    if trigger <= RESET_LEAST:
        assert reset is None
        return
    assert reset is not None
    assert RESET_LEAST <= len(reset) <= RESET_MOST
    assert len(reset) < trigger
    assert reset.endswith(b"t" * 16)
    assert reset[0] & 0xC0 == 0x40


@pytest.mark.parametrize(
    ("secret", "known"), [(b"s" * 32, True), (b"another secret".ljust(32), False)], ids=["same", "another"]
)
async def test_t15_a_client_of_before_the_restart_knows_at_once(secret: bytes, known: bool) -> None:
    async with open_world(secret=b"s" * 32) as world, open_client(world.server) as client:
        port = world.endpoint.port
        client.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
        world.endpoint._nursery.cancel_scope.cancel()  # type: ignore[union-attr]
        await world.until(lambda: world.endpoint._nursery is None)
        async with open_world(secret=secret, port=port) as restarted:
            with trio.fail_after(5):
                while not restarted.endpoint.statistics().resets:
                    client.quic.send_ping(1)
                    await client.flush()
                    await trio.sleep(0.05)
            await restarted.until(lambda: client.received[-1][0] & 0xC0 == 0x40 and len(client.received[-1]) <= 43)
            assert client.was_reset() == known


async def test_t15_never_for_an_initial_nor_any_long_header() -> None:
    async with open_world() as world, open_client(world.server, connect=False) as client:
        for first in (0xC0, 0xD0, 0xE0, 0xF0):
            await client.throw(bytes([first]) + b"\x00\x00\x00\x01\x0a\xe9\x00" + bytes(8) + bytes(1_300))
        await world.until(lambda: sum(world.endpoint.statistics().dropped.values()) == 4)
        assert world.endpoint.statistics().resets == 0
        assert client.received == []


async def test_t15_not_for_a_connection_that_has_just_ended() -> None:
    async with open_world() as world, open_client(world.server) as client:
        client.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
        world.handlers[0].peer.close(4200)
        await world.until(lambda: world.handlers[0].ends)
        client.quic.send_ping(1)
        await client.flush()
        await world.until(lambda: world.endpoint.statistics().dropped[Drop.PARTED.value] >= 1)
        assert world.endpoint.statistics().resets == 0


async def test_t15_not_for_another_workers_connection() -> None:
    async with open_world(worker=1, workers=2) as world, open_client(world.server, connect=False) as client:
        await client.throw(b"\x40\xe9\x02" + bytes(8) + bytes(40))
        await world.until(lambda: world.endpoint.statistics().dropped[Drop.OTHER_WORKER.value] == 1)
        await client.throw(b"\x40\xe9\x03" + bytes(8) + bytes(40))  # of a third worker, before there were but two
        await world.until(lambda: world.endpoint.statistics().resets == 1)
