"""User events: what a node says of its sessions, and what reaches a user's connections."""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.abc import Clock

from gateway._framing import build_downstream
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.ports import LoginPolicy
from gateway.core.settings import LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import UserEvent
from gateway.protocol.messages import Event, decode
from gateway.protocol.types import Action
from tests.support.peer import Peer
from tests.support.world import World, open_world


class Ear:
    """Everything said on the event subjects."""

    def __init__(self, world: World) -> None:
        self.heard: list[UserEvent] = []
        world.hub.bus.subscribe("im.user.*.event", self._hear)

    def _hear(self, subject: str, payload: bytes) -> None:
        event = UserEvent.decode(payload)
        assert subject == f"im.user.{event.user_id}.event"
        self.heard.append(event)

    def said(self) -> list[tuple[str, int, str]]:
        return [(each.kind, each.user_id, each.device_id) for each in self.heard]


def tell(world: World, event: UserEvent, user: int = 1001) -> None:
    assert world.hub.bus.publish(f"im.user.{user}.event", event.encode())


async def silent(peer: Peer) -> None:
    """Nothing comes to this peer."""
    with trio.move_on_after(1) as patience:
        frame = await peer.frame()
        pytest.fail(f"{frame and decode(frame)} came")
    assert patience.cancelled_caught


async def test_a_session_is_told_when_it_comes_and_when_it_goes(autojump_clock: Clock) -> None:
    async with open_world(node_id="node-7") as world:
        ear = Ear(world)
        peer = await world.seated(1001, "phone", platform="ios")
        await trio.sleep(0.1)
        (conn,) = world.hub.registry.of_user(1001)
        (online,) = ear.heard
        assert (online.kind, online.user_id, online.node_id, online.conn_id) == ("online", 1001, "node-7", conn.id)
        assert (online.device_id, online.platform, online.data) == ("phone", "ios", b"")
        assert online.at > 1_600_000_000_000
        await peer.hang_up()
        await trio.sleep(0.1)
        assert ear.said() == [("online", 1001, "phone"), ("offline", 1001, "phone")]
        assert ear.heard[1].conn_id == conn.id
        assert world.hub.metrics.events_published == 2


async def test_a_connection_without_a_session_is_nobody(autojump_clock: Clock) -> None:
    async with open_world() as world:
        ear = Ear(world)
        peer = await world.connect()
        await peer.hang_up()
        await world.connect()  # never authenticates, and is closed for it
        await trio.sleep(60)
        assert ear.heard == []


@pytest.mark.parametrize(
    ("policy", "device", "code"),
    [
        (LoginPolicy.MULTI_DEVICE, "phone", Code.REPLACED_BY_SAME_DEVICE),
        (LoginPolicy.SINGLE_DEVICE, "desk", Code.KICKED_BY_POLICY),
    ],
)
async def test_who_is_displaced_is_kicked_then_offline(
    autojump_clock: Clock, policy: LoginPolicy, device: str, code: Code
) -> None:
    async with open_world(login=LoginSettings(policy=policy)) as world:
        ear = Ear(world)
        older = await world.seated(1001, "phone")
        (conn,) = world.hub.registry.of_user(1001)
        await world.seated(1001, device)
        await older.closed()
        await older.hang_up()
        await trio.sleep(3)
        assert ear.said() == [
            ("online", 1001, "phone"), ("online", 1001, device), ("kicked", 1001, "phone"), ("offline", 1001, "phone"),
        ]  # fmt: skip
        assert [each.conn_id for each in ear.heard[2:]] == [conn.id] * 2
        assert ear.heard[2].data == b"%d" % code


async def test_an_admins_kick_is_told_with_its_code(autojump_clock: Clock) -> None:
    async with open_world() as world:
        ear = Ear(world)
        peer = await world.seated(1001)
        world.down(build_downstream(1001, (), "", "", 0, Action.KICK, Code.KICKED_BY_ADMIN, 0, b"", 0))
        await peer.closed()
        await peer.hang_up()
        await trio.sleep(3)
        assert [each.kind for each in ear.heard] == ["online", "kicked", "offline"]
        assert ear.heard[1].data == b"4202"


async def test_any_other_kind_reaches_every_connection_of_the_user_once(autojump_clock: Clock) -> None:
    async with open_world() as world:
        phone, desk, other = [await world.seated(*who) for who in ((1001, "phone"), (1001, "desk"), (1002, "phone"))]
        tell(world, UserEvent(kind="order.shipped", user_id=1001, at=77, data=b"\x00\xff"))
        for peer in (phone, desk):
            frame = await peer.frame()
            assert frame is not None
            assert decode(frame) == Event(kind="order.shipped", data=b"\x00\xff")
            assert frame.timestamp == 77
            assert frame.seq == 1  # unsolicited: counted by the connection
        for peer in (phone, desk, other):
            await silent(peer)
        assert world.hub.metrics.events_delivered == 1


