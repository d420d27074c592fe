"""Delivered and Read: kept, and told to the sender, now or when they come back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.logic.groups import create_group
from gateway.protocol.messages import MessageAck, SyncResponse
from gateway.protocol.types import AckStatus
from tests.logic.world import Device, World, open_world

STORED, DELIVERED, READ = AckStatus.STORED, AckStatus.DELIVERED, AckStatus.READ


def news(device: Device) -> list[tuple[str, int, int]]:
    """Receipts that came unasked."""
    return [
        (each.msg_id, each.status, each.server_seq)
        for seq, each in device.received
        if isinstance(each, MessageAck) and seq == 0
    ]


async def conversation(world: World) -> tuple[Device, Device]:
    """Alice has sent Bob "first" and "second"; hers are 1 and 2 of both timelines."""
    alice, bob = await world.device(1).online(), await world.device(2).online()
    alice.chat("first", 2)
    alice.chat("second", 2)
    await world.settle()
    return alice, bob


async def test_told_to_all_of_the_senders_devices(world: World) -> None:
    alice, bob = await conversation(world)
    tablet = await world.device(1, "tablet", "node-2").online()
    bob.ack("first", DELIVERED, 1)
    await world.settle()
    bob.ack("first", READ, 1)
    await world.settle()
    assert news(alice) == news(tablet) == [("first", DELIVERED, 1), ("first", READ, 1)]
    assert bob.acks == []


async def test_the_senders_own_place_is_told(world: World) -> None:
    alice, bob = await world.device(1).online(), world.device(2)
    for i in range(5):
        world.device(9).chat(f"x{i}", 2)
    await world.settle()
    alice.chat("m", 2)
    await world.settle()
    bob.ack("m", DELIVERED, 6)
    await world.settle()
    assert news(alice) == [("m", DELIVERED, 1)]


async def test_each_step_is_told_once_and_never_back(world: World) -> None:
    alice, bob = await conversation(world)
    for status in (DELIVERED, DELIVERED, READ, DELIVERED, READ):
        bob.ack("first", status, 1)
        await world.settle()
    assert [status for _, status, _ in news(alice)] == [DELIVERED, READ]


async def test_several_in_one_batch_are_told_as_the_furthest(world: World) -> None:
    alice, bob = await conversation(world)
    bob.ack("first", READ, 1)
    bob.ack("first", DELIVERED, 1)
    bob.ack("second", DELIVERED, 2)
    await world.settle()
    assert sorted(news(alice)) == [("first", READ, 1), ("second", DELIVERED, 2)]


async def test_read_without_delivered(world: World) -> None:
    alice, bob = await conversation(world)
    bob.ack("second", READ, 2)
    await world.settle()
    assert news(alice) == [("second", READ, 2)]


async def test_named_by_msg_id_only(world: World) -> None:
    alice, bob = await conversation(world)
    bob.ack("second", READ, 0)
    bob.ack("unheard-of", READ, 0)
    await world.settle()
    assert news(alice) == [("second", READ, 2)]


@pytest.mark.parametrize(
    ("msg_id", "seq"),
    [("second", 1), ("first", 3), ("first", 2**63), ("first", 2**64 - 1), ("nothing", 1)],
)
async def test_about_something_else_it_is_void(world: World, msg_id: str, seq: int) -> None:
    alice, bob = await conversation(world)
    bob.ack(msg_id, READ, seq)
    await world.settle()
    assert news(alice) == []


async def test_only_a_recipient_may_give_one(world: World) -> None:
    alice, _ = await conversation(world)
    world.device(3).ack("first", READ, 1)
    alice.ack("first", READ, 1)
    await world.settle()
    assert news(alice) == []


@pytest.mark.parametrize("status", [AckStatus.ACCEPTED, STORED, AckStatus.REJECTED])
async def test_other_statuses_are_dropped(world: World, status: AckStatus) -> None:
    alice, bob = await conversation(world)
    bob.ack("first", status, 1)
    await world.settle()
    assert news(alice) == []
    assert world.service.statistics().dropped == 1


async def test_an_offline_sender_learns_them_after_its_next_sync(world: World) -> None:
    alice, bob = await conversation(world)
    await alice.offline()
    bob.ack("first", READ, 1)
    bob.ack("second", DELIVERED, 2)
    await world.settle()
    back = await world.device(1).online()
    await back.sync(2)
    assert sorted(news(back)) == [("first", READ, 1), ("second", DELIVERED, 2)]
    assert isinstance(back.received[0][1], SyncResponse)
    again = await world.device(1).online()
    await again.sync(2)
    assert news(again) == []


async def test_they_come_after_the_last_page(world: World) -> None:
    alice, bob = await conversation(world)
    await alice.offline()
    bob.ack("first", READ, 1)
    await world.settle()
    back = world.device(1)
    await back.sync(0, 1)
    assert news(back) == []
    await back.sync(1, 1)
    assert news(back) == [("first", READ, 1)]


async def test_what_was_told_is_not_told_again(world: World) -> None:
    alice, bob = await conversation(world)
    bob.ack("first", READ, 1)
    await world.settle()
    await alice.sync(0)
    assert news(alice) == [("first", READ, 1)]


async def test_a_newer_status_is_owed_although_the_older_was_told(world: World) -> None:
    alice, bob = await conversation(world)
    bob.ack("first", DELIVERED, 1)
    await world.settle()
    await alice.offline()
    bob.ack("first", READ, 1)
    await world.settle()
    back = world.device(1)
    await back.sync(2)
    assert news(back) == [("first", READ, 1)]


async def test_they_survive_a_restart(path: Path) -> None:
    async with open_world(path) as world:
        alice, bob = await conversation(world)
        await alice.offline()
        bob.ack("first", READ, 1)
        await world.settle()
    async with open_world(path) as world:
        back = world.device(1)
        await back.sync(2)
        assert news(back) == [("first", READ, 1)]


async def test_of_a_group_message_the_first_of_each_kind_is_told_and_all_are_kept(path: Path) -> None:
    create_group(path, 7, [1, 2, 3, 4])
    async with open_world(path) as world:
        alice = await world.device(1).online()
        alice.chat("g", group=7)
        await world.settle()
        for user, status in ((2, DELIVERED), (3, DELIVERED), (3, READ), (2, READ)):
            world.device(user).ack("g", status, 1)
            await world.settle()
        assert news(alice) == [("g", DELIVERED, 1), ("g", READ, 1)]
    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT user_id, status FROM timelines ORDER BY user_id").fetchall()
    assert kept == [(1, 0), (2, READ), (3, READ), (4, 0)]
