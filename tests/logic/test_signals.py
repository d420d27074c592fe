"""Signals: now or never."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.logic.settings import LogicSettings
from gateway.protocol.messages import Signal
from tests.logic.world import World, open_world


async def test_to_all_devices_of_the_user_with_the_senders_name_and_an_end(world: World) -> None:
    alice = await world.device(1).online()
    phone = await world.device(2, "phone").online()
    laptop = await world.device(2, "laptop", "node-2").online()
    alice.signal(to=2, kind="typing", data=b"\x01")
    await world.settle()
    expected = [(0, Signal(to_user=2, from_user=1, kind="typing", data=b"\x01"))]
    assert phone.received == laptop.received == expected
    assert alice.received == []
    assert all(expiry > 1_700_000_000_000 for expiry in world.expiries)


async def test_nothing_is_stored(world: World) -> None:
    alice, bob = world.device(1), world.device(2)
    alice.signal(to=2)
    await world.settle()
    assert await bob.history() == []
    await bob.online()
    assert bob.of(Signal) == []


async def test_to_oneself_it_reaches_the_other_devices(world: World) -> None:
    phone, laptop = await world.device(1, "phone").online(), await world.device(1, "laptop").online()
    phone.signal(to=1, kind="cursor")
    await world.settle()
    assert phone.received == []
    assert [signal.kind for signal in laptop.of(Signal)] == ["cursor"]


@pytest.mark.parametrize(
    ("to", "group", "kind", "data", "claim"),
    [
        (0, 0, "typing", b"", 0),
        (2, 7, "typing", b"", 0),
        (-2, 0, "typing", b"", 0),
        (2, -1, "typing", b"", 0),
        (2, 0, "k" * 65, b"", 0),
        (2, 0, "typing", bytes(1_025), 0),
        (2, 0, "typing", b"", 2),
    ],
)
async def test_what_is_not_valid_is_dropped(
    world: World, to: int, group: int, kind: str, data: bytes, claim: int
) -> None:
    alice, bob = world.device(1), await world.device(2).online()
    alice.signal(to=to, group=group, kind=kind, data=data, from_user=claim)
    await world.settle()
    assert bob.received == alice.received == []
    assert world.service.statistics().dropped == 1


async def test_over_the_bound_they_are_dropped(path: Path) -> None:
    async with open_world(path, LogicSettings(max_signals=5)) as world:
        alice, bob = world.device(1), await world.device(2).online()
        for _ in range(50):
            alice.signal(to=2)
        await world.settle()
        assert 5 <= len(bob.received) < 50
        assert world.service.statistics().dropped == 50 - len(bob.received)
