"""The in-process bus and location store keep the contracts, and what is particular to them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.backends.memory_stream import DUPLICATE_WINDOW, MAX_DELIVERIES
from gateway.core.ports import Bus, DurableBus, LocationStore, LoginPolicy, StreamItem
from tests.contracts.bus import BusContract, Inbox
from tests.contracts.durable_bus import CONFIRMED, REFUSED, REPEATED, DurableBusContract, Words
from tests.contracts.locations import LocationContract, place


class TestMemoryBusContract(BusContract):
    @pytest.fixture
    async def bus(self) -> AsyncIterator[Bus]:
        async with trio.open_nursery() as nursery:
            bus = MemoryBus()
            await nursery.start(bus.run)
            yield bus
            nursery.cancel_scope.cancel()

    @pytest.fixture
    async def small_bus(self) -> AsyncIterator[Bus]:
        async with trio.open_nursery() as nursery:
            bus = MemoryBus(max_bytes=100_000)
            await nursery.start(bus.run)
            yield bus
            nursery.cancel_scope.cancel()


class TestMemoryDurableBusContract(DurableBusContract):
    unsettled = 1_024

    @pytest.fixture
    def subject(self) -> str:
        return "im.logic.durable"

    @pytest.fixture
    async def bus(self) -> AsyncIterator[DurableBus]:
        async with trio.open_nursery() as nursery:
            bus = MemoryBus()
            await nursery.start(bus.run)
            yield bus
            nursery.cancel_scope.cancel()

    @pytest.fixture
    async def small_bus(self) -> AsyncIterator[DurableBus]:
        async with trio.open_nursery() as nursery:
            bus = MemoryBus(max_messages=self.small)
            await nursery.start(bus.run)
            yield bus
            nursery.cancel_scope.cancel()


class TestMemoryLocationContract(LocationContract):
    lifetime = 120.0

    @pytest.fixture
    def clock(self, autojump_clock: MockClock) -> object:
        return autojump_clock

    @pytest.fixture
    async def store(self) -> LocationStore:
        return MemoryLocationStore(lifetime=self.lifetime)

    async def elapse(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def test_bounds_in_messages_and_bytes(nursery: trio.Nursery) -> None:
    bus = MemoryBus(max_messages=3, max_bytes=10)
    await nursery.start(bus.run)
    assert [bus.publish("im.x", b"1") for _ in range(4)] == [True, True, True, False]
    await bus.drain()
    assert [bus.publish("im.x", bytes(6)) for _ in range(2)] == [True, False]
    assert bus.publish("im.x", bytes(4))
    seen = bus.statistics()
    assert (seen.queued_messages, seen.queued_bytes, seen.refused) == (2, 10, 2)


async def test_a_bus_that_does_not_run_says_no() -> None:
    bus = MemoryBus()
    assert not bus.healthy
    assert not bus.publish("im.x", b"1")
    with trio.fail_after(1):
        await bus.drain()


async def test_cancelled_it_forgets_and_may_run_again() -> None:
    bus = MemoryBus()
    inbox = Inbox()
    bus.subscribe("im.x", inbox)
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        with pytest.raises(RuntimeError):
            await bus.run()
        nursery.cancel_scope.cancel()
        assert bus.publish("im.x", b"lost")
    assert not bus.healthy
    assert bus.statistics().queued_messages == bus.statistics().queued_bytes == 0
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        assert bus.publish("im.x", b"seen")
        assert await inbox.wait(1) == [b"seen"]
        nursery.cancel_scope.cancel()


async def test_cancelling_the_bus_frees_who_drains(nursery: trio.Nursery) -> None:
    bus = MemoryBus()
    scope = trio.CancelScope()

    async def carry(task_status: trio.TaskStatus[None]) -> None:
        with scope:
            await bus.run(task_status=task_status)

    def stop(subject: str, payload: bytes) -> None:
        scope.cancel()

    bus.subscribe("im.x", stop)
    await nursery.start(carry)
    for _ in range(1_000):
        bus.publish("im.x", b"")
    with trio.fail_after(5):
        await bus.drain()
    assert not bus.healthy


async def test_a_flood_gives_way_after_each_slice(nursery: trio.Nursery) -> None:
    bus = MemoryBus(slice_messages=10)
    await nursery.start(bus.run)
    inbox = Inbox()
    bus.subscribe("im.x", inbox)
    for _ in range(1_000):
        bus.publish("im.x", b"")
    for _ in range(5):
        before = len(inbox.items)
        await trio.lowlevel.checkpoint()
        assert len(inbox.items) - before <= 20
    await bus.drain()
    assert len(inbox.items) == 1_000


async def test_strange_subjects_cost_no_memory(nursery: trio.Nursery) -> None:
    bus = MemoryBus()
    await nursery.start(bus.run)
    inbox = Inbox()
    bus.subscribe("im.user.*.event", inbox)
    for i in range(10_000):
        assert bus.publish(f"im.user.{i}.event", b"")
    await bus.drain()
    assert len(inbox.items) == 10_000
    assert len(bus._routes) <= 4096


async def test_an_idle_bus_waits(nursery: trio.Nursery) -> None:
    bus = MemoryBus()
    await nursery.start(bus.run)
    bus.publish("im.x", b"")
    with trio.fail_after(5):
        await wait_all_tasks_blocked()


async def test_forgotten_locations_cost_no_memory(autojump_clock: MockClock) -> None:
    store = MemoryLocationStore(lifetime=10)
    for user in range(1, 101):
        await store.claim(place(user, user=user), LoginPolicy.MULTI_DEVICE)
    assert store.entries == 100
    await trio.sleep(11)
    await store.claim(place(500, user=500), LoginPolicy.MULTI_DEVICE)
    assert store.entries == 1


async def test_a_jump_of_the_wall_clock_loses_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threat 39."""
    store = MemoryLocationStore(lifetime=120)
    mine = place(10)
    await store.claim(mine, LoginPolicy.MULTI_DEVICE)
    for jump in (3_600.0, -3_600.0):
        monkeypatch.setattr("gateway.backends.memory.time.time", lambda jump=jump: 1_700_000_000.0 + jump)
        assert await store.renew([mine]) == []
        assert len((await store.lookup([1001]))[1001]) == 1


