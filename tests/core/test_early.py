"""Early data (0-RTT): what is refused, what waits, and what passes by the right of a session; T14, T25."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway._framing import build_downstream, build_heartbeat
from gateway.core.bindings import Bindings
from gateway.core.books import books
from gateway.core.lanes import KEPT_BEFORE_LOGIN
from gateway.core.limits import TokenBucket
from gateway.core.ports import StoreUnavailable
from gateway.core.session import Session
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    ErrorMessage,
    Heartbeat,
    MessageAck,
    Signal,
    SyncRequest,
    encode,
    packet,
)
from gateway.protocol.types import AckStatus, Action, Lane, MsgType
from tests.support.laned import MemoryLanes
from tests.support.world import World, open_world

pytestmark = pytest.mark.usefixtures("autojump_clock")


@asynccontextmanager
async def resumed(*, ticket: str = "t-1") -> AsyncIterator[tuple[World, MemoryLanes, AuthResponse]]:
    """A client that had a session on a connection with ticket `t-1`, and comes again by `ticket`."""
    async with open_world() as world:
        first = MemoryLanes(issued=("t-1", "t-2"))
        world.serve(first)
        welcome = await first.log_in(1001)
        link = MemoryLanes(early=True, ticket=ticket)
        world.serve(link)
        await link.open_messages()
        yield world, link, welcome
        for account in books(world.hub):
            assert account.balanced, account


def acks(link: MemoryLanes, lane: Lane = Lane.MESSAGE) -> list[tuple[str, int, int]]:
    return [(each.msg_id, each.status, each.code) for each in link.heard(lane) if isinstance(each, MessageAck)]


async def early_message(link: MemoryLanes, msg_id: str = "a", lane: Lane = Lane.MESSAGE) -> None:
    await link.say(ChatMessage(msg_id=msg_id, to_user=1002), lane)
    await wait_all_tasks_blocked()


@pytest.mark.parametrize("ticket", ["t-1", "unknown", ""])
async def test_T14_auth_is_never_early(ticket: str) -> None:
    async with resumed(ticket=ticket) as (world, link, _):
        await link.say(AuthRequest(token="1001", device_id="phone", platform="ios"))
        assert await link.ended() == Code.EARLY_DATA_REFUSED
        assert [each.code for each in link.heard() if isinstance(each, ErrorMessage)] == [Code.EARLY_DATA_REFUSED]
        assert len(world.tokens.asked) == 1


async def test_by_the_right_of_a_session_heartbeat_sync_and_message_are_early() -> None:
    async with resumed() as (world, link, _):
        await link.say(Heartbeat())
        await link.say(SyncRequest(cursor=7))
        await early_message(link)
        assert [type(each) for each in link.heard()] == [Heartbeat]
        assert acks(link) == [("a", AckStatus.ACCEPTED, 0)]
        sync, message = await world.wait_upstream(2)
        assert (sync.msg_type, message.msg_type) == (MsgType.SYNC, MsgType.MESSAGE)
        assert (message.user_id, message.device_id, message.platform) == (1001, "phone", "ios")


async def test_T14_an_early_message_is_delivered_once_however_often_it_comes() -> None:
    async with resumed() as (world, link, _):
        await early_message(link)
        again = MemoryLanes(early=True, ticket="t-2")
        world.serve(again)
        await again.open_messages()
        await early_message(again)
        await early_message(again, lane=Lane.CONTROL)
        assert acks(link) == acks(again) == acks(again, Lane.CONTROL) == [("a", AckStatus.ACCEPTED, 0)]
        assert len(world.upstream) == 1
        assert world.hub.metrics.early_repeated == 2


@pytest.mark.parametrize("ticket", ["t-1", "unknown", ""])
async def test_T14_early_datagrams_are_dropped(ticket: str) -> None:
    async with resumed(ticket=ticket) as (world, link, _):
        receiver = await link.told()
        receiver.datagram(encode(Heartbeat(), seq=1))
        receiver.datagram(encode(Signal(to_user=1002, kind="typing"), seq=2))
        await wait_all_tasks_blocked()
        assert (link.datagrams, link.heard(), world.upstream) == ([], [], [])
        assert (world.hub.metrics.datagrams, world.hub.metrics.datagrams_dropped) == (0, 2)
        await link.confirm()
        await link.log_in(1001)
        receiver.datagram(encode(Signal(to_user=1002, kind="typing"), seq=2))
        assert (await world.wait_upstream(1))[0].msg_type == MsgType.SIGNAL


@pytest.mark.parametrize("ticket", ["unknown", ""])
async def test_without_a_session_nothing_passes_before_login(ticket: str) -> None:
    async with resumed(ticket=ticket) as (world, link, _):
        await link.say(SyncRequest(cursor=7))
        await link.say(Heartbeat())
        await early_message(link)
        assert link.heard() == [] == link.heard(Lane.MESSAGE)
        await link.confirm()
        assert [type(each) for each in link.heard()] == [Heartbeat]
        assert world.upstream == []
        await link.log_in(1001)
        assert acks(link) == [("a", AckStatus.ACCEPTED, 0)]
        assert {each.msg_type for each in await world.wait_upstream(2)} == {MsgType.SYNC, MsgType.MESSAGE}
        assert world.hub.metrics.early_held == 2


async def test_a_ticket_serves_once() -> None:
    async with resumed() as (world, _, _):
        second = MemoryLanes(early=True, ticket="t-1")
        world.serve(second)
        await second.open_messages()
        await early_message(second)
        assert acks(second) == []


async def test_the_answer_of_logic_finds_the_connection_before_its_login() -> None:
    async with resumed() as (world, link, _):
        await early_message(link)
        conn_id = (await world.wait_upstream(1))[0].conn_id
        stored = packet(MessageAck(msg_id="a", status=AckStatus.STORED, server_seq=3), seq=9)
        world.down(build_downstream(1001, (conn_id,), "", "", 0, Action.DELIVER, 0, MsgType.MESSAGE_ACK, stored, 0))
        await wait_all_tasks_blocked()
        assert [status for _, status, _ in acks(link)] == [AckStatus.ACCEPTED, AckStatus.STORED]


async def test_after_the_handshake_the_ordinary_rules_hold() -> None:
    async with resumed() as (world, link, welcome):
        await early_message(link)
        await link.confirm()
        await early_message(link, "b")
        assert acks(link) == [("a", AckStatus.ACCEPTED, 0)]
        assert (await link.log_in(1001, resume_ticket=welcome.resume_ticket)).code == Code.OK
        assert acks(link) == [("b", AckStatus.ACCEPTED, 0)]
        assert len(world.upstream) == 2


async def test_what_comes_while_an_early_message_is_asked_for_keeps_its_place_and_its_rules() -> None:
    """An Auth that is not early stands behind early bytes which wait: it is not taken for one of them."""
    async with resumed() as (world, link, _):
        receiver = await link.told()
        pause = trio.Event()
        first = world.hub.dedup.first  # type: ignore[union-attr]

        async def slow(from_user: int, msg_id: str) -> bool:
            await pause.wait()
            return await first(from_user, msg_id)

        world.hub.dedup.first = slow  # type: ignore[union-attr, method-assign]
        await early_message(link, lane=Lane.CONTROL)
        receiver.feed(Lane.CONTROL, build_heartbeat(5, 1))
        await link.confirm()
        await link.say(AuthRequest(token="1001", device_id="phone", platform="ios"))
        assert link.heard() == []
        pause.set()
        await wait_all_tasks_blocked()
        assert [type(each) for each in link.heard()] == [MessageAck, Heartbeat, AuthResponse]


async def test_a_message_that_cannot_be_asked_for_is_not_passed() -> None:
    async with resumed() as (world, link, _):

        async def away(from_user: int, msg_id: str) -> bool:
            raise StoreUnavailable("away")

        world.hub.dedup.first = away  # type: ignore[union-attr, method-assign]
        await early_message(link)
        assert acks(link) == [("a", AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)]
        assert world.upstream == []


async def test_a_message_that_the_bus_refused_may_come_again() -> None:
    async with resumed() as (world, link, _):
        publish = world.hub.bus.publish
        world.hub.bus.publish = lambda subject, payload: False  # type: ignore[method-assign]
        await early_message(link)
        world.hub.bus.publish = publish  # type: ignore[method-assign]
        await early_message(link)
        assert [status for _, status, _ in acks(link)] == [AckStatus.REJECTED, AckStatus.ACCEPTED]
        assert len(world.upstream) == 1


async def test_an_early_message_of_another_sender_is_refused() -> None:
    async with resumed() as (world, link, _):
        await link.say(ChatMessage(msg_id="a", from_user=1002, to_user=1003), Lane.MESSAGE)
        await wait_all_tasks_blocked()
        assert acks(link) == [("a", AckStatus.REJECTED, Code.INVALID_PAYLOAD)]
        assert world.upstream == []


@pytest.mark.parametrize(
    ("user", "device", "ticket"), [(1002, "phone", ""), (1001, "tablet", ""), (1001, "phone", "of somebody else")]
)
async def test_T25_a_login_that_is_not_the_resumed_session_is_refused(user: int, device: str, ticket: str) -> None:
    async with resumed() as (_, link, _):
        await link.confirm()
        assert (await link.log_in(user, device, ticket)).code == Code.TOKEN_INVALID
        assert await link.ended() == Code.TOKEN_INVALID


async def test_a_kicked_session_has_no_right_to_speak_early() -> None:
    async with open_world() as world:
        first = MemoryLanes(issued=("t-1",))
        world.serve(first)
        await first.log_in(1001)
        world.down(build_downstream(1001, (), "", "", 0, Action.KICK, Code.KICKED_BY_ADMIN, 0, b"", 0))
        await first.aborted.wait()
        link = MemoryLanes(early=True, ticket="t-1")
        world.serve(link)
        await link.open_messages()
        await early_message(link)
        assert acks(link) == []


async def test_much_that_is_early_without_a_right_is_refused() -> None:
    async with resumed(ticket="unknown") as (_, link, _):
        receiver = await link.told()
        sync = encode(SyncRequest(cursor=1), seq=1, timestamp=1)
        for _ in range(KEPT_BEFORE_LOGIN // len(sync) + 2):
            receiver.feed(Lane.CONTROL, sync)
        assert await link.ended() == Code.EARLY_DATA_REFUSED


async def test_a_connection_that_ends_while_it_asks_leaves_the_books_closed() -> None:
    async with resumed() as (world, link, _):

        async def never(from_user: int, msg_id: str) -> bool:
            await trio.sleep(0.5)
            return True

        world.hub.dedup.first = never  # type: ignore[union-attr, method-assign]
        await early_message(link)
        (await link.told()).lost()
        await link.aborted.wait()
        assert world.hub.metrics.early_dropped == 1


def test_bindings_are_bounded_redeemed_once_and_end_with_the_token() -> None:
    bindings = Bindings(most=3)
    session = Session("s", 1001, "phone", "ios", 0, 100.0, TokenBucket(1, 1, 0))
    assert bindings.bind((), session) == ""
    ticket = bindings.bind(("a", "b"), session)
    assert len(ticket) >= 22
    assert bindings.bind(("c", "d"), session) != ticket
    assert len(bindings) == 3
    assert bindings.redeem("a", 0.0) is None
    held = bindings.redeem("b", 99.0)
    assert held is not None
    assert held.resume_ticket == ticket
    assert bindings.redeem("b", 99.0) is None
    assert bindings.redeem("c", 100.0) is None
    bindings.forget(("d", "never"))
    assert bindings.redeem("d", 0.0) is None
