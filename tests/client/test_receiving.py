"""Deliveries: once each, in order, acknowledged; signals, events, receipts beside them; a slow program."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.client import ClientSettings, Complaint, Event, Signal, Synced, connect
from gateway.protocol.codes import Code
from gateway.protocol.messages import ErrorMessage, MessageAck, SyncRequest, SyncResponse, decode
from gateway.protocol.messages import Event as EventMessage
from gateway.protocol.messages import Signal as SignalMessage
from gateway.protocol.types import AckStatus
from tests.client.server import URL, USER, Server, chat, next_notice, online, take


async def test_deliveries_are_acknowledged_when_taken() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(1, content="hej"), chat(2))
        first, second = await take(client, 2)
        assert (first.content, first.from_user, first.server_seq, first.missed) == ("hej", 1002, 1, False)
        assert first.sent_at == 1_700_000_000_001
        for delivery in (first, second):
            ack, seq = await link.expect(MessageAck)
            assert (ack.msg_id, ack.status, ack.server_seq) == (
                delivery.msg_id,
                AckStatus.DELIVERED,
                delivery.server_seq,
            )
            assert seq > 0
        assert client.cursor == 2


async def test_what_is_not_taken_is_not_acknowledged() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(1))
        await wait_all_tasks_blocked()
        assert client.statistics().buffered == 1
        with trio.move_on_after(0.01):
            await link.next_frame()
        assert not link.frames
        assert client.cursor == 0


async def test_own_copies_are_not_acknowledged() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(1, from_user=USER), chat(2))
        await take(client, 2)
        ack, _ = await link.expect(MessageAck)
        assert ack.server_seq == 2


async def test_own_messages_are_known_by_their_acknowledgement() -> None:
    """They have a place in the timeline, too: no gap, no copy handed out, also when the link broke before Stored."""
    server = Server()
    async with online(server) as (client, link):
        await client.send("a", to_user=5, wait=None, msg_id="a")
        await client.send("b", to_user=5, wait=None, msg_id="b")
        await link.store(server_seq=1)
        await link.send(chat(2))
        assert [d.server_seq for d in await take(client, 1)] == [2]
        link.cut()
        after = await server.welcome([chat(3, msg_id="b", from_user=USER), chat(4, from_user=USER, msg_id="phone")])
        assert [d.msg_id for d in await take(client, 1)] == ["phone"]
        assert client.unacknowledged == ()
        await after.send(chat(4, msg_id="b", from_user=USER), chat(5))
        assert [d.server_seq for d in await take(client, 1)] == [5]
        statistics = client.statistics()
        assert (statistics.gaps, statistics.syncs, client.cursor) == (0, 2, 5)


async def test_acknowledging_can_be_left_to_the_program() -> None:
    async with online(Server(), settings=ClientSettings(acknowledge=False)) as (client, link):
        await link.send(chat(1))
        (delivery,) = await take(client, 1)
        await client.mark_read(delivery)
        ack, _ = await link.expect(MessageAck)
        assert (ack.msg_id, ack.status, ack.server_seq) == ("m1", AckStatus.READ, 1)


async def test_acknowledgements_survive_a_lost_link(autojump_clock: MockClock) -> None:
    """One that was written into a dying link, with nothing answered after it, is written again on the next."""
    server = Server()
    async with online(server) as (client, link):
        await link.send(chat(1))
        await take(client, 1)
        await link.expect(MessageAck)
        link.cut()
        ack, _ = await (await server.welcome()).expect(MessageAck)
        assert (ack.msg_id, ack.status) == ("m1", AckStatus.DELIVERED)


async def test_proven_acknowledgements_are_not_repeated(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(chat(1))
        await take(client, 1)
        await link.expect(MessageAck)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.pump)
            await trio.sleep(31)
            nursery.cancel_scope.cancel()
        assert link.beats == 1
        link.cut()
        after = await server.welcome()
        with trio.move_on_after(5):
            await after.next_frame()
        assert not after.frames


async def test_missed_messages_come_by_sync_after_login() -> None:
    server = Server()
    async with online(server, cursor=4, stored=[chat(5), chat(6)]) as (client, link):
        assert [(d.server_seq, d.missed) for d in await take(client, 2)] == [(5, True), (6, True)]
        await link.send(chat(7))
        assert [(d.server_seq, d.missed) for d in await take(client, 1)] == [(7, False)]
        assert await next_notice(client, Synced) == Synced(missed=2, cursor=6)


async def test_sync_goes_page_by_page_from_the_cursor() -> None:
    server = Server()
    stored = [chat(seq) for seq in range(1, 251)]

    async def serve() -> None:
        link = await server.accept()
        await link.log_in()
        for page in range(3):
            end = min(250, page * 100 + 100)
            request = await link.answer_sync(stored[page * 100 : end], has_more=end < 250)
            assert request == SyncRequest(cursor=page * 100, limit=100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect(URL, token="t", device_id="d", dial=server.dial) as client:
            assert [d.server_seq for d in await take(client, 250)] == list(range(1, 251))


async def test_a_gap_is_filled_by_sync() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(1), chat(4))
        request = await link.answer_sync([chat(2), chat(3), chat(4)])
        assert request.cursor == 1
        assert [d.server_seq for d in await take(client, 4)] == [1, 2, 3, 4]
        assert client.statistics().gaps == 1


async def test_a_gap_that_closes_by_itself_costs_no_sync(autojump_clock: MockClock) -> None:
    """Our own acknowledgement may overtake somebody's message to us."""
    async with online(Server()) as (client, link):
        await client.send("x", to_user=5, wait=None)
        await link.store(server_seq=2)
        await trio.sleep(0.01)
        await link.send(chat(1), chat(3))
        assert [d.server_seq for d in await take(client, 2)] == [1, 3]
        await trio.sleep(1)
        assert client.statistics().syncs == 1


