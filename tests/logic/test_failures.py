"""When the store or the locations cannot: refused with 4402, nothing half-stored, and on again afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from gateway.backends.memory import MemoryLocationStore
from gateway.core.ports import Location, StoreUnavailable
from gateway.logic.service import LogicService
from gateway.logic.settings import LogicSettings
from gateway.logic.store import History, Outcome, Page, Retention, Store, StoreFailed, Write
from gateway.logic.store_sqlite import SqliteStore
from gateway.protocol.codes import Code
from gateway.protocol.messages import SyncResponse
from gateway.protocol.types import AckStatus
from tests.logic.world import Device, World, open_world

STORED, REJECTED = AckStatus.STORED, AckStatus.REJECTED


def outcomes(device: Device) -> list[tuple[str, int, int]]:
    return [(ack.msg_id, ack.status, ack.code) for ack in device.acks]


async def test_a_locked_store(path: Path) -> None:
    async with open_world(path, busy=0.05) as world:
        alice, bob = world.device(1), await world.device(2).online()
        alice.chat("before", 2)
        await world.settle()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            alice.chat("during", 2)
            await world.settle()
            other.execute("ROLLBACK")
        assert outcomes(alice) == [("before", STORED, 0), ("during", REJECTED, 4402)]
        alice.chat("during", 2)
        await world.settle()
        assert outcomes(alice)[2:] == [("during", STORED, 0)]
        assert (
            [chat.msg_id for chat in bob.chats] == [chat.msg_id for chat in await bob.history()] == ["before", "during"]
        )


async def test_a_full_disk(path: Path) -> None:
    async with open_world(path) as world:
        alice, bob = world.device(1), world.device(2)
        assert isinstance(world.store, SqliteStore)
        connection = world.store._connection
        connection.execute("PRAGMA max_page_count = 60")
        for i in range(30):
            alice.chat(f"m{i}", 2, "x" * 20_000)
            await world.settle()
        assert outcomes(alice)[0] == ("m0", STORED, 0)
        assert outcomes(alice)[-1] == ("m29", REJECTED, 4402)
        stored = [msg_id for msg_id, status, _ in outcomes(alice) if status == STORED]
        assert [chat.msg_id for chat in await bob.history()] == stored
        connection.execute("PRAGMA max_page_count = 100000")
        alice.chat("m29", 2)
        await world.settle()
        history = await bob.history()
        assert [chat.msg_id for chat in history] == [*stored, "m29"]
        assert [chat.server_seq for chat in history] == list(range(1, len(history) + 1))
        assert world.service.statistics().waiting == 0


class Moody:
    """A Store that raises what it is told to."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.error: Exception | None = None

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        if self.error:
            raise self.error
        return await self.inner.write(writes, now_ms)

    async def read(self, queries: Sequence[History]) -> list[Page]:
        if self.error:
            raise self.error
        return await self.inner.read(queries)

    async def members(self, group_ids: Sequence[int]) -> dict[int, frozenset[int]]:
        if self.error:
            raise self.error
        return await self.inner.members(group_ids)

    async def prune(self, retention: Retention, after: str) -> str:
        return await self.inner.prune(retention, after)


@pytest.mark.parametrize(
    ("error", "code"), [(StoreFailed("gone"), Code.UPSTREAM_UNAVAILABLE), (KeyError("a bug"), Code.INTERNAL_ERROR)]
)
async def test_whatever_the_store_raises(path: Path, error: Exception, code: Code) -> None:
    moods: list[Moody] = []

    def wrap(store: Store) -> Store:
        moods.append(Moody(store))
        return moods[0]

    async with open_world(path, wrap=wrap) as world:
        alice, bob = world.device(1), await world.device(2).online()
        moods[0].error = error
        alice.chat("m", 2)
        alice.signal(to=2)
        alice.signal(group=7)
        await world.settle()
        assert outcomes(alice) == [("m", REJECTED, code)]
        moods[0].error = None
        alice.chat("m", 2)
        await world.settle()
        assert outcomes(alice)[1:] == [("m", STORED, 0)]
        assert [chat.msg_id for chat in bob.chats] == ["m"]
        assert world.service.statistics().store_failures == 1


