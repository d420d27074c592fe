"""T16 to T19 and T46 at the endpoint: an innocent client beside, and nothing left behind."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import trio
import trio.testing
from aioquic.quic.events import DatagramFrameReceived

from gateway.protocol.codes import Code
from gateway.transports.quic.hardening import HardenedConnection
from tests.transports.quic.client import open_client
from tests.transports.quic.pair import forged, stream_frame, varint
from tests.transports.quic.world import Echo, World, open_world

ATTACKS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "t16 challenges": (lambda n: b"\x1a" + n.to_bytes(8, "big"), Code.RATE_LIMITED),
    "t16 retirements": (lambda n: b"\x19" + varint(n % 3 + 1), Code.RATE_LIMITED),
    "t17 stops": (lambda n: b"\x05" + varint(4 * (n % 90), 7), Code.RATE_LIMITED),
    "t17 resets": (lambda n: b"\x04" + varint(4 * (n % 90), 7, 0), Code.RATE_LIMITED),
    "t18 sparse": (lambda n: stream_frame(4 * (n % 90), 262_143, b"x"), 0),
    "t21 acknowledgements": (lambda n: b"\x02" + varint(10_000 + n, 0, 0, 0), 0),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_ends_the_attacker_only(attack: str) -> None:
    frames, code = ATTACKS[attack]
    async with open_world() as world, open_client(world.server) as innocent, open_client(world.server) as client:
        echo: Echo = world.handlers[1]
        client.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
        for number in range(600):
            await client.throw(forged(client.quic, frames(number)))
            if echo.ends:
                break
            if number % 50 == 0:
                await innocent.say(b"x")
        await echo.until(lambda: echo.ends)
        assert [ended for ended, _ in echo.ends] == [code]
        await innocent.say(b"y")
        await innocent.until(lambda: innocent.streams.get(0, b"").endswith(b"y"))
        assert world.endpoint.statistics().connections == 1


async def test_t19_a_flood_of_datagrams_is_taken_as_it_comes_and_nothing_grows() -> None:
    """What may be done about it is the Connection's: it drops and counts. Here nothing waits in a queue."""
    async with open_world() as world, open_client(world.server) as innocent, open_client(world.server) as client:
        echo: Echo = world.handlers[1]
        echo.echoes = False
        for number in range(1_000):
            await client.throw(forged(client.quic, b"\x31\x40\x64" + bytes(100)))
            if number % 100 == 0:
                await innocent.say(b"x")
        await echo.until(lambda: sum(isinstance(event, DatagramFrameReceived) for event in echo.events) > 500)
        await innocent.until(lambda: bytes(innocent.streams.get(0, b"")) == b"x" * 10)
        assert not echo.peer.quic._events
        assert echo.ends == []


async def test_t19_datagrams_that_nobody_takes_are_dropped() -> None:
    async with open_world() as world, open_client(world.server) as client:
        echo: Echo = world.handlers[0]
        client.intercept = lambda _data: None  # it acknowledges no more, so the window closes
        taken = [echo.peer.send_datagram(bytes(1_000)) for _ in range(500)]
        assert sum(taken) == 64
        await world.until(lambda: echo.peer.quic._loss.bytes_in_flight > 5_000)
        assert sum(echo.peer.send_datagram(bytes(1_000)) for _ in range(500)) <= 64


async def come_and_go(world: World, count: int) -> None:
    async def one(number: int) -> None:
        async with open_client(world.server) as client:
            await client.say(b"x", fin=True)
            await client.hear(b"x")
            peers = (each.peer for each in world.handlers if not each.peer.over)
            peer = next(each for each in peers if int.from_bytes(each.quic.path[2:4], "big") == client.port)
            if number % 3 == 0:
                client.quic.close(4200)
                await client.flush()
            elif number % 3 == 1:
                peer.close(4201)
            else:
                peer.abort()

    for start in range(0, count, 6):
        async with trio.open_nursery() as nursery:
            for number in range(start, start + 6):
                nursery.start_soon(one, number)


async def test_t46_who_has_gone_leaves_nothing_not_even_to_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.transports.quic.endpoint.LASTS", 0.3)
    async with open_world(idle_timeout=1.0) as world:
        await come_and_go(world, 6)
        await world.empty()
        world.handlers.clear()
        gc.collect()
        gc.disable()
        try:
            await come_and_go(world, 18)
            await world.empty()
            world.handlers.clear()
            await trio.testing.wait_all_tasks_blocked(0.05)
            left = [each for each in gc.get_objects() if type(each) is HardenedConnection]
        finally:
            gc.enable()
        await world.until(lambda: world.endpoint.statistics().connection_ids == 0)
        await world.until(lambda: world.endpoint.statistics().timers == 0)
        assert len(left) <= 2  # still in a frame, or on the heap of timers
