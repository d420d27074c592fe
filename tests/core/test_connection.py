"""A connection's life in virtual time: login, heartbeats, deadlines, messages, errors, the ways out."""

import math
from typing import Any

import pytest
import trio
from trio.abc import Clock
from trio.testing import memory_stream_pair

from gateway._framing import build_downstream
from gateway.core.ports import LoginPolicy
from gateway.core.settings import HeartbeatSettings, LimitSettings, LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    ErrorMessage,
    GoAway,
    Kick,
    Message,
    MessageAck,
    Signal,
    SyncRequest,
    packet,
)
from gateway.protocol.types import AckStatus, Action, MsgType
from gateway.transports.stream import StreamLink
from tests.support.world import open_world


def chat(msg_id: str = "m-1", **fields: Any) -> ChatMessage:
    fields.setdefault("to_user", 1002)
    return ChatMessage(msg_id=msg_id, content="hello", **fields)


def deliver(user: int, message: Message, *, kind: MsgType, seq: int = 0, conn_ids: tuple[int, ...] = ()) -> bytes:
    body = packet(message, seq=seq)
    return build_downstream(user, conn_ids, "", "", 0, Action.DELIVER, 0, kind, body, 0)


async def test_a_login_tells_the_session(autojump_clock: Clock) -> None:
    async with open_world(node_id="node-7") as world:
        peer = await world.connect()
        answer = await peer.log_in(1001)
        assert (answer.user_id, answer.node_id) == (1001, "node-7")
        assert (answer.heartbeat_interval_ms, answer.heartbeat_timeout_ms) == (30_000, 90_000)
        assert answer.max_frame == 65_536
        assert len(answer.session_id) == 22
        (location,) = (await world.hub.locations.lookup([1001]))[1001]
        assert (location.access_node, location.device_id, location.platform) == ("node-7", "phone", "ios")
        assert location.boot_id == world.hub.boot_id


async def test_leaving_releases_the_location(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        await peer.hang_up()
        await trio.sleep(0.1)
        assert await world.hub.locations.lookup([1001]) == {}
        assert world.hub.metrics.closed[0] == 1


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"token": "nonsense"}, Code.TOKEN_INVALID),
        ({"device_id": "a b"}, Code.INVALID_PAYLOAD),
        ({"device_id": ""}, Code.INVALID_PAYLOAD),
        ({"platform": "i.os"}, Code.INVALID_PAYLOAD),
        ({"protocol_version": 2}, Code.VERSION_UNSUPPORTED),
    ],
)
async def test_a_refused_login_is_told_why_and_closed(
    autojump_clock: Clock, request_fields: dict[str, Any], code: Code
) -> None:
    async with open_world() as world:
        peer = await world.connect()
        fields = {"token": "1001", "device_id": "phone", "platform": "ios", **request_fields}
        seq = await peer.send(AuthRequest(**fields), seq=77)
        frame = await peer.frame()
        assert frame is not None
        assert frame.seq == seq
        peer.frames.insert(0, frame)
        assert (await peer.receive(AuthResponse)).code == code
        assert await peer.closed() == []
        assert world.hub.metrics.auth_failed[code] == 1