async def test_sync_says_so(path: Path) -> None:
    moods: list[Moody] = []

    def wrap(store: Store) -> Store:
        moods.append(Moody(store))
        return moods[0]

    async with open_world(path, wrap=wrap) as world:
        bob = world.device(2)
        moods[0].error = StoreFailed("gone")
        assert await bob.sync(7) == SyncResponse(code=4402, next_cursor=7)


class AbsentLocations(MemoryLocationStore):
    """Cannot be asked, or never answers."""

    mode = "raise"

    async def lookup(self, user_ids: Sequence[int]) -> dict[int, list[Location]]:
        if self.mode == "raise":
            raise StoreUnavailable("gone")
        if self.mode == "hang":
            await trio.sleep_forever()
        return await super().lookup(user_ids)


class PartlyAbsentLocations(MemoryLocationStore):
    """Those with an even number cannot be asked for."""

    async def lookup(self, user_ids: Sequence[int]) -> dict[int, list[Location]]:
        found = await super().lookup([each for each in user_ids if each % 2])
        if any(each % 2 == 0 for each in user_ids):
            raise StoreUnavailable("a part is away", found)
        return found


async def test_who_can_be_asked_for_is_delivered_to_though_others_cannot(path: Path) -> None:
    async with open_world(path, locations=PartlyAbsentLocations()) as world:
        alice, bob, carol = [await world.device(user).online() for user in (1, 2, 3)]
        alice.chat("m", 2)
        alice.chat("n", 3)
        await world.settle()
        assert outcomes(alice) == [("m", STORED, 0), ("n", STORED, 0)]
        assert bob.chats == []  # finds it by Sync
        assert [each.msg_id for each in carol.chats] == ["n"]


@pytest.mark.parametrize("mode", ["raise", "hang"])
async def test_without_locations_messages_are_stored_and_found_by_sync(path: Path, mode: str) -> None:
    locations = AbsentLocations()
    async with open_world(path, LogicSettings(lookup_timeout=0.05), locations=locations) as world:
        alice, bob = await world.device(1).online(), await world.device(2).online()
        locations.mode = mode
        alice.chat("m", 2)
        alice.signal(to=2)
        await world.settle()
        assert outcomes(alice) == [("m", STORED, 0)]
        assert bob.received == []
        locations.mode = ""
        alice.chat("n", 2)
        await world.settle()
        assert [(chat.msg_id, chat.server_seq) for chat in bob.chats] == [("n", 2)]
        assert [chat.msg_id for chat in await bob.history()] == ["m", "n"]


async def test_cancelled_at_any_time_it_leaves_nothing_behind(path: Path) -> None:
    """Threat 45: no subscription, no task; and what was Stored is there afterwards."""
    for turns in range(0, 40, 3):
        async with open_world(path) as world:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    service = LogicService(world.bus, world.locations, world.store, world_settings())
                    await nursery.start(service.run)
                    device = world.device(turns + 1)
                    for i in range(20):
                        device.chat(f"m{i}", 1000)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            assert scope.cancelled_caught
            await world.settle()
            stored = [ack.msg_id for ack in device.acks if ack.status == STORED]
            assert set(stored) <= {chat.msg_id for chat in await device.history()}


def world_settings() -> LogicSettings:
    return LogicSettings(commit_messages=3)


async def test_idle_it_waits(world: World) -> None:
    alice = world.device(1)
    alice.chat("m", 2)
    await world.settle()
    with trio.fail_after(5):
        await wait_all_tasks_blocked()


async def test_a_newer_version_is_refused(path: Path) -> None:
    async with open_world(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="newer version"):
        async with SqliteStore.open(path):
            pass
