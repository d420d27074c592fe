"""From a Message to Stored, to deliveries, to the sender's other devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.lowlevel

from gateway._framing import HEADER, build_chat, build_downstream
from gateway.backends.memory import MemoryBus
from gateway.logic.settings import LogicSettings
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import Undelivered
from gateway.protocol.messages import ChatMessage, FileChunk, MessageAck
from gateway.protocol.types import AckStatus, Action, MsgType
from tests.logic.world import World, errors, open_world

STORED, REJECTED = AckStatus.STORED, AckStatus.REJECTED


async def test_stored_then_delivered(world: World) -> None:
    alice = await world.device(1001).online()
    bob = await world.device(1002).online()
    seq = alice.chat("m-1", 1002, "Grüße ☃", sent_at=77)
    await world.settle()
    [(ack_seq, ack)] = alice.received
    assert isinstance(ack, MessageAck)
    assert (ack_seq, ack.msg_id, ack.status, ack.code, ack.server_seq) == (seq, "m-1", STORED, 0, 1)
    assert ack.timestamp > 1_700_000_000_000
    [(seq, _)] = bob.received
    [chat] = bob.chats
    assert seq == 0
    assert (chat.msg_id, chat.from_user, chat.to_user, chat.group_id) == ("m-1", 1001, 1002, 0)
    assert (chat.content, chat.timestamp, chat.server_seq) == ("Grüße ☃", 77, 1)


async def test_the_server_says_who_sent_it_and_when_if_the_sender_does_not(world: World) -> None:
    alice, bob = world.device(1001), await world.device(1002).online()
    alice.chat("m-1", 1002, from_user=1001, sent_at=0)
    await world.settle()
    assert [(chat.from_user, chat.timestamp) for chat in bob.chats] == [(1001, 1_700_000_000_000)]


async def test_timelines_are_numbered_per_user_without_a_hole(world: World) -> None:
    alice, bob, carol = [await world.device(user).online() for user in (1, 2, 3)]
    alice.chat("a1", 2)
    bob.chat("b1", 1)
    alice.chat("a2", 3)
    carol.chat("c1", 2)
    await world.settle()
    assert [ack.server_seq for ack in alice.acks] == [1, 3]
    assert [(chat.msg_id, chat.server_seq) for chat in alice.chats] == [("b1", 2)]
    assert [(chat.msg_id, chat.server_seq) for chat in bob.chats] == [("a1", 1), ("c1", 3)]
    for device, expected in ((alice, "a1 b1 a2"), (bob, "a1 b1 c1"), (carol, "a2 c1")):
        history = await device.history()
        assert [chat.msg_id for chat in history] == expected.split()
        assert [chat.server_seq for chat in history] == list(range(1, len(history) + 1))


async def test_what_a_user_is_sent_comes_in_the_order_of_the_timeline(world: World) -> None:
    """Acknowledgements count: they take a place in the sender's timeline."""
    devices = [await world.device(user).online() for user in range(1, 6)]
    for i in range(60):
        for device in devices:
            device.chat(f"m{i}", (device.user + i) % 5 + 1)
        if i % 7 == 0:
            await trio.lowlevel.checkpoint()
    await world.settle()
    for device in devices:
        seen = [each.server_seq for _, each in device.received if isinstance(each, MessageAck | ChatMessage)]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) > 60


async def test_one_senders_messages_keep_their_order(world: World) -> None:
    alice, bob = world.device(1), await world.device(2).online()
    for i in range(500):
        alice.chat(f"m{i}", 2)
        if i % 50 == 0:
            await trio.lowlevel.checkpoint()
    await world.settle()
    assert [chat.msg_id for chat in bob.chats] == [f"m{i}" for i in range(500)]
    assert [ack.msg_id for ack in alice.acks] == [f"m{i}" for i in range(500)]


async def test_all_devices_of_the_recipient_and_the_others_of_the_sender(world: World) -> None:
    phone = await world.device(1, "phone").online()
    laptop = await world.device(1, "laptop", "node-2").online()
    first = await world.device(2, "first").online()
    second = await world.device(2, "second").online()
    third = await world.device(2, "third", "node-2").online()
    phone.chat("m-1", 2)
    await world.settle()
    assert phone.chats == []
    assert [(chat.msg_id, chat.from_user, chat.to_user, chat.server_seq) for chat in laptop.chats] == [("m-1", 1, 2, 1)]
    assert laptop.acks == []
    for device in (first, second, third):
        assert [(chat.msg_id, chat.server_seq) for chat in device.chats] == [("m-1", 1)]
    assert len(world.envelopes) == 4  # the ack, the copy, and one for each of the recipient's nodes


