"""What the stores are told of a node's connections: session records, and everything anew after an outage."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest
import trio
import trio.testing

from gateway.backends.memory import MemoryLocationStore
from gateway.backends.memory_sessions import MemorySessionStore
from gateway.core.ports import (
    Claimed,
    Location,
    LoginPolicy,
    SessionRecord,
    SessionStore,
    StoreUnavailable,
)
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, Kick
from tests.support.peer import Peer
from tests.support.world import World, open_world

HEARTBEAT = b"\0\0\0\0\0\0"


async def settled() -> None:
    """Whatever is on its way has arrived."""
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()


async def closed(peer: Peer) -> int:
    with trio.fail_after(30):
        return next(each.code for each in await peer.closed() if isinstance(each, Kick))


def sessions_of(world: World) -> SessionStore:
    assert world.hub.sessions is not None
    return world.hub.sessions


class AwaySessions(MemorySessionStore):
    """Fails while it is away."""

    away = False

    async def put(self, records: Sequence[SessionRecord]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().put(records)

    async def remove(self, records: Sequence[SessionRecord]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().remove(records)


class ForgetfulLocations(MemoryLocationStore):
    """Forgets everything, and says so; some of it cannot be entered again."""

    def __init__(self) -> None:
        super().__init__()
        self._recovered = trio.Event()
        self.refuse: set[int] = set()
        self.hang: set[int] = set()
        self.rounds: list[int] = []

    def forget(self) -> None:
        self._users.clear()
        self._deadlines.clear()
        self._recovered.set()

    async def wait_recovered(self) -> None:
        await self._recovered.wait()
        self._recovered = trio.Event()

    async def claim(self, location: Location, policy: LoginPolicy) -> Sequence[Location] | None:
        if location.user_id in self.hang:
            await trio.sleep_forever()
        return await super().claim(location, policy)

    async def reclaim(self, locations: Sequence[Location], policy: LoginPolicy) -> Sequence[Claimed]:
        self.rounds.append(len(locations))
        return [
            StoreUnavailable("away") if each.user_id in self.refuse else await self.claim(each, policy)
            for each in locations
        ]


async def test_a_session_is_written_at_login_and_removed_at_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        sessions = sessions_of(world)
        phone = await world.seated(1001, "phone", platform="ios")
        await world.seated(1001, "tablet", platform="android")
        await settled()
        first, second = await sessions.of_user(1001)
        (seat,) = [each for each in world.hub.registry.of_user(1001) if each.id == first.conn_id]
        assert seat.session is not None
        assert first == SessionRecord(
            session_id=seat.session.id,
            user_id=1001,
            device_id="phone",
            platform="ios",
            access_node="node-1",
            conn_id=seat.id,
            boot_id=world.hub.boot_id,
            login_time=seat.session.login_time,
            last_active=first.last_active,
            expires_at=first.expires_at,
            address="192.0.2.1",
            transport=seat.link.transport,
        )
        assert abs(first.expires_at - time.time() - 3600) < 60
        assert await sessions.find(first.session_id) == first
        await phone.hang_up()
        await settled()
        assert await sessions.of_user(1001) == [second]
    assert await sessions.of_user(1001) == []


async def test_it_lives_as_long_as_its_connection_and_tells_when_the_client_was_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        await settled()
        (before,) = await sessions_of(world).of_user(1001)
        for _ in range(10):
            await trio.sleep(29)
            await peer.send_bytes(HEARTBEAT)
        (after,) = await sessions_of(world).of_user(1001)
        assert msgspec.structs.replace(after, last_active=0, expires_at=0) == msgspec.structs.replace(
            before, last_active=0, expires_at=0
        )
        assert abs(after.last_active - time.time()) < 60  # virtual seconds are not the wall clock's


async def test_a_store_that_is_away_costs_no_login_and_is_told_later(autojump_clock: trio.testing.MockClock) -> None:
    sessions = AwaySessions()
    sessions.away = True
    async with open_world(sessions=sessions) as world:
        gone = await world.seated(1001)
        stays = await world.seated(1002)
        await gone.hang_up()
        await settled()
        assert sessions.statistics()["sessions"] == 0
        sessions.away = False
        await trio.sleep(31)
        assert await sessions.of_user(1001) == []
        assert len(await sessions.of_user(1002)) == 1
        await stays.hang_up()


async def test_everything_is_entered_again_at_once_when_the_store_has_forgotten(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    locations = ForgetfulLocations()
    async with open_world(locations=locations) as world:
        peers = [await world.seated(user) for user in range(1, 31)]
        await peers[0].hang_up()
        locations.refuse = {30}
        locations.forget()
        await settled()
        assert locations.rounds[0] == 29  # in one round trip
        assert set(await locations.lookup(range(1, 31))) == set(range(2, 30))
        assert [each.message for each in caplog.records].count("renewal_failed") == 1
        assert world.hub.metrics.sessions == 29


async def test_what_could_not_be_entered_again_is_tried_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    locations = ForgetfulLocations()
    async with open_world(locations=locations) as world:
        for user in (1, 2, 3):
            await world.seated(user)
        locations.refuse = {2}
        locations.forget()
        await settled()
        assert set(await locations.lookup([1, 2, 3])) == {1, 3}
        await trio.sleep(20)
        assert locations.rounds == [3, 1, 1, 1, 1]  # only what failed, and less and less often
        locations.refuse = set()
        await trio.sleep(20)
        assert set(await locations.lookup([1, 2, 3])) == {1, 2, 3}


async def test_who_is_not_seated_yet_is_not_entered(autojump_clock: trio.testing.MockClock) -> None:
    """Its login does that, or does not."""
    locations = ForgetfulLocations()
    async with open_world(locations=locations) as world:
        await world.seated(1)
        locations.hang = {2}
        peer = await world.connect()
        await peer.send(AuthRequest(token="2", device_id="phone", platform="ios"))
        await settled()
        assert len(world.hub.seats) == 2
        locations.forget()
        await settled()
        assert locations.rounds == [1]


async def test_t42_whoever_was_replaced_meanwhile_gives_way(autojump_clock: trio.testing.MockClock) -> None:
    locations = ForgetfulLocations()
    async with open_world(locations=locations) as world:
        moved, stays = await world.seated(1001), await world.seated(1002)
        (seat,) = (await locations.lookup([1001]))[1001]
        locations.forget()
        newer = msgspec.structs.replace(seat, conn_id=seat.conn_id + 1, access_node="node-2", boot_id="another")
        assert await locations.claim(newer, LoginPolicy.MULTI_DEVICE) == []
        assert await closed(moved) == Code.REPLACED_BY_SAME_DEVICE
        assert [each.conn_id for each in (await locations.lookup([1001]))[1001]] == [newer.conn_id]
        await stays.send_bytes(HEARTBEAT)
        assert await stays.frame() is not None
