"""Files in Logic: an offer becomes a message that nobody can miss, and only members fetch a group's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.logic.groups import create_group
from gateway.logic.settings import LogicSettings
from gateway.logic.store import Store, StoreFailed
from gateway.protocol.codes import Code
from gateway.protocol.files import FILE_CONTENT, file_reference, parse_announcement
from gateway.protocol.messages import FileAck, FileOffer
from gateway.protocol.types import AckStatus, MsgType
from tests.logic.world import World, open_world
from tests.support.files import offer_of

STORED, REJECTED = AckStatus.STORED, AckStatus.REJECTED
REFERENCE = file_reference(1, "f-1")
OFFER = offer_of(b"abc", REFERENCE, to_user=2)


async def test_an_offer_is_a_message_and_an_offer(world: World) -> None:
    alice, laptop = await world.device(1).online(), await world.device(1, "laptop").online()
    bob = await world.device(2).online()
    alice.say(OFFER, MsgType.FILE_OFFER)
    await world.settle()
    assert [(ack.msg_id, ack.status, ack.server_seq) for ack in alice.acks] == [(REFERENCE, STORED, 1)]
    for device in (bob, laptop):
        (chat,) = device.chats
        assert (chat.msg_id, chat.from_user, chat.to_user, chat.content_type) == (REFERENCE, 1, 2, FILE_CONTENT)
        said = parse_announcement(chat.content)
        assert said is not None
        assert (said.file_id, said.name, said.size, said.sha256) == (REFERENCE, "a.bin", 3, OFFER.sha256.hex())
        assert device.of(FileOffer) == [OFFER]
    assert alice.of(FileOffer) == []
    assert alice.chats == []


async def test_whoever_is_offline_finds_it_by_sync(world: World) -> None:
    alice = await world.device(1).online()
    alice.say(OFFER, MsgType.FILE_OFFER)
    await world.settle()
    (chat,) = await world.device(2).history()
    assert parse_announcement(chat.content) is not None


async def test_offered_again_it_is_acknowledged_again_and_delivered_once(world: World) -> None:
    alice, bob = await world.device(1).online(), await world.device(2).online()
    for _ in range(2):
        alice.say(OFFER, MsgType.FILE_OFFER)
        await world.settle()
    assert [ack.status for ack in alice.acks] == [STORED, STORED]
    assert (len(bob.chats), len(bob.of(FileOffer))) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"file_id": file_reference(2, "f-1")},
        {"file_id": "f-1"},
        {"file_id": ""},
        {"file_id": "x" * 100},
        {"group_id": 7},
        {"to_user": 0},
        {"name": "../x"},
        {"sha256": b""},
    ],
)
async def test_an_offer_that_cannot_be_is_rejected(path: Path, wrong: dict[str, Any]) -> None:
    async with open_world(path) as world:
        alice, bob = await world.device(1).online(), await world.device(2).online()
        fields: dict[str, Any] = {"file_id": REFERENCE, "to_user": 2} | wrong
        alice.say(offer_of(b"abc", **fields), MsgType.FILE_OFFER)
        await world.settle()
        assert [(ack.status, ack.code) for ack in alice.acks] == [(REJECTED, Code.INVALID_PAYLOAD)]
        assert bob.received == []


async def test_too_many_at_once_are_rejected(path: Path) -> None:
    async with open_world(path, LogicSettings(max_waiting=2, max_syncs=1)) as world:
        alice = await world.device(1).online()
        for number in range(5):
            alice.say(offer_of(b"abc", file_reference(1, f"f-{number}"), to_user=2), MsgType.FILE_OFFER)
            alice.say(FileAck(file_id=REFERENCE, message="7"), MsgType.FILE_ACK)
        await world.settle()
        assert {(ack.status, ack.code) for ack in alice.acks} == {(STORED, 0), (REJECTED, Code.UPSTREAM_UNAVAILABLE)}
        assert {ack.code for ack in alice.of(FileAck)} == {Code.INVALID_PAYLOAD, Code.UPSTREAM_UNAVAILABLE}


async def test_a_groups_file_is_announced_to_its_members_and_fetched_by_them_alone(path: Path) -> None:
    create_group(path, 7, [1, 2, 3])
    async with open_world(path) as world:
        alice, mallory = await world.device(1).online(), await world.device(4).online()
        members = [await world.device(user).online() for user in (2, 3)]
        offer = offer_of(b"abc", REFERENCE, to_user=0, group_id=7)
        alice.say(offer, MsgType.FILE_OFFER)
        mallory.say(offer_of(b"abc", file_reference(4, "f"), to_user=0, group_id=7), MsgType.FILE_OFFER)
        await world.settle()
        assert [device.of(FileOffer) for device in members] == [[offer], [offer]]
        assert [(ack.status, ack.code) for ack in mallory.acks] == [(REJECTED, Code.INVALID_PAYLOAD)]
        ask = FileAck(file_id=REFERENCE, message="7", received=1)
        for device in (*members, mallory):
            device.say(ask, MsgType.FILE_ACK)
        for text in ("8", "", "x", "-7", "9" * 30, "\u0667"):
            mallory.say(FileAck(file_id=REFERENCE, message=text), MsgType.FILE_ACK)
        await world.settle()
        assert [device.of(FileAck) for device in members] == [[ask], [ask]]
        assert [ack.code for ack in mallory.of(FileAck)] == [Code.INVALID_PAYLOAD] * 7


async def test_when_the_store_cannot_say_nobody_may(path: Path) -> None:
    def broken(store: Store) -> Store:
        async def members(group_ids: object) -> dict[int, frozenset[int]]:
            raise StoreFailed("away")

        store.members = members  # type: ignore[method-assign]
        return store

    create_group(path, 7, [2])
    async with open_world(path, wrap=broken) as world:
        bob = await world.device(2).online()
        bob.say(FileAck(file_id=REFERENCE, message="7"), MsgType.FILE_ACK)
        await world.settle()
        assert [ack.code for ack in bob.of(FileAck)] == [Code.UPSTREAM_UNAVAILABLE]
