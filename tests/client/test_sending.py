"""From `send` to its acknowledgement: levels, rejections, deadlines, resends, bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway.client import (
    ClientClosed,
    ClientSettings,
    Receipt,
    Rejected,
    RequestFailed,
    SendTimeout,
)
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, ErrorMessage, Event, MessageAck
from gateway.protocol.types import AckStatus
from tests.client.server import Server, chat, next_notice, online


async def during(action: Callable[[], Awaitable[Any]], script: Callable[[], Awaitable[Any]]) -> Any:
    """Run the server's `script` beside the client's `action`; return what the action gave or raise what it raised."""
    result: list[Any] = []
    raised: list[Exception] = []

    async def act() -> None:
        try:
            result.append(await action())
        except Exception as error:
            raised.append(error)

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            await script()
    if raised:
        raise raised[0]
    return result[0]


async def test_send_returns_on_stored() -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            message, seq = await link.expect(ChatMessage)
            assert (message.to_user, message.content, message.content_type) == (1002, "hello", 7)
            assert message.from_user == 0
            assert seq > 0
            await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.ACCEPTED), seq=seq)
            await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.STORED, server_seq=9, timestamp=5))

        receipt = await during(lambda: client.send("hello", to_user=1002, content_type=7), script)
        assert (receipt.status, receipt.server_seq, receipt.at) == (AckStatus.STORED, 9, 5)
        assert client.unacknowledged == ()
        assert client.statistics().stored == 1


async def test_send_returns_on_accepted_when_that_is_enough() -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            message, seq = await link.expect(ChatMessage)
            assert message.group_id == 5
            await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.ACCEPTED), seq=seq)

        receipt = await during(lambda: client.send("hello", group_id=5, wait="accepted"), script)
        assert receipt.status is AckStatus.ACCEPTED
        assert client.unacknowledged == ()


async def test_send_without_waiting_tells_by_receipts() -> None:
    async with online(Server()) as (client, link):
        assert await client.send("a", to_user=2, wait=None, msg_id="a1") is None
        assert client.unacknowledged == ("a1",)
        await link.store(server_seq=4)
        with trio.fail_after(5):
            await client.wait_acknowledged()
        notice = await next_notice(client, Receipt)
        assert (notice.msg_id, notice.status, notice.server_seq) == ("a1", AckStatus.STORED, 4)


async def test_receipts_of_own_messages() -> None:
    async with online(Server()) as (client, link):
        await link.send(
            MessageAck(msg_id="old", status=AckStatus.DELIVERED, timestamp=3), MessageAck(msg_id="old", status=3)
        )
        found = [(await next_notice(client, Receipt)).status for _ in range(2)]
        assert found == [AckStatus.DELIVERED, AckStatus.READ]


@pytest.mark.parametrize("code", [Code.INVALID_PAYLOAD, Code.UPSTREAM_UNAVAILABLE, 4999])
async def test_rejected_raises_with_its_code(code: int) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            message, seq = await link.expect(ChatMessage)
            await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.REJECTED, code=code), seq=seq)

        with pytest.raises(Rejected, match=str(int(code))) as caught:
            await during(lambda: client.send("x", to_user=2), script)
        assert caught.value.code == code
        assert client.statistics().rejected == 1
        assert client.state == "online"


async def test_an_error_about_the_message_rejects_it() -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            _, seq = await link.expect(ChatMessage)
            await link.send(ErrorMessage(code=Code.UPSTREAM_UNAVAILABLE, message="bus full"), seq=seq)

        with pytest.raises(Rejected, match="4402 upstream_unavailable: bus full"):
            await during(lambda: client.send("x", to_user=2), script)


async def test_no_acknowledgement_is_a_timeout(autojump_clock: MockClock) -> None:
    async with online(Server(), settings=ClientSettings(resend_after=100)) as (client, link):
        link.mute = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.pump)
            start = trio.current_time()
            with pytest.raises(SendTimeout, match="within 30 s") as caught:
                await client.send("x", to_user=2, msg_id="mine")
            assert caught.value.msg_id == "mine"
            assert trio.current_time() - start == pytest.approx(30)
            assert client.unacknowledged == ()
            nursery.cancel_scope.cancel()


async def test_a_cancelled_send_is_withdrawn() -> None:
    async with online(Server()) as (client, _):
        with trio.move_on_after(0.01):
            await client.send("x", to_user=2)
        assert client.unacknowledged == ()


async def test_not_stored_in_time_is_sent_again_on_the_same_link(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            first, seq = await link.expect(ChatMessage)
            await link.send(MessageAck(msg_id=first.msg_id, status=AckStatus.ACCEPTED), seq=seq)
            again, _ = await link.expect(ChatMessage)
            assert again == first
            await link.send(MessageAck(msg_id=first.msg_id, status=AckStatus.STORED))

        start = trio.current_time()
        await during(lambda: client.send("x", to_user=2), script)
        assert trio.current_time() - start == pytest.approx(1.5)
        assert client.statistics().resent == 1


async def test_resends_are_patient(autojump_clock: MockClock) -> None:
    """What a busy server has not read is not written twice; what it took and did not store, less often."""
    async with online(Server(), settings=ClientSettings(send_timeout=1000)) as (client, link):
        arrivals: list[float] = []

        async def script() -> None:
            for busy in (50, 5, 5, 5):
                message, seq = await link.expect(ChatMessage)
                arrivals.append(trio.current_time())
                for _ in range(busy):
                    await trio.sleep(1)
                    await link.send(Event(kind="alive"))
                await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.ACCEPTED), seq=seq)
            await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.STORED))

        await during(lambda: client.send("x", to_user=2), script)
        waits = [later - earlier for earlier, later in pairwise(arrivals)]
        assert waits == pytest.approx([51.5, 8, 8], abs=0.1)


async def test_unacknowledged_are_sent_again_after_reconnecting(autojump_clock: MockClock) -> None:
    """In their order, under the same msg_id, before anything newer."""
    server = Server()
    async with online(server) as (client, link):
        await client.send("one", to_user=2, wait=None)
        await client.send("two", to_user=2, wait=None)
        one, _ = await link.expect(ChatMessage)
        two, _ = await link.expect(ChatMessage)
        await link.send(MessageAck(msg_id=one.msg_id, status=AckStatus.ACCEPTED))
        link.cut()
        await client.send("three", to_user=2, wait=None)
        after = await server.welcome()
        sent = [(await after.expect(ChatMessage))[0] for _ in range(3)]
        assert [message.content for message in sent] == ["one", "two", "three"]
        assert [message.msg_id for message in sent[:2]] == [one.msg_id, two.msg_id]
        assert {one.msg_id, two.msg_id} < set(client.unacknowledged)
        for msg_id in client.unacknowledged:
            await after.send(MessageAck(msg_id=msg_id, status=AckStatus.STORED))
        with trio.fail_after(5):
            await client.wait_acknowledged()
        assert client.statistics().resent >= 2


async def test_send_waits_over_a_reconnection(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):

        async def script() -> None:
            first, _ = await link.expect(ChatMessage)
            link.cut()
            again = await server.welcome()
            assert (await again.store()).msg_id == first.msg_id

        receipt = await during(lambda: client.send("x", to_user=2), script)
        assert receipt.status is AckStatus.STORED


async def test_a_smaller_node_does_not_end_us(autojump_clock: MockClock) -> None:
    """4001 means never: what fitted the first node and not the second is rejected here, not sent there."""
    server = Server()
    async with online(server, max_frame=10_000) as (client, link):

        async def script() -> None:
            await link.expect(ChatMessage)
            link.cut()
            await server.welcome(max_frame=1_000)

        with pytest.raises(Rejected) as caught:
            await during(lambda: client.send("x" * 5000, to_user=2), script)
        assert caught.value.code == Code.FRAME_TOO_LARGE


async def test_what_cannot_be_is_refused_before_it_is_sent() -> None:
    async with online(Server()) as (client, _):
        for to_user, group_id in ((0, 0), (1, 2), (-1, 0), (3, -1)):
            with pytest.raises(ValueError, match="one of to_user and group_id"):
                await client.send("x", to_user=to_user, group_id=group_id)
            with pytest.raises(ValueError, match="one of to_user and group_id"):
                client.signal(kind="typing", to_user=to_user, group_id=group_id)
        with pytest.raises(ValueError, match="msg_id"):
            await client.send("x", to_user=1, msg_id="a b")
        with pytest.raises(ValueError, match="do not fit into a frame of at most 65536"):
            await client.send("x" * 65_600, to_user=1)
        with pytest.raises(ValueError, match="surrogate"):
            await client.send("\ud800", to_user=1)
        await client.send("x", to_user=1, msg_id="same", wait=None)
        with pytest.raises(ValueError, match="under way already"):
            await client.send("x", to_user=1, msg_id="same")
        assert client.unacknowledged == ("same",)


@pytest.mark.parametrize(
    "settings", [ClientSettings(unacknowledged=2), ClientSettings(unacknowledged_bytes=8, unacknowledged=50)]
)
async def test_send_waits_for_room(autojump_clock: MockClock, settings: ClientSettings) -> None:
    async with online(Server(), settings=settings) as (client, link):
        await client.send("a", to_user=1, wait=None)
        await client.send("b", to_user=1, wait=None)
        with pytest.raises(SendTimeout):
            await client.send("c", to_user=1, wait=None, timeout=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.send("d", to_user=1, wait=None, timeout=5))
            await trio.sleep(1)
            assert len(client.unacknowledged) == 2
            await link.store()
        assert len(client.unacknowledged) == 2


async def test_sync_gives_a_page_and_leaves_the_iteration_alone() -> None:
    async with online(Server()) as (client, link):
        page = await during(
            lambda: client.sync(3, limit=2), lambda: link.answer_sync([chat(4), chat(5)], has_more=True)
        )
        assert [each.server_seq for each in page.deliveries] == [4, 5]
        assert (page.next_cursor, page.has_more) == (5, True)
        assert client.cursor == 0
        assert client.statistics().buffered == 0


async def test_sync_fails_clearly(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):

        async def refuse() -> None:
            frame = await link.next_frame()
            await link.send(ErrorMessage(code=Code.UPSTREAM_UNAVAILABLE, message="no bus"), seq=frame.seq)

        with pytest.raises(RequestFailed, match="no bus") as caught:
            await during(lambda: client.sync(0), refuse)
        assert caught.value.code == Code.UPSTREAM_UNAVAILABLE

        async def cut() -> None:
            await link.next_frame()
            link.cut()

        with pytest.raises(RequestFailed, match="connection lost"):
            await during(lambda: client.sync(0), cut)
        with pytest.raises(RequestFailed, match="not connected"):
            await client.sync(0)
        after = await server.welcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after.pump)
            with pytest.raises(RequestFailed, match="no answer in time"):
                await client.sync(0)
            nursery.cancel_scope.cancel()


async def test_a_closed_client_says_so() -> None:
    async with online(Server()) as (client, _):
        pass
    with pytest.raises(ClientClosed):
        await client.send("x", to_user=1)
    with pytest.raises(ClientClosed):
        client.signal(to_user=1, kind="typing")
    assert [each async for each in client] == []
    assert client.state == "closed"


async def test_leaving_writes_what_is_queued() -> None:
    async with online(Server()) as (client, link):
        for number in range(100):
            await client.send(f"text {number}", to_user=1, wait=None)
    for number in range(100):
        message, _ = await link.expect(ChatMessage)
        assert message.content == f"text {number}"
    with pytest.raises(trio.EndOfChannel):
        await link.next_frame()
