"""A durable uplink at the node: Accepted when the stream has spoken, and every message asked is in the books."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway._framing import ChatFrame, build_chat, parse_frame, parse_upstream
from gateway.backends.memory import MemoryBus
from gateway.core.books import books
from gateway.core.hub import Hub, HubSettings
from gateway.core.ports import Bus, Confirmation, StreamItem
from gateway.core.uplink import DurableUplink
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, MessageAck, Signal, SyncRequest
from gateway.protocol.types import AckStatus, MsgType
from tests.support.peer import Peer
from tests.support.world import open_world

durable_world = partial(open_world, adjust=lambda settings: msgspec.structs.replace(settings, durable=True))
SUBJECT = "im.logic.durable"
ANNA = 1001


class Slow(MemoryBus):
    """Its stream says nothing until it is told what to say."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.asked: list[tuple[str, Callable[[Confirmation], None]]] = []

    def publish_durable(self, subject: str, payload: bytes, key: str, done: Callable[[Confirmation], None]) -> bool:
        if not self.full:
            self.asked.append((key, done))
        return not self.full


def account(hub: Hub) -> dict[str, int]:
    """The uplink's; all of them must be balanced."""
    accounts = {each.name: each for each in books(hub)}
    assert all(each.balanced for each in accounts.values()), accounts
    return {"asked": accounts["uplink"].came, **{key: n for key, n in accounts["uplink"].became.items() if n}}


async def say(peer: Peer, msg_id: str, **fields: object) -> int:
    return await peer.send(ChatMessage(msg_id=msg_id, to_user=1002, content="hej", **fields))  # type: ignore[arg-type]


async def test_accepted_says_that_the_stream_has_it(autojump_clock: MockClock) -> None:
    async with durable_world() as world:
        peer = await world.seated(ANNA)
        seq = await say(peer, "m1")
        frame = await peer.frame()
        assert frame is not None
        assert frame.seq == seq
        ack = msgspec.structs.asdict(await _as_ack(peer, frame))
        assert (ack["msg_id"], ack["status"], ack["code"]) == ("m1", AckStatus.ACCEPTED, 0)
        assert world.upstream == []  # nothing of it went the other way
        taken: list[StreamItem] = []
        bus = world.hub.bus
        assert isinstance(bus, MemoryBus)
        bus.consume(SUBJECT, taken.append, group="logic-group")
        await wait_all_tasks_blocked()
        (item,) = taken
        up = parse_upstream(item.payload)
        (connection,) = world.hub.registry.of_user(ANNA)
        assert (up.user_id, up.conn_id, up.node_id, up.msg_type) == (ANNA, connection.id, "node-1", MsgType.MESSAGE)
        assert account(world.hub) == {"asked": 1, "confirmed": 1}
        assert world.hub.metrics.messages_received == 1
        assert world.hub.metrics.latency.counts[0] == 2  # the way up, and the answer's way down


async def _as_ack(peer: Peer, frame: object = None) -> MessageAck:
    if frame is not None:
        peer.frames.insert(0, frame)  # type: ignore[arg-type]
    return await peer.receive(MessageAck)


async def test_no_answer_before_the_streams_word(autojump_clock: MockClock) -> None:
    bus = Slow()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with durable_world(bus=bus) as world:
            peer = await world.seated(ANNA)
            for number in range(4):
                await say(peer, f"m{number}")
            with trio.move_on_after(60):
                await peer.frame()
            assert account(world.hub) == {"asked": 4, "waiting": 4}
            assert [key for key, _ in bus.asked] == [f"{ANNA}.m{number}" for number in range(4)]
            words = [Confirmation.CONFIRMED, Confirmation.REFUSED, Confirmation.UNKNOWN, Confirmation.REPEATED]
            for (_, done), word in zip(bus.asked, words, strict=True):
                done(word)
            acks = [await _as_ack(peer) for _ in words]
            refused = (AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)
            assert [(each.status, each.code) for each in acks] == [
                (AckStatus.ACCEPTED, 0), refused, refused, (AckStatus.ACCEPTED, 0),
            ]  # fmt: skip
            assert [each.msg_id for each in acks] == ["m0", "m1", "m2", "m3"]
            assert account(world.hub) == {"asked": 4, "confirmed": 1, "refused": 1, "unknown": 1, "repeated": 1}
            (asked,) = await world.wait_upstream(1)  # Logic may be done with it: it is asked to answer again
            assert asked.frame.encode()[6:].count(b"m3") == 1
        nursery.cancel_scope.cancel()


async def test_a_bus_without_room_refuses_at_once(autojump_clock: MockClock) -> None:
    bus = Slow()
    bus.full = True
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with durable_world(bus=bus) as world:
            peer = await world.seated(ANNA)
            await say(peer, "m1")
            ack = await _as_ack(peer)
            assert (ack.status, ack.code) == (AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)
            assert account(world.hub) == {"asked": 0}
        nursery.cancel_scope.cancel()