async def test_to_oneself_it_is_one_message_for_the_other_devices(world: World) -> None:
    phone = await world.device(1, "phone").online()
    laptop = await world.device(1, "laptop").online()
    phone.chat("note", 1)
    await world.settle()
    assert [ack.server_seq for ack in phone.acks] == [1]
    assert [chat.server_seq for chat in laptop.chats] == [1]
    assert [chat.msg_id for chat in await phone.history()] == ["note"]


async def test_who_is_offline_finds_it_by_sync(world: World) -> None:
    alice, bob = world.device(1), world.device(2)
    for i in range(3):
        alice.chat(f"m{i}", 2)
    await world.settle()
    assert bob.received == []
    assert [ack.status for ack in alice.acks] == [STORED] * 3
    assert [chat.msg_id for chat in await bob.history()] == ["m0", "m1", "m2"]


async def test_fifty_duplicates_at_once_are_one_message(world: World) -> None:
    bob = await world.device(2).online()
    devices = [world.device(1, f"device-{i}", f"node-{i % 2}") for i in range(50)]
    async with trio.open_nursery() as nursery:

        async def say(i: int) -> None:
            await trio.sleep(0.0005 * (i % 5))
            devices[i].chat("same", 2, f"copy {i}")

        for i in range(50):
            nursery.start_soon(say, i)
    await world.settle()
    assert [(ack.status, ack.server_seq) for device in devices for ack in device.acks] == [(STORED, 1)] * 50
    assert len(bob.chats) == 1
    assert [chat.content for chat in await bob.history()] == [bob.chats[0].content]
    seen = world.service.statistics()
    assert (seen.stored, seen.repeated) == (1, 49)


async def test_a_msg_id_is_unique_per_sender_only(world: World) -> None:
    alice, carol, bob = world.device(1), world.device(3), await world.device(2).online()
    alice.chat("same", 2)
    carol.chat("same", 2)
    await world.settle()
    assert [(chat.from_user, chat.server_seq) for chat in bob.chats] == [(1, 1), (3, 2)]


@pytest.mark.parametrize(
    ("msg_id", "to", "group", "from_user", "content"),
    [
        ("", 2, 0, 0, "x"),
        ("a" * 65, 2, 0, 0, "x"),
        ("a b", 2, 0, 0, "x"),
        ("m", 0, 0, 0, "x"),
        ("m", -2, 0, 0, "x"),
        ("m", 0, -2, 0, "x"),
        ("m", 2, 3, 0, "x"),
        ("m", 2, 0, 3, "x"),
        ("m", 2, 0, 0, "x" * 32_769),
        ("m", 2, 0, 0, "é" * 16_385),
        ("m", 0, 3, 0, "no such group"),
    ],
)
async def test_what_is_not_valid_is_rejected_and_not_stored(
    world: World, msg_id: str, to: int, group: int, from_user: int, content: str
) -> None:
    alice = world.device(1)
    seq = alice.chat(msg_id, to, content, group=group, from_user=from_user)
    await world.settle()
    [(ack_seq, ack)] = alice.received
    assert isinstance(ack, MessageAck)
    assert (ack_seq, ack.status, ack.code, ack.server_seq) == (seq, REJECTED, Code.INVALID_PAYLOAD, 0)
    assert ack.msg_id == (msg_id if len(msg_id) <= 64 else "")
    assert await alice.history() == []


async def test_the_largest_numbers_and_texts(world: World) -> None:
    top = 2**63 - 1
    alice, bob = world.device(top), await world.device(top - 1).online()
    alice.chat("a" * 64, top - 1, "é" * 16_384, sent_at=2**64 - 1)
    alice.chat("nul", top - 1, "a\x00b")
    alice.chat("empty", top - 1, "")
    await world.settle()
    assert [chat.content for chat in bob.chats] == ["é" * 16_384, "a\x00b", ""]
    assert bob.chats[0].timestamp == top
    assert await bob.history() == bob.chats


async def test_garbage_on_the_bus_is_counted(world: World) -> None:
    world.bus.publish(world.subjects.upstream, b"")
    world.bus.publish(world.subjects.upstream, bytes(100))
    world.bus.publish(world.subjects.undelivered, bytes(100))
    nobody = world.device(0)
    nobody.chat("m", 2)
    await world.settle()
    assert world.service.statistics().malformed == 4
    alice = world.device(1)
    alice.chat("m", 2)
    await world.settle()
    assert [ack.status for ack in alice.acks] == [STORED]


