"""Closed accounting: whatever came in is in the books, whatever traffic it was and whenever one looks."""

import random

import pytest
import trio
from trio.abc import Clock
from trio.testing import lockstep_stream_pair

from gateway._framing import build_downstream
from gateway.backends.memory import MemoryBus
from gateway.core.books import Account, books
from gateway.core.hub import Hub
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code
from gateway.protocol.envelopes import UserEvent
from gateway.protocol.messages import (
    AuthRequest,
    ChatMessage,
    Heartbeat,
    Message,
    MessageAck,
    Signal,
    SyncRequest,
    packet,
    type_of,
)
from gateway.protocol.types import AckStatus, Action
from gateway.transports.stream import serve_stream
from tests.support.peer import Peer
from tests.support.world import World, open_world

USERS = range(1001, 1006)
LONG_AGO = 1


def closed(hub: Hub) -> dict[str, Account]:
    """Every account, each of which must be balanced."""
    accounts = {account.name: account for account in books(hub)}
    for account in accounts.values():
        assert account.balanced, account
    return accounts


class Traffic:
    """Random doings of clients and services, counted by what was sent."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.downs = self.events = self.beats = 0

    async def client(self, nursery: trio.Nursery, user: int) -> None:
        """One life, or several: log in, send anything, be read or not, leave or be closed."""
        chance = self.chance
        for life in range(3):
            peer = await self.world.connect(f"192.0.2.{user % 250}")
            try:
                await peer.log_in(user, chance.choice(["phone", "desk"]), sync_cursor=chance.choice([0, 7]))
                if chance.random() < 0.7:
                    nursery.start_soon(self._read, peer)
                for number in range(chance.randrange(30)):
                    await self._send(peer, f"m-{life}-{number}")
                    closed(self.world.hub)
                    await trio.sleep(chance.random() / 4)
                if chance.random() < 0.5:
                    await peer.hang_up()
            except (trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
                assert all(account.balanced for account in books(self.world.hub))  # it was closed meanwhile

    async def _read(self, peer: Peer) -> None:
        while not peer.ended:
            await peer.frame()

    async def _send(self, peer: Peer, msg_id: str) -> None:
        beat = Heartbeat()
        what: list[Message] = [
            ChatMessage(msg_id=msg_id, to_user=self.chance.choice(USERS), content="x" * self.chance.randrange(500)),
            ChatMessage(msg_id="no good!", to_user=1),
            MessageAck(msg_id=msg_id, status=self.chance.choice([AckStatus.READ, AckStatus.STORED])),
            Signal(to_user=1002, kind="typing"),
            Signal(),
            SyncRequest(cursor=3),
            AuthRequest(token="1", device_id="x", platform="y"),
            beat,
        ]
        message = self.chance.choices(what, weights=[9, 1, 3, 4, 1, 2, 0.2, 6])[0]
        if self.chance.random() < 0.02:
            await peer.send_bytes(b"\0\0\0\4\0\x0ajunk")
        else:
            await peer.send(message)

    async def service(self) -> None:
        """Downstreams and events, good, late, misdirected and broken."""
        hub, chance = self.world.hub, self.chance
        for _ in range(300):
            user = chance.choice([*USERS, 9999])
            message = chance.choice(
                [
                    ChatMessage(msg_id="d", to_user=user, content="y" * chance.choice([10, 3000])),
                    Signal(from_user=3, kind="t"),
                ]
            )
            everyone = chance.random() < 0.1
            conn_ids = (chance.choice([5, *(each.id for each in hub.registry)]),) if chance.random() < 0.2 else ()
            action = Action.KICK if chance.random() < 0.03 else Action.DELIVER
            until = LONG_AGO if chance.random() < 0.1 else 0
            down = build_downstream(
                0 if everyone else user, conn_ids, "", "", 0, action, 0, type_of(message), packet(message), until
            )
            self.world.down(b"junk" if chance.random() < 0.05 else down)
            self.downs += 1
            if chance.random() < 0.3:
                event = UserEvent(kind=chance.choice(["mail", "online", ""]), user_id=chance.choice([0, user, 1]))
                assert hub.bus.publish(f"im.user.{user}.event", event.encode())
                self.events += 1
            closed(hub)
            await trio.sleep(chance.random() / 8)
            closed(hub)


@pytest.mark.parametrize("seed", range(6))
async def test_random_traffic_is_accounted_for_at_every_moment(autojump_clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    limits = LimitSettings(outbox_bytes=chance.choice([16_384, 262_144]), message_rate=30, message_burst=20)
    async with open_world(limits=limits) as world:
        traffic = Traffic(world, chance)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.service)
            async with trio.open_nursery() as clients:
                for user in USERS:
                    clients.start_soon(traffic.client, nursery, user)
            await trio.sleep(200)  # whoever says nothing is closed by now
            nursery.cancel_scope.cancel()
        await world.hub.bus.drain()
        accounts = closed(world.hub)
        metrics = world.hub.metrics
        assert accounts["downstreams"].came == traffic.downs
        assert accounts["events"].came == traffic.events + metrics.events_published
        assert accounts["outboxes"].became["waiting"] == 0
        assert accounts["frames"].came > 100


async def test_each_end_is_met_and_counted_once(autojump_clock: Clock) -> None:
    limits = LimitSettings(outbox_bytes=8_192)
    async with open_world(limits=limits) as world:
        peer = await world.seated(1001, sync_cursor=3)
        for message in (
            ChatMessage(msg_id="m-1", to_user=1002),
            ChatMessage(msg_id="bad id", to_user=1002),
            MessageAck(msg_id="m-1", status=AckStatus.READ),
            Signal(to_user=1002, kind="typing"),
            Signal(),
            SyncRequest(cursor=1),
            Heartbeat(),
            Heartbeat(),
        ):
            await peer.send(message)
        await trio.sleep(0.1)
        became = closed(world.hub)["frames"].became
        assert {end: count for end, count in became.items() if count} == {
            "login": 1, "accepted": 1, "passed_up": 4, "refused_4004": 2, "heartbeat": 2,
        }  # fmt: skip
        hub = world.hub
        bodies = [packet(ChatMessage(msg_id="d")), packet(Signal(from_user=2, kind="t"))]
        kinds = [10, 12]

        def down(user: int, which: int = 0, *, action: Action = Action.DELIVER, until: int = 0) -> bytes:
            return build_downstream(user, (), "", "", 0, action, 0, kinds[which], bodies[which], until)

        payloads = [down(1001), down(1001, 1), down(1001, 1), down(9999), down(0), down(1001, until=LONG_AGO), b"junk"]
        for payload in payloads:
            world.down(payload)
        await hub.bus.drain()
        assert closed(hub)["copies"].became == {"queued": 3, "conflated": 1, "dropped": 0, "overflowed": 0}
        assert closed(hub)["downstreams"].became == {
            "delivered": 4, "unheard": 0, "kick": 0, "undelivered": 1, "expired": 1, "malformed": 1,
        }  # fmt: skip
        await trio.sleep(0.1)
        assert closed(hub)["outboxes"].became == {"written": 3, "replaced": 1, "discarded": 0, "waiting": 0}
        world.down(down(1001, action=Action.KICK))
        await peer.closed()
        await peer.hang_up()
        await trio.sleep(3)
        world.down(down(0))
        await hub.bus.drain()
        became = closed(hub)["downstreams"].became
        assert (became["kick"], became["unheard"]) == (1, 1)


async def test_a_bus_that_says_no_is_an_end_too(autojump_clock: Clock) -> None:
    bus = MemoryBus()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with open_world(bus=bus, logic=False) as world:
            peer = await world.seated(1001)
            bus.publish = lambda subject, payload: False  # type: ignore[method-assign]
            for message in (ChatMessage(msg_id="m-1", to_user=1002), Signal(to_user=1002, kind="t"), SyncRequest()):
                await peer.send(message)
            await trio.sleep(0.1)
            became = closed(world.hub)["frames"].became
            assert (became[f"refused_{Code.UPSTREAM_UNAVAILABLE:d}"], became["held_back"]) == (2, 1)
            assert (became["accepted"], became["passed_up"], became["heartbeat"]) == (0, 0, 0)
        nursery.cancel_scope.cancel()


async def test_a_reader_that_stops_is_accounted_for_to_the_last_frame(autojump_clock: Clock) -> None:
    async with open_world(limits=LimitSettings(outbox_bytes=8_192)) as world:
        await world.seated(1001)
        body = packet(ChatMessage(msg_id="d", content="x" * 2000))
        for _ in range(20):
            world.down(build_downstream(1001, (), "", "", 0, Action.DELIVER, 0, 10, body, 0))
        await world.hub.bus.drain()
        copies, outboxes = (closed(world.hub)[name].became for name in ("copies", "outboxes"))
        assert copies["overflowed"] == 1
        assert copies["queued"] + copies["dropped"] == 19
        assert outboxes["discarded"] > 0
        await trio.sleep(10)
        closed(world.hub)


async def test_replies_behind_a_full_socket_are_accounted_for(autojump_clock: Clock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        ours, theirs = lockstep_stream_pair()  # takes nothing until it is read
        nursery.start_soon(serve_stream, world.hub.serve, theirs, "192.0.2.1")
        peer = Peer(ours)
        await peer.log_in(1001)
        for _ in range(5):
            await peer.send(Heartbeat())
        await trio.sleep(1)
        assert closed(world.hub)["outboxes"].became["waiting"] > 0
        assert world.hub.metrics.replies_queued > 0
        for _ in range(5):
            await peer.receive(Heartbeat)
        for _ in range(5):
            await peer.send(Heartbeat())
        await peer.hang_up()
        await trio.sleep(5)
        outboxes = closed(world.hub)["outboxes"].became
        assert outboxes["written"] > 0
        assert outboxes["discarded"] > 0
        assert outboxes["waiting"] == 0


def test_books_that_do_not_add_up_say_so() -> None:
    assert not Account("frames", 3, {"a": 1, "b": 1}).balanced
    assert not Account("frames", 1, {"a": 2, "b": -1}).balanced
    assert Account("frames", 3, {"a": 2, "b": 1}).balanced
