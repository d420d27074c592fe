"""The promises of SessionStore and Dedup as tests. Whoever implements one derives from its contract."""

from __future__ import annotations

import msgspec
import pytest
import trio

from gateway.core.ports import Dedup, SessionRecord, SessionStore


def login(session_id: str = "s-1", user: int = 1001, **fields: object) -> SessionRecord:
    told = {
        "session_id": session_id,
        "user_id": user,
        "device_id": "phone",
        "platform": "ios",
        "access_node": "node-1",
        "conn_id": 10,
        "boot_id": "boot-of-node-1",
        "login_time": 1_700_000_000,
        "last_active": 1_700_000_100,
        "expires_at": 1_700_003_600,
        "address": '192.0.2.7","user_id":1',
        "transport": "tcp",
        "region": "north",
        **fields,
    }
    return msgspec.convert(told, SessionRecord)


class SessionContract:
    """Needs fixture `sessions`, empty, `lifetime` and `elapse`."""

    lifetime: float

    @pytest.fixture
    async def sessions(self) -> SessionStore:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> object:
        """Taken by the tests that let time pass: a MockClock where the store lives by Trio's clock."""
        return None

    async def elapse(self, seconds: float) -> None:
        """Let this much time pass for the store."""
        raise NotImplementedError

    async def test_what_was_put_is_found_whole(self, sessions: SessionStore) -> None:
        await sessions.put([login()])
        assert await sessions.find("s-1") == login()
        assert await sessions.of_user(1001) == [login()]

    async def test_what_was_not_is_not(self, sessions: SessionStore) -> None:
        assert await sessions.find("s-1") is None
        assert await sessions.of_user(1001) == []
        await sessions.remove([login()])
        await sessions.put([])
        await sessions.remove([])

    async def test_all_of_a_user_by_login_and_of_nobody_else(self, sessions: SessionStore) -> None:
        times = {"s-3": 30, "s-1": 10, "s-2": 20}
        await sessions.put([login(each, login_time=at) for each, at in times.items()])
        await sessions.put([login("s-9", user=9)])
        assert [each.session_id for each in await sessions.of_user(1001)] == ["s-1", "s-2", "s-3"]
        await sessions.remove([login("s-2")])
        assert [each.session_id for each in await sessions.of_user(1001)] == ["s-1", "s-3"]
        assert await sessions.find("s-2") is None
        assert await sessions.find("s-9") is not None

    async def test_put_again_it_is_what_it_is_now(self, sessions: SessionStore) -> None:
        await sessions.put([login()])
        await sessions.put([login(last_active=1_700_000_200)])
        (found,) = await sessions.of_user(1001)
        assert found.last_active == 1_700_000_200

    async def test_many_at_once(self, sessions: SessionStore) -> None:
        records = [login(f"s-{i}", user=i) for i in range(1, 1_201)]
        await sessions.put(records)
        assert await sessions.find("s-1200") == records[-1]
        await sessions.remove(records[:-1])
        assert await sessions.find("s-1") is None
        assert await sessions.of_user(1) == []
        assert await sessions.of_user(1_200) == [records[-1]]

    async def test_it_runs_out_unless_put_again(self, clock: object, sessions: SessionStore) -> None:
        await sessions.put([login("s-1"), login("s-2")])
        await self.elapse(self.lifetime * 0.6)
        await sessions.put([login("s-2")])
        await self.elapse(self.lifetime * 0.6)
        assert await sessions.find("s-1") is None
        assert [each.session_id for each in await sessions.of_user(1001)] == ["s-2"]
        await self.elapse(self.lifetime * 1.2)
        assert await sessions.of_user(1001) == []


class DedupContract:
    """Needs fixture `dedup`, empty, `window` and `elapse`."""

    window: float

    @pytest.fixture
    async def dedup(self) -> Dedup:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> object:
        """As in SessionContract."""
        return None

    async def elapse(self, seconds: float) -> None:
        """Let this much time pass for it."""
        raise NotImplementedError

    async def test_the_first_is_the_first_once(self, dedup: Dedup) -> None:
        assert await dedup.first(1001, "m-1")
        assert not await dedup.first(1001, "m-1")
        assert await dedup.first(1001, "m-2")
        assert await dedup.first(1002, "m-1")
        await dedup.stored(1001, "m-1", 7)
        assert not await dedup.first(1001, "m-1")

    async def test_of_many_that_ask_at_once_one_is_the_first(self, dedup: Dedup) -> None:
        answers: list[bool] = []

        async def ask() -> None:
            answers.append(await dedup.first(1001, "m-1"))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert sorted(answers) == [False] * 99 + [True]

    async def test_what_was_not_passed_on_may_come_again(self, dedup: Dedup) -> None:
        assert await dedup.first(1001, "m-1")
        await dedup.forget(1001, "m-1")
        await dedup.forget(1001, "never-entered")
        assert await dedup.first(1001, "m-1")

    async def test_it_is_remembered_for_a_while(self, clock: object, dedup: Dedup) -> None:
        assert await dedup.first(1001, "m-1")
        await self.elapse(self.window * 0.6)
        assert not await dedup.first(1001, "m-1")
        await self.elapse(self.window * 0.6)
        assert await dedup.first(1001, "m-1")

    @pytest.mark.parametrize("bad", ["", "a:b", "{1}", "a b", "m\r\n", "é", "m" * 65])
    async def test_t27_an_id_that_is_none_is_refused(self, dedup: Dedup, bad: str) -> None:
        with pytest.raises(ValueError, match="message id must be"):
            await dedup.first(1001, bad)