async def test_two_nodes_hear_each_other_and_each_tells_its_own_users(autojump_clock: Clock) -> None:
    bus, locations = MemoryBus(), MemoryLocationStore()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with (
            open_world(node_id="a", bus=bus, locations=locations) as here,
            open_world(node_id="b", bus=bus, locations=locations, logic=False) as there,
        ):
            phone, desk = await here.seated(1001, "phone"), await there.seated(1001, "desk")
            tell(here, UserEvent(kind="mail"))
            for peer in (phone, desk):
                assert await peer.receive(Event) == Event(kind="mail")
            assert here.hub.metrics.events_received == there.hub.metrics.events_received == 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["online", "offline", "kicked"])
async def test_presence_is_for_services_and_not_for_the_users_connections(autojump_clock: Clock, kind: str) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        tell(world, UserEvent(kind=kind, user_id=1001, node_id="elsewhere", data=b"4202"))
        await silent(peer)
        assert len(world.hub.registry.of_user(1001)) == 1


HOSTILE = [
    ("im.user.1001.event", b""),
    ("im.user.1001.event", b"\xff" * 64),
    ("im.user.1001.event", UserEvent(kind="").encode()),
    ("im.user.1001.event", UserEvent(kind="mail", user_id=1002).encode()),
    ("im.user.1001.event", UserEvent(kind="mail", user_id=-1001).encode()),
    ("im.user.1001.event", UserEvent(kind="mail", data=b"x" * 70_000).encode()),
    ("im.user.01001.event", UserEvent(kind="mail").encode()),
    ("im.user.-1001.event", UserEvent(kind="mail").encode()),
    ("im.user.0.event", UserEvent(kind="mail").encode()),
    ("im.user.99999999999999999999.event", UserEvent(kind="mail").encode()),
    ("im.user.phone.event", UserEvent(kind="mail").encode()),
]


@pytest.mark.parametrize(("subject", "payload"), HOSTILE)
async def test_what_is_no_event_of_this_user_is_counted_and_dropped(
    autojump_clock: Clock, subject: str, payload: bytes
) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        assert world.hub.bus.publish(subject, payload)
        await silent(peer)
        assert world.hub.metrics.events_malformed == 1
        tell(world, UserEvent(kind="mail", user_id=1001))
        assert (await peer.receive(Event)).kind == "mail"


@pytest.mark.parametrize(
    "subject", ["im.user.1001.event", "im.user.*.event", "im.user..event", "", "x", "im.user.\n.event"]
)
@pytest.mark.parametrize(
    "payload", [b"", b"junk", UserEvent(kind="x" * 60_000).encode(), UserEvent(kind="Online").encode()]
)
async def test_the_handler_raises_for_nothing(autojump_clock: Clock, subject: str, payload: bytes) -> None:
    async with open_world() as world:
        await world.seated(1001)
        world.hub.events.receive(subject, payload)
        metrics = world.hub.metrics
        await trio.sleep(0.1)
        assert metrics.events_received == (
            metrics.events_elsewhere + metrics.events_presence + metrics.events_delivered + metrics.events_malformed
        )


@given(kind=st.text(), data=st.binary(max_size=500))
@settings(max_examples=30, deadline=None)
def test_any_text_may_be_a_kind(kind: str, data: bytes) -> None:
    async def run() -> None:
        async with open_world() as world:
            peer = await world.seated(1001)
            tell(world, UserEvent(kind=kind, data=data))
            if kind in ("", "online", "offline", "kicked"):
                await silent(peer)
            else:
                assert await peer.receive(Event) == Event(kind=kind, data=data)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_bus_that_is_full_costs_the_event_and_not_the_login(autojump_clock: Clock) -> None:
    bus = MemoryBus(max_messages=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with open_world(bus=bus, logic=False) as world:
            peer = await world.connect()
            publish = bus.publish
            bus.publish = lambda subject, payload: False  # type: ignore[method-assign]
            await peer.log_in(1001)
            bus.publish = publish  # type: ignore[method-assign]
            assert world.hub.metrics.events_refused == 1
            await peer.hang_up()
            await trio.sleep(0.1)
            assert world.hub.metrics.events_published == 1
        nursery.cancel_scope.cancel()