async def test_duplicates_are_handed_out_once() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(1), chat(1), chat(2), chat(1), chat(3))
        assert [d.server_seq for d in await take(client, 3)] == [1, 2, 3]
        assert client.statistics().duplicates == 2


async def test_deliveries_during_the_sync_keep_their_place() -> None:
    server = Server()

    async def serve() -> None:
        link = await server.accept()
        await link.log_in()
        _, seq = await link.expect(SyncRequest)
        await link.send(chat(3), chat(4))
        await link.send(SyncResponse(messages=(chat(1), chat(2), chat(3)), next_cursor=3), seq=seq)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect(URL, token="t", device_id="d", dial=server.dial) as client:
            assert [d.server_seq for d in await take(client, 4)] == [1, 2, 3, 4]


async def test_a_slow_program_costs_neither_memory_nor_the_connection(autojump_clock: MockClock) -> None:
    """The reader goes on, what finds no room is forgotten and comes by Sync when there is room again."""
    settings = ClientSettings(buffered_deliveries=10)
    async with online(Server(), settings=settings) as (client, link):
        for seq in range(1, 1001):
            await link.send(chat(seq))
        await wait_all_tasks_blocked()
        assert client.statistics().buffered == 10
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                while True:
                    frame = await link.next_frame()
                    if frame.type != 20:
                        continue
                    request = decode(frame)
                    assert isinstance(request, SyncRequest)
                    last = min(1000, request.cursor + request.limit)
                    page = tuple(chat(seq) for seq in range(request.cursor + 1, last + 1))
                    await link.send(SyncResponse(messages=page, next_cursor=last, has_more=last < 1000), seq=frame.seq)

            nursery.start_soon(serve)
            await trio.sleep(100)
            assert client.state == "online"
            assert link.beats == 3
            assert client.statistics().buffered == 10
            assert [d.server_seq for d in await take(client, 1000)] == list(range(1, 1001))
            nursery.cancel_scope.cancel()


