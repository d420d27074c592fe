"""Sessions and seen messages inside the process keep their contracts, and their bounds."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.backends.memory_sessions import MemoryDedup, MemorySessionStore
from gateway.core.ports import StoreUnavailable
from tests.contracts.sessions import DedupContract, SessionContract, login


class TestMemorySessions(SessionContract):
    lifetime = 120.0

    @pytest.fixture
    def clock(self, autojump_clock: trio.testing.MockClock) -> object:
        return autojump_clock

    @pytest.fixture
    async def sessions(self) -> MemorySessionStore:
        return MemorySessionStore()

    async def elapse(self, seconds: float) -> None:
        await trio.sleep(seconds)


class TestMemoryDedup(DedupContract):
    window = 300.0

    @pytest.fixture
    def clock(self, autojump_clock: trio.testing.MockClock) -> object:
        return autojump_clock

    @pytest.fixture
    async def dedup(self) -> MemoryDedup:
        return MemoryDedup()

    async def elapse(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def test_what_ran_out_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    sessions, dedup = MemorySessionStore(), MemoryDedup()
    for i in range(100):
        await sessions.put([login(f"s-{i}", user=i + 1)])
        await dedup.first(1, f"m-{i}")
    await trio.sleep(301)
    assert await sessions.find("s-1") is None
    assert sessions.statistics() == {"sessions": 0, "users": 0}
    assert await dedup.first(1, "m-1")
    assert dedup.statistics() == {"seen": 1}


async def test_what_is_remembered_is_bounded_and_the_next_does_not_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dedup = MemoryDedup(most=3)
    for i in range(3):
        assert await dedup.first(1, f"m-{i}")
    with pytest.raises(StoreUnavailable, match="too many"):
        await dedup.first(1, "m-3")
    assert not await dedup.first(1, "m-0")
    await trio.sleep(301)
    assert await dedup.first(1, "m-3")