async def test_an_envelope_from_a_node_that_cannot_be_harms_nobody(world: World) -> None:
    stranger = world.device(1, node="no.such node")
    stranger.chat("m", 2)
    alice = world.device(1)
    alice.chat("n", 2)
    await world.settle()
    assert [ack.msg_id for ack in alice.acks] == ["n"]
    assert world.service.statistics().not_sent == 1


async def test_a_type_that_nobody_handles_is_an_error(world: World) -> None:
    alice = world.device(1)
    seq = alice.say(FileChunk(file_id="f", data=b"x"), MsgType.FILE_CHUNK)
    await world.settle()
    assert [at for at, _ in alice.received] == [seq]
    assert [error.code for error in errors(alice)] == [Code.UNKNOWN_TYPE]


async def test_bounded_in_flight(path: Path) -> None:
    async with open_world(path, LogicSettings(max_waiting=10)) as world:
        alice = world.device(1)
        for i in range(40):
            alice.chat(f"m{i}", 2)
        await world.settle()
        outcomes = {ack.msg_id: (ack.status, ack.code) for ack in alice.acks}
        assert len(outcomes) == 40
        refused = [msg_id for msg_id, outcome in outcomes.items() if outcome == (REJECTED, 4402)]
        assert len(refused) >= 20
        for msg_id in refused:  # the client tries again
            alice.chat(msg_id, 2)
            await world.settle()
        assert {chat.msg_id for chat in await alice.history()} == set(outcomes)
        assert world.service.statistics().waiting == world.service.statistics().waiting_bytes == 0


async def test_bounded_in_bytes(path: Path) -> None:
    async with open_world(path, LogicSettings(max_waiting_bytes=100_000)) as world:
        alice = world.device(1)
        for i in range(20):
            alice.chat(f"m{i}", 2, "x" * 30_000)
        await world.settle()
        statuses = [ack.status for ack in alice.acks]
        assert statuses.count(STORED) in range(1, 10)
        assert len(statuses) == 20


async def test_a_delivery_that_missed_its_user_follows_them(world: World) -> None:
    old = world.device(2, "phone")
    new = await world.device(2, "phone", "node-2").online()
    body = build_chat(0, 1, "m", 1, 2, "x", 0, 1, 0, 1)[HEADER:]
    down = build_downstream(2, (old.conn_id,), "", "", 0, Action.DELIVER, 0, MsgType.MESSAGE, body, 0)
    report = Undelivered(node_id="node-1", user_id=2, conn_id=old.conn_id, reason="gone", downstream=down)
    world.bus.publish(world.subjects.undelivered, report.encode())
    await world.settle()
    assert [chat.msg_id for chat in new.chats] == ["m"]
    down = build_downstream(2, (new.conn_id,), "", "", 0, Action.DELIVER, 0, MsgType.MESSAGE, body, 0)
    report = Undelivered(node_id="node-2", user_id=2, conn_id=new.conn_id, reason="gone", downstream=down)
    world.bus.publish(world.subjects.undelivered, report.encode())
    await world.settle()
    assert len(new.chats) == 1


class FullBus(MemoryBus):
    """Says no to everything for nodes while `full`."""

    full = False

    def publish(self, subject: str, payload: bytes) -> bool:
        return not (self.full and ".access." in subject) and super().publish(subject, payload)


async def test_a_full_bus_is_asked_again(path: Path) -> None:
    bus = FullBus()
    async with open_world(path, bus=bus) as world:
        alice, bob = world.device(1), await world.device(2).online()
        bus.full = True
        alice.chat("m", 2)
        await bus.drain()
        bus.full = False
        await world.settle()
        assert [ack.status for ack in alice.acks] == [STORED]
        assert [chat.msg_id for chat in bob.chats] == ["m"]


async def test_a_bus_that_stays_full_costs_deliveries_but_no_message(path: Path) -> None:
    bus = FullBus()
    async with open_world(path, LogicSettings(send_patience=0.05), bus=bus) as world:
        alice, bob = world.device(1), await world.device(2).online()
        bus.full = True
        for i in range(20):
            alice.chat(f"m{i}", 2)
        await world.settle()
        assert world.service.statistics().not_sent == 40
        bus.full = False
        for i in range(20):
            alice.chat(f"m{i}", 2)
        await world.settle()
        assert [ack.status for ack in alice.acks] == [STORED] * 20
        assert len(await bob.history()) == 20