async def test_sending_does_not_depend_on_taking() -> None:
    async with online(Server(), settings=ClientSettings(buffered_deliveries=2)) as (client, link):
        for seq in range(1, 100):
            await link.send(chat(seq))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.send("x", to_user=5))
            with trio.fail_after(5):
                await link.store()


@pytest.mark.parametrize("code", [Code.UPSTREAM_UNAVAILABLE, Code.RATE_LIMITED, 0])
async def test_a_failed_sync_is_tried_again(autojump_clock: MockClock, code: int) -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(2))
        for _ in range(3):
            _, seq = await link.expect(SyncRequest)
            if code == Code.UPSTREAM_UNAVAILABLE:
                await link.send(ErrorMessage(code=code), seq=seq)
            elif code:
                await link.send(SyncResponse(code=code), seq=seq)
        await link.answer_sync([chat(1), chat(2)])
        assert [d.server_seq for d in await take(client, 2)] == [1, 2]


async def test_a_server_without_sync_still_delivers() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(5))
        _, seq = await link.expect(SyncRequest)
        await link.send(ErrorMessage(code=Code.UNKNOWN_TYPE, message="no Sync here"), seq=seq)
        assert [d.server_seq for d in await take(client, 1)] == [5]
        await link.send(chat(9))
        assert [d.server_seq for d in await take(client, 1)] == [9]
        assert await next_notice(client, Complaint) == Complaint(code=Code.UNKNOWN_TYPE, reason="Sync: no Sync here")


async def test_a_server_that_began_anew_is_noticed() -> None:
    """Its numbers are behind ours: what it has now is all new to us."""
    server = Server()

    async def serve() -> None:
        link = await server.accept()
        await link.log_in()
        await link.answer_sync(next_cursor=2)
        assert (await link.answer_sync([chat(1), chat(2)])).cursor == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect(URL, token="t", device_id="d", cursor=500, dial=server.dial) as client:
            assert [d.server_seq for d in await take(client, 2)] == [1, 2]
            assert client.cursor == 2


async def test_deliveries_without_a_number_pass() -> None:
    async with online(Server()) as (client, link):
        await link.send(chat(0, msg_id="a"), chat(0, msg_id="b"))
        assert [d.msg_id for d in await take(client, 2)] == ["a", "b"]


async def test_signals_events_and_complaints_are_notices() -> None:
    async with online(Server()) as (client, link):
        assert client.signal(to_user=7, kind="typing", data=b"1")
        sent, seq = await link.expect(SignalMessage)
        assert (sent.to_user, sent.kind, sent.data) == (7, "typing", b"1")
        await link.send(ErrorMessage(code=Code.INVALID_PAYLOAD, message="whom?"), seq=seq)
        await link.send(SignalMessage(from_user=3, to_user=USER, kind="typing", data=b"x"))
        await link.send(EventMessage(kind="news", data=b"y"))
        assert await next_notice(client, Complaint) == Complaint(code=Code.INVALID_PAYLOAD, reason="whom?")
        assert await next_notice(client, Signal) == Signal(from_user=3, to_user=USER, kind="typing", data=b"x")
        assert await next_notice(client, Event) == Event(kind="news", data=b"y")


async def test_notices_are_bounded_and_the_oldest_go() -> None:
    async with online(Server(), settings=ClientSettings(buffered_notices=5)) as (client, link):
        for number in range(50):
            await link.send(EventMessage(kind=f"k{number}"))
        await wait_all_tasks_blocked()
        kinds = []
        with trio.fail_after(5):
            async for notice in client.notices:
                assert isinstance(notice, Event)
                kinds.append(notice.kind)
                if notice.kind == "k49":
                    break
        assert kinds == ["k45", "k46", "k47", "k48", "k49"]
        assert client.statistics().notices_dropped >= 45


async def test_signals_are_dropped_rather_than_queued_without_bound(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        assert [client.signal(to_user=7, kind="k", data=b"x" * 30_000) for _ in range(5)] == [True] * 3 + [False] * 2
        link.cut()
        await trio.sleep(0.001)
        assert not client.signal(to_user=7, kind="k")