async def test_its_connection_may_have_gone(autojump_clock: MockClock) -> None:
    bus = Slow()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with durable_world(bus=bus) as world:
            peer = await world.seated(ANNA)
            for number in range(3):
                await say(peer, f"m{number}")
            await wait_all_tasks_blocked()
            await peer.hang_up()
            await wait_all_tasks_blocked()
            for (_, done), word in zip(bus.asked, Confirmation, strict=False):
                done(word)
            assert account(world.hub) == {"asked": 3, "confirmed": 1, "refused": 1, "repeated": 1}
        nursery.cancel_scope.cancel()


async def test_a_reader_that_never_reads_its_answers_is_closed(autojump_clock: MockClock) -> None:
    bus = Slow()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        limits = msgspec.structs.replace(HubSettings(node_id="x").limits, outbox_bytes=70_000, message_burst=10_000)
        async with durable_world(bus=bus, limits=limits) as world:
            peer = await world.seated(ANNA)
            await say(peer, "m")
            await wait_all_tasks_blocked()
            (_, done) = bus.asked[0]
            for _ in range(1_000):
                done(Confirmation.CONFIRMED)
                world.hub.metrics.uplink_asked += 1
                world.hub.metrics.uplink_waiting += 1
            world.hub.metrics.uplink_asked -= 1
            world.hub.metrics.uplink_waiting -= 1
            (connection,) = world.hub.registry.of_user(ANNA)
            assert connection.code == Code.SLOW_CONSUMER
            account(world.hub)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(msg_id="no good!", to_user=1002),
        ChatMessage(msg_id="m1"),
        ChatMessage(msg_id="m1", to_user=1002, from_user=7),
        ChatMessage(msg_id="m1", to_user=1002, group_id=1),
    ],
)
async def test_t26_what_breaks_the_rules_reaches_no_stream(autojump_clock: MockClock, message: ChatMessage) -> None:
    bus = Slow()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with durable_world(bus=bus) as world:
            peer = await world.seated(ANNA)
            await peer.send(message)
            ack = await _as_ack(peer)
            assert (ack.status, ack.code) == (AckStatus.REJECTED, Code.INVALID_PAYLOAD)
            assert bus.asked == []
            account(world.hub)
        nursery.cancel_scope.cancel()


async def test_over_the_rate_it_waits_as_ever(autojump_clock: MockClock) -> None:
    async with durable_world() as world:
        peer = await world.seated(ANNA)
        began = trio.current_time()
        for number in range(world.hub.limits.message_burst + 100):
            await say(peer, f"m{number}")
        for _ in range(world.hub.limits.message_burst + 100):
            ack = await _as_ack(peer)
            assert ack.status == AckStatus.ACCEPTED
        assert trio.current_time() - began > 1
        assert world.hub.metrics.throttled == 1


async def test_receipts_signals_and_syncs_go_over_the_bus(autojump_clock: MockClock) -> None:
    async with durable_world() as world:
        peer = await world.seated(ANNA)
        await peer.send(MessageAck(msg_id="a", status=AckStatus.DELIVERED, server_seq=1))
        await peer.send(Signal(to_user=1002, kind="typing"))
        await peer.send(SyncRequest(cursor=1))
        ups = await world.wait_upstream(3)
        assert [up.msg_type for up in ups] == [MsgType.MESSAGE_ACK, MsgType.SIGNAL, MsgType.SYNC]
        assert account(world.hub) == {"asked": 0}


def test_it_needs_a_bus_that_keeps_streams() -> None:
    class Plain:
        pass

    bus: Bus = Plain()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="Plain keeps no streams"):
        DurableUplink(None, bus)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", list(Confirmation))
async def test_a_task_may_wait_for_the_word(autojump_clock: MockClock, word: Confirmation) -> None:
    """What comes before a handshake is complete goes this way."""
    bus = Slow()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with durable_world(bus=bus) as world:
            await world.seated(ANNA)
            (connection,) = world.hub.registry.of_user(ANNA)
            assert connection.session is not None
            assert world.hub.uplink is not None
            frame = parse_frame(MsgType.MESSAGE, build_chat(1, 1, "m1", 0, 1002, "hej", 0, 1, 0, 0)[6:])
            assert isinstance(frame, ChatFrame)
            kept: list[bool] = []

            async def keep() -> None:
                kept.append(await world.hub.uplink.keep(connection, connection.session, frame))  # type: ignore[union-attr,arg-type]

            async with trio.open_nursery() as asking:
                asking.start_soon(keep)
                await wait_all_tasks_blocked()
                assert kept == []
                bus.asked[0][1](word)
            assert kept == [word in (Confirmation.CONFIRMED, Confirmation.REPEATED)]
            bus.full = True
            await keep()
            assert kept[1:] == [False]
            uplink = {each.name: each for each in books(world.hub)}["uplink"]
            assert uplink.balanced
            assert uplink.came == 1
        nursery.cancel_scope.cancel()