async def test_t02_a_link_that_never_authenticates_is_closed_after_five_seconds(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.connect()
        start = trio.current_time()
        await peer.send_bytes(b"\0\0\0\0\0\0")  # a heartbeat is answered, but does not extend the time
        (_, refusal) = await peer.closed()
        assert isinstance(refusal, AuthResponse)
        assert refusal.code == Code.AUTH_TIMEOUT
        assert math.isclose(trio.current_time() - start, 5.0, abs_tol=0.1)


async def test_a_login_that_hangs_is_refused_as_unavailable(autojump_clock: Clock) -> None:
    async with open_world(login=LoginSettings(backend_timeout=1.0)) as world:
        world.tokens.pause = trio.Event()
        peer = await world.connect()
        await peer.send(AuthRequest(token="1001", device_id="phone", platform="ios"))
        assert (await peer.receive(AuthResponse)).code == Code.AUTH_UNAVAILABLE
        assert await peer.closed() == []


async def test_an_authenticator_that_breaks_is_told_as_unavailable(autojump_clock: Clock) -> None:
    async with open_world() as world:
        world.tokens.error = RuntimeError("no such luck")
        peer = await world.connect()
        await peer.send(AuthRequest(token="1001", device_id="phone", platform="ios"))
        answer = await peer.receive(AuthResponse)
        assert answer.code == Code.AUTH_UNAVAILABLE
        assert "luck" not in (answer.message or "")


async def test_what_is_sent_behind_auth_waits_for_it(autojump_clock: Clock) -> None:
    async with open_world() as world:
        world.tokens.pause = trio.Event()
        peer = await world.connect()
        await peer.send(AuthRequest(token="1001", device_id="phone", platform="ios"))
        await peer.send(chat())
        await trio.sleep(0.5)
        assert world.upstream == []
        world.tokens.pause.set()
        assert (await peer.receive(AuthResponse)).code == 0
        assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
        (up,) = await world.wait_upstream(1)
        assert (up.user_id, up.device_id, up.node_id) == (1001, "phone", "node-1")


async def test_heartbeats_keep_a_connection_and_their_absence_ends_it(autojump_clock: Clock) -> None:
    async with open_world(heartbeat=HeartbeatSettings(interval=30, timeout=90)) as world:
        peer = await world.seated(1001)
        for _ in range(10):
            await trio.sleep(80)
            await peer.send_bytes(b"\0\0\0\0\0\0")
            frame = await peer.frame()
            assert frame is not None
            assert (frame.type, frame.encode()) == (MsgType.HEARTBEAT, b"\0\0\0\0\0\0")
        start = trio.current_time()
        kick = await peer.receive(Kick)
        assert kick.code == Code.HEARTBEAT_TIMEOUT
        assert math.isclose(trio.current_time() - start, 90, abs_tol=0.1)
        assert await peer.closed() == []


async def test_t23_a_token_that_runs_out_ends_the_session(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.connect()
        start = trio.current_time()
        await peer.log_in("1001:20")
        assert (await peer.receive(Kick)).code == Code.TOKEN_EXPIRED
        assert 19 < trio.current_time() - start < 21


async def test_a_message_goes_up_unchanged_and_is_accepted(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        seq = await peer.send(chat("m-1", from_user=1001))
        ack = await peer.receive(MessageAck)
        assert (ack.msg_id, ack.status, ack.code) == ("m-1", AckStatus.ACCEPTED, 0)
        (up,) = await world.wait_upstream(1)
        assert up.frame.body == packet(chat("m-1", from_user=1001), seq=seq, timestamp=1)
        assert world.hub.metrics.messages_received == 1
        assert sum(world.hub.metrics.latency.counts) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"from_user": 1002},
        {"to_user": 0},
        {"to_user": -1},
        {"group_id": 5},
        {"msg_id": ""},
        {"msg_id": "x" * 65},
        {"msg_id": "a.b"},
        {"msg_id": "a\r\nPUB x"},
    ],
)
async def test_a_message_that_breaks_the_rules_is_rejected_and_goes_nowhere(
    autojump_clock: Clock, fields: dict[str, Any]
) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        await peer.send(chat(**fields))
        ack = await peer.receive(MessageAck)
        assert (ack.status, ack.code) == (AckStatus.REJECTED, Code.INVALID_PAYLOAD)
        await peer.send(chat("good"))
        assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
        assert len(await world.wait_upstream(1)) == 1


