"""Lanes: each has its order, its room and its way; datagrams may be lost and disturb nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway._framing import build_downstream, build_heartbeat
from gateway.core.books import books
from gateway.core.lanes import KEPT_BEFORE_LOGIN
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    ChatMessage,
    ErrorMessage,
    Event,
    GoAway,
    Heartbeat,
    Kick,
    MessageAck,
    Signal,
    SyncRequest,
    encode,
    packet,
)
from gateway.protocol.types import AckStatus, Action, Lane, MsgType
from tests.support.laned import MemoryLanes, Stream
from tests.support.world import World, open_world

pytestmark = pytest.mark.usefixtures("autojump_clock")


@asynccontextmanager
async def lanes(*, messages: bool = True, **settings: Any) -> AsyncIterator[tuple[World, MemoryLanes]]:
    """A seated connection with both lanes open."""
    async with open_world(**settings) as world:
        link = MemoryLanes()
        world.serve(link)
        if messages:
            await link.open_messages()
        await link.log_in(1001)
        yield world, link
        for account in books(world.hub):
            assert account.balanced, account


def delivery(message: Any, kind: MsgType, user: int = 1001) -> bytes:
    return build_downstream(user, (), "", "", 0, Action.DELIVER, 0, kind, packet(message), 0)


async def down(world: World, message: Any, kind: MsgType = MsgType.MESSAGE) -> None:
    world.down(delivery(message, kind))
    await wait_all_tasks_blocked()


async def test_a_message_is_answered_on_the_lane_that_it_came_by() -> None:
    async with lanes() as (world, link):
        await link.say(ChatMessage(msg_id="a", to_user=1002), Lane.MESSAGE)
        await link.say(ChatMessage(msg_id="b", to_user=1002), Lane.CONTROL)
        assert [ack.msg_id for ack in link.heard(Lane.MESSAGE) if isinstance(ack, MessageAck)] == ["a"]
        assert [ack.msg_id for ack in link.heard(Lane.CONTROL) if isinstance(ack, MessageAck)] == ["b"]
        assert len(await world.wait_upstream(2)) == 2


async def test_deliveries_take_the_message_lane_and_control_what_is_its_own() -> None:
    async with lanes() as (world, link):
        for number in range(3):
            world.down(delivery(ChatMessage(msg_id=f"m-{number}"), MsgType.MESSAGE))
        world.down(delivery(MessageAck(msg_id="x", status=AckStatus.STORED), MsgType.MESSAGE_ACK))
        world.down(delivery(Event(kind="k"), MsgType.EVENT))
        await down(world, GoAway(), MsgType.GO_AWAY)
        assert [type(each).__name__ for each in link.heard(Lane.CONTROL)] == ["GoAway"]
        said = link.heard(Lane.MESSAGE)
        assert [each.msg_id for each in said if isinstance(each, ChatMessage)] == ["m-0", "m-1", "m-2"]
        assert [type(each).__name__ for each in said[3:]] == ["MessageAck", "Event"]


async def test_without_a_message_lane_everything_goes_by_control() -> None:
    async with lanes(messages=False) as (world, link):
        await down(world, ChatMessage(msg_id="m"))
        assert [type(each).__name__ for each in link.heard(Lane.CONTROL)] == ["ChatMessage"]


async def test_a_full_message_lane_does_not_hold_up_control_nor_a_full_control_the_messages() -> None:
    async with lanes() as (world, link):
        link.room[Lane.MESSAGE] = 10
        await down(world, ChatMessage(msg_id="m-1"))
        await down(world, ChatMessage(msg_id="m-2"))
        await link.say(Heartbeat())
        assert [type(each).__name__ for each in link.heard()] == ["Heartbeat"]
        assert link.heard(Lane.MESSAGE) == []
        link.take(Lane.MESSAGE)
        assert [each.msg_id for each in link.heard(Lane.MESSAGE) if isinstance(each, ChatMessage)] == ["m-1", "m-2"]

        link.room[Lane.CONTROL] = 3
        await link.say(Heartbeat())
        await link.say(Heartbeat())
        await down(world, ChatMessage(msg_id="m-3"))
        assert [type(each).__name__ for each in link.heard(Lane.MESSAGE)] == ["ChatMessage"]
        link.take(Lane.CONTROL)
        await wait_all_tasks_blocked()
        assert len(link.heard()) == 2


async def test_half_a_frame_on_one_lane_waits_and_the_other_lane_goes_on() -> None:
    async with lanes() as (_, link):
        receiver = await link.told()
        half = encode(ChatMessage(msg_id="a", to_user=1002), seq=1, timestamp=1)
        receiver.feed(Lane.MESSAGE, half[:20])
        await link.say(Heartbeat())
        assert len(link.heard()) == 1
        receiver.feed(Lane.MESSAGE, half[20:])
        assert len(link.heard(Lane.MESSAGE)) == 1


async def test_a_reader_of_messages_that_stops_is_closed_and_told_on_control() -> None:
    async with lanes(limits=LimitSettings(outbox_bytes=8192)) as (world, link):
        link.room[Lane.MESSAGE] = 0
        for number in range(10):
            await down(world, ChatMessage(msg_id=f"m-{number}", content="x" * 2000))
        assert await link.ended() == Code.SLOW_CONSUMER
        assert [each.code for each in link.heard() if isinstance(each, Kick)] == [Code.SLOW_CONSUMER]


async def test_what_waits_for_messages_is_said_before_the_end() -> None:
    async with lanes() as (world, link):
        link.room[Lane.MESSAGE] = 10
        for number in range(3):
            await down(world, ChatMessage(msg_id=f"m-{number}"))
        world.down(build_downstream(1001, (), "", "", 0, Action.KICK, Code.KICKED_BY_ADMIN, 0, b"", 0))
        await link.aborted.wait()
        link.take(Lane.MESSAGE)
        assert len(link.heard(Lane.MESSAGE)) == 3
        assert link.goodbye is not None
        assert link.goodbye[0] == Code.KICKED_BY_ADMIN


async def test_messages_before_auth_wait_for_it_in_their_lane() -> None:
    async with open_world() as world:
        link = MemoryLanes()
        world.serve(link)
        await link.open_messages()
        await link.say(ChatMessage(msg_id="a", to_user=1002), Lane.MESSAGE)
        await wait_all_tasks_blocked()
        assert link.heard(Lane.MESSAGE) == []
        assert not world.upstream
        await link.log_in(1001)
        assert [type(each).__name__ for each in link.heard(Lane.MESSAGE)] == ["MessageAck"]


async def test_much_of_it_before_auth_closes() -> None:
    async with open_world() as world:
        link = MemoryLanes()
        world.serve(link)
        await link.open_messages()
        receiver = await link.told()
        receiver.feed(Lane.MESSAGE, bytes(KEPT_BEFORE_LOGIN))
        receiver.feed(Lane.MESSAGE, b"x")
        assert await link.ended() == Code.OUT_OF_ORDER


async def test_on_control_a_message_before_auth_is_out_of_order() -> None:
    async with open_world() as world:
        link = MemoryLanes()
        world.serve(link)
        await link.say(ChatMessage(msg_id="a", to_user=1002))
        assert await link.ended() == Code.OUT_OF_ORDER
        assert [each.code for each in link.heard() if isinstance(each, ErrorMessage)] == [Code.OUT_OF_ORDER]


async def test_a_malformed_frame_on_the_message_lane_closes_the_connection() -> None:
    async with lanes() as (_, link):
        (await link.told()).feed(Lane.MESSAGE, b"\0\0\0\4\0\nabcd")
        assert await link.ended() == Code.MALFORMED_FRAME


async def test_when_the_message_lane_ends_what_waited_goes_by_control() -> None:
    async with lanes() as (world, link):
        link.room[Lane.MESSAGE] = 0
        await down(world, ChatMessage(msg_id="lost-with-the-stream"))
        await down(world, ChatMessage(msg_id="m-2"))
        (await link.told()).lane_closed(Lane.MESSAGE)
        await down(world, ChatMessage(msg_id="m-3"))
        assert [each.msg_id for each in link.heard() if isinstance(each, ChatMessage)] == ["m-2", "m-3"]


async def test_over_the_rate_both_lanes_wait_and_then_go_on() -> None:
    async with lanes(limits=LimitSettings(message_rate=10, message_burst=10)) as (world, link):
        for number in range(15):
            await link.say(ChatMessage(msg_id=f"m-{number}", to_user=1002), Lane.MESSAGE)
        await link.say(SyncRequest(cursor=1))
        assert link.paused
        assert len(world.upstream) < 15
        await world.wait_upstream(16)
        await trio.sleep(5)
        assert not link.paused
        assert len(link.heard(Lane.MESSAGE)) == 15


async def test_signals_go_by_datagram_and_conflate() -> None:
    async with lanes() as (world, link):
        for number in range(3):
            world.down(delivery(Signal(from_user=7, to_user=1001, kind="typing", data=bytes([number])), MsgType.SIGNAL))
        await down(world, Signal(from_user=8, to_user=1001, kind="typing", data=b"x"), MsgType.SIGNAL)
        assert [each.data for each in link.datagrams if isinstance(each, Signal)] == [b"\2", b"x"]


async def test_a_signal_too_long_for_a_datagram_goes_by_lane_and_one_that_finds_no_room_is_dropped() -> None:
    async with lanes() as (world, link):
        await down(world, Signal(from_user=7, to_user=1001, kind="typing", data=bytes(2000)), MsgType.SIGNAL)
        assert len(link.heard(Lane.MESSAGE)) == 1
        link.datagrams_lost = True
        await down(world, Signal(from_user=7, to_user=1001, kind="typing"), MsgType.SIGNAL)
        assert link.datagrams == []
        assert link.heard(Lane.MESSAGE) == []


async def test_heartbeats_and_signals_come_by_datagram() -> None:
    async with lanes() as (world, link):
        receiver = await link.told()
        receiver.datagram(build_heartbeat(9, 1))
        assert [type(each).__name__ for each in link.datagrams] == ["Heartbeat"]
        receiver.datagram(encode(Signal(to_user=1002, kind="typing"), seq=1, timestamp=1))
        assert (await world.wait_upstream(1))[0].msg_type == MsgType.SIGNAL


BAD_DATAGRAMS = {
    "empty": b"",
    "no whole header": b"\0\0",
    "half a frame": build_heartbeat(1, 1)[:-1],
    "more than a frame": build_heartbeat(1, 1) + b"x",
    "two frames": build_heartbeat(1, 1) * 2,
    "a Message": encode(ChatMessage(msg_id="a", to_user=1002), seq=1, timestamp=1),
    "an unknown type": b"\0\0\0\0\3\3",
    "malformed": b"\0\0\0\4\0\x0cabcd",
    "addressed to nobody": encode(Signal(kind="typing"), seq=1, timestamp=1),
    "another's": encode(Signal(from_user=5, to_user=1002, kind="typing"), seq=1, timestamp=1),
}


@pytest.mark.parametrize("data", BAD_DATAGRAMS.values(), ids=BAD_DATAGRAMS)
async def test_a_bad_datagram_is_dropped_and_counted(data: bytes) -> None:
    async with lanes() as (world, link):
        receiver = await link.told()
        receiver.datagram(data)
        metrics = world.hub.metrics
        assert metrics.datagrams_dropped + metrics.datagrams_refused == 1
        receiver.datagram(build_heartbeat(2, 1))
        assert len(link.datagrams) == 1
        assert not world.upstream
        assert link.heard() == []


async def test_a_flood_of_datagrams_is_dropped_and_makes_nothing_wait() -> None:
    async with lanes(limits=LimitSettings(datagram_rate=10, datagram_burst=20)) as (world, link):
        receiver = await link.told()
        for _ in range(100):
            receiver.datagram(build_heartbeat(1, 1))
        assert world.hub.metrics.datagrams_dropped >= 79
        assert not link.paused
        await trio.sleep(2)
        receiver.datagram(build_heartbeat(1, 1))
        assert world.hub.metrics.datagrams == len(link.datagrams) <= 22


async def test_signals_over_the_users_rate_are_dropped_and_messages_still_pass() -> None:
    limits = LimitSettings(message_rate=1, message_burst=2, datagram_burst=1000)
    async with lanes(limits=limits) as (world, link):
        receiver = await link.told()
        for _ in range(100):
            receiver.datagram(encode(Signal(to_user=1002, kind="typing"), seq=1, timestamp=1))
        assert world.hub.metrics.signals_held_back > 50
        assert not link.paused
        await trio.sleep(3)
        await link.say(ChatMessage(msg_id="a", to_user=1002), Lane.MESSAGE)
        assert len(link.heard(Lane.MESSAGE)) == 1


async def test_ephemeral_streams_are_refused_without_files_or_login() -> None:
    async with lanes() as (_, link):
        assert (await link.told()).incoming(Stream()) is None
