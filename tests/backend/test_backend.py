"""A Logic of one's own on the memory bus, in virtual time: receiving, answering, pushing, knowing who is there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import Clock

import gateway
from gateway import backend as public
from gateway._framing import build_upstream, parse_frame
from gateway.backend import Arrival, Backend, EventKind, Incoming, Rejected, Stored, open_backend
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.ports import Location, StoreUnavailable
from gateway.logic import function
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    ChatMessage,
    Event,
    Kick,
    Message,
    MessageAck,
    Signal,
    SyncRequest,
    SyncResponse,
    decode,
    packet,
)
from gateway.protocol.types import AckStatus, MsgType
from tests.support.peer import Peer
from tests.support.world import World, open_world


class Scene:
    """One node, one Backend, and a nursery for `serve`."""

    def __init__(self, world: World, backend: Backend, nursery: trio.Nursery) -> None:
        self.world = world
        self.backend = backend
        self.nursery = nursery


@asynccontextmanager
async def scene(*, bus: MemoryBus | None = None) -> AsyncIterator[Scene]:
    bus, locations = bus or MemoryBus(), MemoryLocationStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with (
            open_world(bus=bus, locations=locations, logic=False) as world,
            open_backend(bus=bus, locations=locations) as backend,
        ):
            yield Scene(world, backend, nursery)
        nursery.cancel_scope.cancel()


def chat(msg_id: str, content: str = "hello", to_user: int = 1002) -> ChatMessage:
    return ChatMessage(msg_id=msg_id, to_user=to_user, content=content)


async def verdict(peer: Peer, msg_id: str, content: str = "hello") -> MessageAck:
    """What Logic says of a message, after Accepted."""
    seq = await peer.send(chat(msg_id, content))
    accepted, frame = await peer.receive(MessageAck), await peer.frame()
    assert (accepted.msg_id, accepted.status) == (msg_id, AckStatus.ACCEPTED)
    assert frame is not None
    assert frame.seq == seq
    ack = decode(frame)
    assert isinstance(ack, MessageAck)
    return ack


async def test_the_result_is_what_the_sender_is_told(autojump_clock: Clock) -> None:
    came: list[Incoming] = []

    async def on_message(incoming: Incoming) -> Stored | Rejected | None:
        came.append(incoming)
        match incoming.message.content:
            case "no":
                return Rejected(Code.RATE_LIMITED)
            case "raise":
                raise gateway.Refused
            case "bug":
                raise RuntimeError("in the handler")
            case "nothing":
                return None
            case "never":
                return Stored(server_seq=2**64)  # no uint64: cannot be told, and must hurt nobody else
        return Stored(server_seq=17)

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message)
        peer = await stage.world.seated(1001)
        told = [await verdict(peer, f"m-{text}", text) for text in ("yes", "no", "raise", "bug", "nothing")]
        assert [(each.status, each.code, each.server_seq) for each in told] == [
            (AckStatus.STORED, 0, 17),
            (AckStatus.REJECTED, Code.RATE_LIMITED, 0),
            (AckStatus.REJECTED, Code.INVALID_PAYLOAD, 0),
            (AckStatus.REJECTED, Code.INTERNAL_ERROR, 0),
            (AckStatus.STORED, 0, 0),
        ]
        await peer.send(chat("m-never", "never"))
        assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
        assert (await verdict(peer, "m-last")).status == AckStatus.STORED
        assert {(each.user_id, each.device_id, each.message.from_user) for each in came} == {(1001, "phone", 1001)}
        (counts,) = stage.backend.statistics()
        assert (counts.received, counts.stored, counts.rejected, counts.not_answered) == (7, 4, 3, 1)


async def test_one_users_messages_in_order_and_others_meanwhile(autojump_clock: Clock) -> None:
    order: list[tuple[int, str]] = []

    async def on_message(incoming: Incoming) -> None:
        await trio.sleep(10 if incoming.user_id == 1001 else 0)
        order.append((incoming.user_id, incoming.message.msg_id))

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message)
        slow, quick = await stage.world.seated(1001), await stage.world.seated(1002)
        for number in range(3):
            await slow.send(chat(f"s-{number}"))
        await trio.sleep(1)
        assert (await verdict(quick, "q-0")).status == AckStatus.STORED
        await trio.sleep(40)
        assert order == [(1002, "q-0"), (1001, "s-0"), (1001, "s-1"), (1001, "s-2")]


@pytest.mark.parametrize(("name", "bound"), [("LANE_BOUND", 2), ("BYTES_BOUND", 700)])
async def test_what_waits_is_bounded(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(function, name, bound)

    async def on_message(incoming: Incoming) -> None:
        await trio.sleep(1)

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message)
        peer = await stage.world.seated(1001)
        for number in range(20):
            await peer.send(chat(f"m-{number}"))
        acks = [await peer.receive(MessageAck) for _ in range(40)]
        ends = [(each.status, each.code) for each in acks if each.status != AckStatus.ACCEPTED]
        stored = ends.count((AckStatus.STORED, 0))
        assert 1 <= stored <= 5
        assert ends.count((AckStatus.REJECTED, Code.UPSTREAM_UNAVAILABLE)) == 20 - stored
        (counts,) = stage.backend.statistics()
        assert (counts.received, counts.stored, counts.rejected, counts.waiting) == (20, stored, 20 - stored, 0)


async def test_the_rest_goes_to_the_other_function_and_its_reply_to_who_asked(autojump_clock: Clock) -> None:
    came: list[Message] = []

    async def on_message(incoming: Incoming) -> None:
        pytest.fail("no message was sent")

    async def on_other(arrival: Arrival) -> Message | None:
        assert (arrival.user_id, arrival.device_id) == (1001, "phone")
        came.append(arrival.message)
        if isinstance(arrival.message, SyncRequest):
            if arrival.message.cursor == 13:
                raise RuntimeError("in the handler")
            return SyncResponse(messages=(chat("old"),), next_cursor=arrival.message.cursor + 1)
        return None

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message, on_other)
        peer = await stage.world.seated(1001)
        signal, read = Signal(to_user=1002, kind="typing"), MessageAck(msg_id="m-1", status=AckStatus.READ)
        await peer.send(signal)
        await peer.send(read)
        seq = await peer.send(SyncRequest(cursor=5))
        frame = await peer.frame()
        assert frame is not None
        assert frame.seq == seq
        page = decode(frame)
        assert isinstance(page, SyncResponse)
        assert (page.next_cursor, [each.msg_id for each in page.messages]) == (6, ["old"])
        assert came == [signal, read, SyncRequest(cursor=5)]
        await peer.send(SyncRequest(cursor=13))
        failed = await peer.receive(SyncResponse)
        assert (failed.code, failed.next_cursor) == (Code.INTERNAL_ERROR, 13)


async def test_without_the_other_function_syncs_are_answered_by_an_empty_page(autojump_clock: Clock) -> None:
    async def on_message(incoming: Incoming) -> None:
        """Nothing to do."""

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message)
        peer = await stage.world.seated(1001)
        await peer.send(Signal(to_user=1002, kind="typing"))
        await peer.send(SyncRequest(cursor=5))
        assert (await peer.receive(SyncResponse)).code == 0
        (counts,) = stage.backend.statistics()
        assert (counts.received, counts.others, counts.ignored) == (2, 1, 1)


async def test_several_backends_share_and_each_message_is_handled_once(autojump_clock: Clock) -> None:
    handled: list[list[str]] = [[], []]

    async with scene() as stage, open_backend(bus=stage.backend.bus, locations=stage.backend.locations) as second:
        for number, backend in enumerate((stage.backend, second)):

            async def on_message(incoming: Incoming, mine: list[str] = handled[number]) -> None:
                mine.append(incoming.message.msg_id)

            await stage.nursery.start(backend.serve, on_message)
        peer = await stage.world.seated(1001)
        for number in range(10):
            assert (await verdict(peer, f"m-{number}")).status == AckStatus.STORED
        assert sorted(handled[0] + handled[1]) == [f"m-{number}" for number in range(10)]
        assert all(handled)


async def test_hostile_upstreams_cost_nobody_else_anything(autojump_clock: Clock) -> None:
    async def on_message(incoming: Incoming) -> None:
        """Nothing to do."""

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message)
        frame = parse_frame(MsgType.MESSAGE, packet(chat("m-1")))
        for payload in (b"", b"junk" * 20, build_upstream("no.name.*", 1, 1001, "d", "p", 0, frame)):
            assert stage.backend.bus.publish("im.logic.upstream", payload)
        peer = await stage.world.seated(1001)
        assert (await verdict(peer, "m-2")).status == AckStatus.STORED
        (counts,) = stage.backend.statistics()
        assert (counts.received, counts.malformed + counts.stored) == (4, 4)


async def test_pushing_to_users_devices_connections_and_everyone(autojump_clock: Clock) -> None:
    async with scene() as stage:
        push = stage.backend.push
        phone, desk, other = [
            await stage.world.seated(*who) for who in ((1001, "phone"), (1001, "desk"), (1002, "phone"))
        ]
        assert await push(1001, chat("user")) == 2
        assert await push(1001, chat("device"), device_id="desk") == 1
        assert await push(1003, chat("nobody")) == 0
        (place,) = (await stage.backend.lookup([1002, 1002, 7]))[1002]
        assert push.connection(place.access_node, place.conn_id, chat("connection"), user_id=1002)
        assert push.everyone(chat("everyone"))
        assert push.event(1001, "mail", b"3")
        received = {
            peer: [(await peer.receive(ChatMessage)).msg_id for _ in range(count)]
            for peer, count in ((phone, 2), (desk, 3), (other, 2))
        }
        assert list(received.values()) == [
            ["user", "everyone"],
            ["user", "device", "everyone"],
            ["connection", "everyone"],
        ]
        for peer in (phone, desk):
            assert await peer.receive(Event) == Event(kind="mail", data=b"3")


async def test_what_cannot_be_pushed_is_told(autojump_clock: Clock) -> None:
    async with scene() as stage:
        push = stage.backend.push
        await stage.world.seated(1001)
        for kind in ("", "online", "kicked"):
            with pytest.raises(ValueError, match="an event of your own"):
                push.event(1001, kind)
        with pytest.raises(ValueError, match="user id"):
            push.event(0, "mail")
        with pytest.raises(ValueError, match="node id"):
            push.connection("no.name", 1, chat("m"))
        with pytest.raises(ValueError, match="payload"):
            await push(1001, chat("m", "x" * 2_000_000))


async def test_a_full_bus_says_so(autojump_clock: Clock) -> None:
    bus = MemoryBus(max_messages=1)
    async with scene(bus=bus) as stage:
        push = stage.backend.push
        await stage.world.seated(1001)
        await stage.world.seated(1001, "desk")
        assert push.everyone(chat("first"))
        assert not push.everyone(chat("second"))
        await bus.drain()
        assert push.event(1001, "fills-it")
        assert await push(1001, chat("third")) in (0, 2)


async def test_kicking(autojump_clock: Clock) -> None:
    async with scene() as stage:
        phone, desk = await stage.world.seated(1001), await stage.world.seated(1001, "desk")
        assert await stage.backend.push.kick(1001, device_id="phone") == 1
        assert (await phone.receive(Kick)).code == Code.KICKED_BY_ADMIN
        await phone.hang_up()
        await trio.sleep(1)
        assert await stage.backend.push.kick(1001, Code.SESSION_EXPIRED) == 1
        assert (await desk.receive(Kick)).code == Code.SESSION_EXPIRED


async def test_presence_tells_who_comes_and_goes(autojump_clock: Clock) -> None:
    async with scene() as stage:
        with stage.backend.presence() as everybody, stage.backend.presence(1001) as one:
            first, second = await stage.world.seated(1001), await stage.world.seated(1002)
            await second.hang_up()
            await trio.sleep(1)
            stage.backend.push.event(1001, "mail")
            await trio.sleep(1)
        heard = [(event.user_id, event.kind) async for event in everybody]
        assert heard == [(1001, "online"), (1002, "online"), (1002, "offline"), (1001, "mail")]
        assert [event.kind async for event in one] == [EventKind.ONLINE, "mail"]
        await first.hang_up()


async def test_a_slow_reader_of_presence_loses_and_is_told_how_much(autojump_clock: Clock) -> None:
    async with scene() as stage:
        with stage.backend.presence(bound=2) as presence:
            for number in range(5):
                await stage.world.seated(1001 + number)
            bus = stage.backend.bus
            for payload in (b"junk", public.UserEvent(kind="mail", user_id=5).encode()):
                assert bus.publish("im.user.1001.event", payload)
            await trio.sleep(1)
        assert [event.user_id async for event in presence] == [1001, 1002]
        assert (presence.lost, presence.malformed) == (3, 2)


async def test_draining_finishes_what_came(autojump_clock: Clock) -> None:
    done: list[str] = []

    async def on_message(incoming: Incoming) -> None:
        await trio.sleep(5)
        done.append(incoming.message.msg_id)

    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, on_message)
        peer = await stage.world.seated(1001)
        await peer.send(chat("m-1"))
        assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
        await stage.backend.drain()
        assert done == ["m-1"]
        assert (await peer.receive(MessageAck)).status == AckStatus.STORED
        await peer.send(chat("m-2"))  # nobody listens any more
        await trio.sleep(30)
        assert done == ["m-1"]


async def test_a_store_that_is_away_is_told_to_who_pushes(autojump_clock: Clock) -> None:
    class Away(MemoryLocationStore):
        async def lookup(self, user_ids: object) -> dict[int, list[Location]]:
            raise StoreUnavailable

    async with open_backend(bus=MemoryBus(), locations=Away()) as backend:
        with pytest.raises(StoreUnavailable):
            await backend.push(1001, chat("m"))
        with pytest.raises(StoreUnavailable):
            await backend.lookup([1001])
        assert not backend.healthy  # nobody runs the bus


@pytest.mark.parametrize(
    "parts",
    [{}, {"bus": MemoryBus()}, {"locations": MemoryLocationStore()}, {"config": gateway.Config(), "bus": MemoryBus()}],
)
async def test_one_way_of_opening_is_chosen(parts: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="either a config, or both"):
        async with open_backend(**parts):  # type: ignore[arg-type]
            pytest.fail("opened")


async def test_a_configuration_without_nats_is_refused() -> None:
    with pytest.raises(gateway.ConfigError, match=r"nats\.servers"):
        async with open_backend(gateway.Config()):
            pytest.fail("opened")


def test_the_public_surface_is_there() -> None:
    assert sorted(public.__all__) == public.__all__
    assert all(getattr(public, name) is not None for name in public.__all__)


async def test_what_missed_its_connection_follows_the_user_once(autojump_clock: Clock) -> None:
    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, nothing)
        gone, push = 5, stage.backend.push  # older than every connection
        assert push.connection("node-1", gone, chat("m-early"), user_id=1002)
        await trio.sleep(1)  # nobody is there: left to the Sync
        phone = await stage.world.seated(1002)
        tablet = await stage.world.seated(1002, "tablet")
        assert push.connection("node-1", gone, chat("m-late"), user_id=1002)
        assert (await phone.receive(ChatMessage)).msg_id == (await tablet.receive(ChatMessage)).msg_id == "m-late"
        (location, newest) = sorted((await stage.backend.lookup([1002]))[1002], key=lambda each: each.conn_id)
        await phone.hang_up()
        await trio.sleep(1)
        assert push.connection("node-1", location.conn_id, chat("m-moved"), user_id=1002)
        assert (await tablet.receive(ChatMessage)).msg_id == "m-moved"
        assert push.connection("node-1", newest.conn_id + 1, chat("m-never"), user_id=1002)  # only older ones are left
        assert push.connection("node-1", gone, Signal(to_user=1002, kind="t"), user_id=1002)  # not worth it
        assert stage.world.hub.bus.publish("im.logic.undelivered", b"junk")
        await trio.sleep(1)
        reports = {each.name: each for each in stage.backend.books()}["logic_undelivered"]
        assert reports.balanced
        assert {end: count for end, count in reports.became.items() if count} == {
            "rerouted": 2, "offline": 2, "malformed": 1,
        }  # fmt: skip
        (counts,) = stage.backend.statistics()
        assert counts.rerouted == 2
        await stage.backend.drain()


async def test_without_the_store_what_missed_its_user_is_left_to_the_sync(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, nothing)

        async def away(user_ids: object) -> dict[int, list[Location]]:
            raise StoreUnavailable("away")

        monkeypatch.setattr(stage.backend.locations, "lookup", away)
        assert stage.backend.push.connection("node-1", 5, chat("m-1"), user_id=1002)
        await trio.sleep(1)
        (reports,) = (each for each in stage.backend.books() if each.name == "logic_undelivered")
        assert (reports.came, reports.became["not_sent"]) == (1, 1)


async def test_what_missed_its_user_waits_in_bounds(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "AGAIN_BOUND", 2)
    async with scene() as stage:
        await stage.nursery.start(stage.backend.serve, nothing)
        for number in range(20):
            assert stage.backend.push.connection("node-1", 5, chat(f"m-{number}"), user_id=1002)
        await trio.sleep(1)
        (reports,) = (each for each in stage.backend.books() if each.name == "logic_undelivered")
        assert reports.balanced
        assert (reports.came, reports.became["waiting"]) == (20, 0)
        assert reports.became["full"] >= 10


async def nothing(incoming: Incoming) -> None:
    """A Logic that has nothing to say."""


async def test_what_says_no_time_is_said_now(autojump_clock: Clock) -> None:
    async with scene() as stage:
        peer = await stage.world.seated(1002)
        push = stage.backend.push
        before = stage.world.hub.wall_ms()
        await push(1002, chat("m-now"))
        assert push.everyone(chat("m-all"))
        await push(1002, ChatMessage(msg_id="m-then", to_user=1002, timestamp=17))
        times = [(await peer.receive(ChatMessage)).timestamp for _ in range(3)]
        assert before <= times[0] <= times[1]
        assert times[2] == 17