async def test_ten_protocol_errors_a_minute_are_answered_and_the_eleventh_closes(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        for _ in range(11):
            await peer.send_bytes(b"\0\0\0\0\x7f\xff")
        said = await peer.closed()
        assert [each.code for each in said if isinstance(each, ErrorMessage)] == [Code.UNKNOWN_TYPE] * 11
        assert isinstance(said[-1], Kick)
        assert said[-1].code == Code.UNKNOWN_TYPE


async def test_t05_a_second_auth_and_a_frame_before_auth_are_out_of_order(autojump_clock: Clock) -> None:
    async with open_world() as world:
        early = await world.connect()
        await early.send(chat(), seq=9)
        (error,) = await early.closed()
        assert isinstance(error, ErrorMessage)
        assert error.code == Code.OUT_OF_ORDER
        peer = await world.seated(1001)
        await peer.send(AuthRequest(token="1001", device_id="phone", platform="ios"))
        (error,) = await peer.closed()
        assert isinstance(error, ErrorMessage)
        assert error.code == Code.OUT_OF_ORDER


async def test_t05_receipts_never_asked_for_go_up_and_nonsense_ones_do_not(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        await peer.send(MessageAck(msg_id="never", status=AckStatus.DELIVERED, server_seq=4))
        (up,) = await world.wait_upstream(1)
        assert up.msg_type == MsgType.MESSAGE_ACK
        await peer.send(MessageAck(msg_id="never", status=AckStatus.STORED))
        assert (await peer.receive(ErrorMessage)).code == Code.INVALID_PAYLOAD


async def test_a_full_bus_is_told_and_the_link_stays(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        publish, world.hub.bus.publish = world.hub.bus.publish, lambda *_: False  # type: ignore[method-assign]
        await peer.send(chat("m-1"))
        ack = await peer.receive(MessageAck)
        assert (ack.status, ack.code) == (AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)
        await peer.send(SyncRequest(cursor=1))
        assert (await peer.receive(ErrorMessage)).code == Code.UPSTREAM_UNAVAILABLE
        world.hub.bus.publish = publish  # type: ignore[method-assign]
        await peer.send(chat("m-1"))
        assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED


async def test_a_sync_cursor_at_login_is_a_sync(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.connect()
        await peer.log_in(1001, sync_cursor=17)
        (up,) = await world.wait_upstream(1)
        assert up.msg_type == MsgType.SYNC


async def test_deliveries_count_their_own_seq_and_replies_keep_theirs(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1002)
        world.down(deliver(1002, chat("a"), kind=MsgType.MESSAGE))
        world.down(deliver(1002, MessageAck(msg_id="x"), kind=MsgType.MESSAGE_ACK, seq=900))
        world.down(deliver(1002, chat("b"), kind=MsgType.MESSAGE))
        frames = [await peer.frame() for _ in range(3)]
        assert [frame.seq for frame in frames if frame] == [1, 900, 2]
        assert world.hub.metrics.messages_sent == 2


async def test_a_delivery_for_nobody_is_reported(autojump_clock: Clock) -> None:
    async with open_world() as world:
        heard: list[bytes] = []
        subscription = world.hub.bus.subscribe(world.hub.subjects.undelivered, lambda _, data: heard.append(data))
        world.down(deliver(1002, chat("a"), kind=MsgType.MESSAGE))
        world.down(deliver(1002, chat("b"), kind=MsgType.MESSAGE, conn_ids=(12345,)))
        await trio.sleep(1)
        assert len(heard) == 2
        assert world.hub.metrics.undelivered == 2
        subscription.close()


async def test_a_late_delivery_is_dropped_and_a_broken_one_hurts_nobody(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1002)
        body = packet(chat("late"))
        world.down(build_downstream(1002, (), "", "", 0, Action.DELIVER, 0, MsgType.MESSAGE, body, 1))
        world.down(b"\xff" * 40)
        world.down(deliver(1002, chat("good"), kind=MsgType.MESSAGE))
        assert (await peer.receive(ChatMessage)).msg_id == "good"
        assert (world.hub.metrics.expired, world.hub.metrics.malformed_downstream) == (1, 1)


async def test_targets_are_found_most_precise_first(autojump_clock: Clock) -> None:
    async with open_world() as world:
        phone = await world.seated(1001, "phone", platform="ios")
        desk = await world.seated(1001, "desk", platform="linux")
        other = await world.seated(1002, "phone")
        body = packet(chat("x"))

        def down(user: int, device: str, platform: str, exclude: int = 0) -> bytes:
            return build_downstream(user, (), device, platform, exclude, Action.DELIVER, 0, MsgType.MESSAGE, body, 0)

        (phone_conn, desk_conn) = world.hub.registry.of_user(1001)
        world.down(down(1001, "desk", ""))
        world.down(down(1001, "", "ios"))
        world.down(down(1001, "", "", exclude=phone_conn.id))
        assert world.hub.bus.publish(world.hub.subjects.broadcast, down(0, "", ""))
        await trio.sleep(0.1)
        for peer, expected in ((phone, 2), (desk, 3), (other, 1)):
            for _ in range(expected):
                assert (await peer.receive(ChatMessage)).msg_id == "x"
            with trio.move_on_after(0.1) as nothing_more:
                await peer.frame()
            assert nothing_more.cancelled_caught
        assert desk_conn.session is not None


async def test_queued_signals_of_a_kind_are_one(autojump_clock: Clock) -> None:
    async with open_world() as world:
        await world.seated(1002)
        (connection,) = world.hub.registry.of_user(1002)
        for number in range(5):
            signal = Signal(to_user=1002, from_user=1001, kind="typing", data=bytes([number]))
            world.down(deliver(1002, signal, kind=MsgType.SIGNAL))
        await trio.sleep(0.1)
        assert world.hub.metrics.signals_conflated == 4
        assert connection.outbox.waiting == 0


async def test_a_kick_ends_the_connection_with_its_code(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        kick = build_downstream(1001, (), "", "", 0, Action.KICK, Code.KICKED_BY_ADMIN, 0, b"", 0)
        world.down(kick)
        said = await peer.receive(Kick)
        assert (said.code, said.device_id, said.platform) == (Code.KICKED_BY_ADMIN, "phone", "ios")
        assert await peer.closed() == []


@pytest.mark.parametrize(
    ("policy", "second", "code"),
    [
        (LoginPolicy.MULTI_DEVICE, ("phone", "ios"), Code.REPLACED_BY_SAME_DEVICE),
        (LoginPolicy.MULTI_DEVICE, ("desk", "ios"), None),
        (LoginPolicy.SINGLE_DEVICE, ("desk", "linux"), Code.KICKED_BY_POLICY),
        (LoginPolicy.SINGLE_PER_PLATFORM, ("tablet", "ios"), Code.KICKED_BY_POLICY),
        (LoginPolicy.SINGLE_PER_PLATFORM, ("desk", "linux"), None),
    ],
)
async def test_login_policies(
    autojump_clock: Clock, policy: LoginPolicy, second: tuple[str, str], code: Code | None
) -> None:
    async with open_world(login=LoginSettings(policy=policy)) as world:
        first = await world.seated(1001, "phone", platform="ios")
        await world.seated(1001, second[0], platform=second[1])
        if code is None:
            with trio.move_on_after(1) as still_there:
                await first.frame()
            assert still_there.cancelled_caught
            assert len(world.hub.registry.of_user(1001)) == 2
        else:
            assert (await first.receive(Kick)).code == code
            assert await first.closed() == []
            assert len(world.hub.registry.of_user(1001)) == 1


async def test_a_drain_tells_everybody_and_waits_for_them(autojump_clock: Clock) -> None:
    async with open_world() as world:
        leaving, staying, greeting = await world.seated(1), await world.seated(2), await world.connect()

        async def leave() -> None:
            notice = await leaving.receive(GoAway)
            assert (notice.code, notice.reconnect_after_ms, notice.jitter_ms) == (Code.GOING_AWAY, 500, 5000)
            await leaving.hang_up()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            start = trio.current_time()
            await world.hub.part()
            await world.hub.close_rest()
            assert trio.current_time() - start < 12
        said = await staying.closed()
        assert [type(each) for each in said] == [GoAway, Kick]
        assert [type(each) for each in await greeting.closed()] == [ErrorMessage]
        late = await world.connect()
        (error,) = await late.closed()
        assert isinstance(error, ErrorMessage)
        assert error.code == Code.GOING_AWAY


async def test_a_node_that_is_full_says_so(autojump_clock: Clock) -> None:
    async with open_world(limits=LimitSettings(max_connections=1)) as world:
        await world.seated(1001)
        (error,) = await (await world.connect()).closed()
        assert isinstance(error, ErrorMessage)
        assert error.code == Code.NODE_FULL


async def test_the_message_budget_is_the_users_over_all_devices(autojump_clock: Clock) -> None:
    async with open_world(limits=LimitSettings(message_rate=10, message_burst=20)) as world:
        phone, desk = await world.seated(1001, "phone"), await world.seated(1001, "desk")
        start = trio.current_time()
        for number in range(20):
            await phone.send(chat(f"p-{number}"))
            await desk.send(chat(f"d-{number}"))
        await world.wait_upstream(40)
        assert 1.4 < trio.current_time() - start < 3
        assert world.hub.metrics.closed[Code.RATE_LIMITED] == 0


async def test_logging_in_again_does_not_refill_the_budget(autojump_clock: Clock) -> None:
    async with open_world(limits=LimitSettings(message_rate=1, message_burst=10)) as world:
        peer = await world.seated(1001)
        for number in range(10):
            await peer.send(chat(f"a-{number}"))
        await world.wait_upstream(10)
        await peer.hang_up()
        again = await world.seated(1001)
        for number in range(3):
            await again.send(chat(f"b-{number}"))
        start = trio.current_time()
        await world.wait_upstream(13)
        assert trio.current_time() - start > 1


async def test_t35_a_flood_is_read_slowly_and_then_closed(autojump_clock: Clock) -> None:
    async with open_world(limits=LimitSettings(message_rate=50, message_burst=100)) as world:
        flooder, other = await world.seated(1001), await world.seated(1002)
        start = trio.current_time()
        lasted: list[float] = []

        async def flood() -> None:
            try:
                for number in range(10_000):
                    await flooder.send(chat(f"m-{number}"))
            except trio.BrokenResourceError:
                pass

        async def drop() -> None:
            said = await flooder.closed()
            lasted.append(trio.current_time() - start)
            assert isinstance(said[-1], Kick)
            assert said[-1].code == Code.RATE_LIMITED

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop)
            nursery.start_soon(flood)
            await trio.sleep(10)
            await other.send(chat("neighbour"))
            with trio.fail_after(0.5):
                assert (await other.receive(MessageAck)).status == AckStatus.ACCEPTED
        assert 25 < lasted[0] < 40
        assert len(world.upstream) < 50 * 45 + 100


class NeverUp(StreamLink):
    """A link that does not come up, and has used up some of its time before: a proxy's header, for one."""

    spent = 4.0

    async def open(self) -> None:
        await trio.sleep_forever()


async def test_what_a_link_spent_before_counts_against_its_time_to_come_up(autojump_clock: Clock) -> None:
    async with open_world() as world:
        began = trio.current_time()
        await world.hub.serve(NeverUp(memory_stream_pair()[0], "192.0.2.1"))
        assert trio.current_time() - began == pytest.approx(1.0)