async def test_a_cancelled_claim_entered_nothing() -> None:
    """Threat 45."""
    store = MemoryLocationStore()
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.claim(place(10), LoginPolicy.MULTI_DEVICE)
    assert scope.cancelled_caught
    assert store.entries == 0


async def test_a_stream_drops_poison_and_says_so(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bus = MemoryBus()
    await nursery.start(bus.run)
    seen: list[int] = []

    def handler(item: StreamItem) -> None:
        seen.append(item.attempt)
        raise KeyError("a bug")

    bus.consume("im.logic.durable", handler, group="logic-group")
    assert bus.publish_durable("im.logic.durable", b"x", "1.a", lambda _: None)
    await trio.sleep(10_000)
    assert seen == list(range(1, MAX_DELIVERIES + 1))
    assert bus._streams["im.logic.durable"].messages == 0
    assert "stream_poisoned" in [record.getMessage() for record in caplog.records]


async def test_a_streams_bounds_in_bytes_and_words_and_its_window(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bus = MemoryBus(max_messages=3, max_bytes=10)
    await nursery.start(bus.run)
    words = Words()

    def offer(key: str, size: int) -> bool:
        return bus.publish_durable("im.logic.durable", bytes(size), key, words.of(key))

    assert [offer("1.a", 6), offer("1.b", 5), offer("1.c", 4)] == [True] * 3
    assert not offer("1.d", 0)  # three words have not been told
    await bus.drain()
    assert words.told == [("1.a", CONFIRMED), ("1.b", REFUSED), ("1.c", CONFIRMED)]
    assert offer("1.a", 0)
    await trio.sleep(DUPLICATE_WINDOW + 1)
    assert offer("1.a", 0)
    await bus.drain()
    assert [became for _, became in words.told[3:]] == [REPEATED, CONFIRMED]
