"""What need not be kept is forgotten: in small steps, with everything that belongs to it, and nothing else."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.backends.settings_redis import RedisSettings
from gateway.config import ConfigError, load
from gateway.logic import pruning_sqlite, retention, store_redis
from gateway.logic.database import VERSION, connect
from gateway.logic.retention import forget
from gateway.logic.service import LogicService
from gateway.logic.settings import LogicSettings
from gateway.logic.store import (
    History,
    Outcome,
    Page,
    Post,
    Posted,
    Raised,
    Receipt,
    Retention,
    Store,
    StoreFailed,
    Told,
    Write,
)
from gateway.logic.store_sqlite import SqliteStore
from gateway.protocol.types import AckStatus
from tests.contracts.store_model import pruned
from tests.logic.redis_world import redis_store
from tests.support.redis_server import RedisServer

DAY = 86_400_000


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, redis: RedisSettings) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        async with SqliteStore.open(tmp_path / "logic.sqlite") as file:
            yield file
    else:
        async with redis_store(redis) as shared:
            yield shared


async def send(store: Store, sender: int, to: int, count: int, *, at: int = 1, first: int = 0) -> None:
    writes: list[Write] = [Post(sender, f"m{i}", to, 0, "x", 0, 5) for i in range(first, first + count)]
    while writes:
        writes = writes[len(await store.write(writes, at)) :]


async def shown(store: Store, user: int, cursor: int = 0) -> list[int]:
    [page] = await store.read([History(user, cursor, 10_000, 10_000_000)])
    return [each.server_seq for each in page.entries]


async def test_by_number_the_newest_of_each_stay(store: Store) -> None:
    await send(store, 1, 2, 50)
    await send(store, 3, 2, 5)
    assert await pruned(store, Retention(0, 10)) >= 1
    assert await shown(store, 1) == list(range(41, 51))
    assert await shown(store, 2) == list(range(46, 56))
    assert await shown(store, 3) == list(range(1, 6))
    [page] = await store.read([History(2, 7, 3, 10_000)])  # from a place that is no more
    assert ([each.server_seq for each in page.entries], page.next_cursor, page.has_more) == ([46, 47, 48], 48, True)
    [outcome] = await store.write([Post(1, "new", 2, 0, "x", 0, 5)], 2)
    assert outcome == Posted(51, 2, [(2, 56)])


async def test_by_age_all_but_the_newest_go(store: Store) -> None:
    await send(store, 1, 2, 10, at=1_000)
    await send(store, 1, 3, 10, at=5_000, first=10)
    await pruned(store, Retention(3_000, 0))
    assert await shown(store, 1) == list(range(11, 21))
    assert await shown(store, 2) == [10]
    assert await shown(store, 3) == list(range(1, 11))


async def test_what_a_user_keeps_another_may_have_forgotten(store: Store) -> None:
    """A message goes with its last entry; until then it is one and the same."""
    await send(store, 1, 2, 1)
    await send(store, 1, 3, 20, first=1)
    await pruned(store, Retention(0, 5))
    assert await shown(store, 2) == [1]
    again = await store.write([Post(1, "m0", 2, 0, "x", 0, 5), Post(1, "m1", 3, 0, "x", 0, 5)], 9)
    assert again == [Posted(1, 1, repeated=True), Posted(22, 9, [(3, 21)])]  # m1 had gone: its id is free again


async def test_receipts_of_what_is_no_more_do_nothing(store: Store) -> None:
    await send(store, 1, 2, 20)
    [raised] = await store.write([Receipt(2, 3, "", AckStatus.DELIVERED)], 2)
    assert isinstance(raised, Raised)
    await pruned(store, Retention(0, 5))
    outcomes = await store.write(
        [
            Receipt(2, 3, "", AckStatus.READ),
            Receipt(2, 12, "", AckStatus.READ),
            Receipt(2, 15, "", AckStatus.READ),
            Receipt(2, 0, "m3", AckStatus.READ),
            Told(raised.key, raised.status),
            Receipt(2, 16, "", AckStatus.READ),
            Receipt(2, 0, "m17", AckStatus.READ),
        ],
        3,
    )
    assert [isinstance(each, Raised) for each in outcomes] == [False] * 5 + [True, True]
    [page] = await store.read([History(1, 0, 100, 100_000)])
    assert [each.msg_id for each in page.owed] == ["m15", "m17"]


async def test_a_round_is_many_small_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in range(1, 61, 2):
        await send(store, user, user + 1, 12)
    monkeypatch.setattr(pruning_sqlite, "TIMELINES", 7)
    monkeypatch.setattr(pruning_sqlite, "ENTRIES", 5)
    monkeypatch.setattr(store_redis, "TIMELINES_PER_LOOK", 7)
    monkeypatch.setattr(store_redis, "ENTRIES_PER_SCRIPT", 5)
    assert await pruned(store, Retention(0, 2)) > 5
    for user in range(1, 61):
        assert await shown(store, user) == [11, 12]


async def test_a_long_timeline_takes_many_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is bounded, whatever there is to do."""
    await send(store, 1, 2, 300)
    await send(store, 3, 4, 3)
    monkeypatch.setattr(pruning_sqlite, "ENTRIES", 20)
    monkeypatch.setattr(store_redis, "ENTRIES_PER_SCRIPT", 20)
    lengths: list[int] = []
    after = ""
    while True:
        after = await store.prune(Retention(0, 2), after)
        lengths.append(sum([len(await shown(store, user)) for user in (1, 2, 3, 4)]))
        if not after:
            break
    assert lengths[-1] == 8
    assert max(before - now for before, now in itertools.pairwise([606, *lengths])) == 20


async def test_a_key_of_another_kind_stops_nobody_elses_forgetting(server: RedisServer, redis: RedisSettings) -> None:
    async with redis_store(redis) as store:
        await send(store, 1, 2, 20)
        server.client().set(f"{redis.prefix}:logic:timeline:3", "a string")
        await pruned(store, Retention(0, 2))
        assert await shown(store, 1) == await shown(store, 2) == [19, 20]


async def test_nothing_is_left_of_a_forgotten_message_in_the_file(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "logic.sqlite") as store:
        await send(store, 1, 2, 100)
        await pruned(store, Retention(0, 1))
        for table in ("messages", "timelines"):
            [(count,)] = store._connection.execute(f"SELECT COUNT(*) FROM {table}")
            assert count == {"messages": 1, "timelines": 2}[table]


async def test_nothing_is_left_of_a_forgotten_message_in_redis(server: RedisServer, redis: RedisSettings) -> None:
    client = server.client()
    key = f"{redis.prefix}:logic:"
    async with redis_store(redis) as store:
        await send(store, 1, 2, 100)
        await store.write([Receipt(2, 3, "", AckStatus.DELIVERED)], 2)
        await pruned(store, Retention(0, 1))
        left = sorted(each.decode().removeprefix(key) for each in client.keys(f"{key}*"))
        assert left == [*("begins", "last", "message:100", "pruning", "sent:1", "timeline:1", "timeline:2", "version")]
        assert client.hgetall(f"{key}sent:1") == {b"m99": b"100"}
        await send(store, 1, 2, 100, first=100)
        assert await pruned(store, Retention(0, 1)) == 1  # another Logic's round has just been
        assert await shown(store, 2) == list(range(100, 201))


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "logic.sqlite"
    connect(path).close()
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("ALTER TABLE messages DROP COLUMN refs")
    for message, sender, to in ((1, 1, 2), (2, 3, 3), (3, 1, 2)):
        old.execute(
            "INSERT INTO messages (id, sender, msg_id, to_user, group_id, content, content_type, sent_at, stored_at,"
            " server_seq) VALUES (?, ?, ?, ?, 0, 'x', 0, 5, 5, ?)",
            (message, sender, f"m{message}", to, 1 if message < 3 else 2),
        )
    old.executemany(
        "INSERT INTO timelines VALUES (?, ?, ?, 0)", [(1, 1, 1), (2, 1, 1), (3, 1, 2), (1, 2, 3), (2, 2, 3)]
    )
    old.execute("PRAGMA user_version = 1")
    old.close()
    connection = connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("SELECT id, refs FROM messages ORDER BY id").fetchall() == [(1, 2), (2, 1), (3, 2)]
    assert pruning_sqlite.prune(connection, Retention(0, 1), "") == ""
    assert connection.execute("SELECT id FROM messages ORDER BY id").fetchall() == [(2,), (3,)]
    connection.close()


# -- when ----------------------------------------------------------------------------------------------------


class Counting:
    """A Store that only counts steps; it fails at some."""

    def __init__(self, steps: int, fails_at: tuple[int, ...] = (), *, takes: float = 0.0) -> None:
        self.asked: list[tuple[float, Retention, str]] = []
        self._steps = steps
        self._fails_at = fails_at
        self._takes = takes

    async def prune(self, retention: Retention, after: str) -> str:
        self.asked.append((trio.current_time(), retention, after))
        await trio.sleep(self._takes)
        if len(self.asked) in self._fails_at:
            raise StoreFailed("away")
        step = int(after or 0) + 1
        return str(step) if step < self._steps else ""

    async def write(self, writes: object, now_ms: int) -> list[Outcome]:
        raise NotImplementedError

    async def read(self, queries: object) -> list[Page]:
        raise NotImplementedError

    async def members(self, group_ids: object) -> dict[int, frozenset[int]]:
        raise NotImplementedError


async def run_for(seconds: float, store: Store, settings: LogicSettings, wall_ms: Callable[[], int]) -> None:
    with trio.move_on_after(seconds):
        await forget(store, settings, wall_ms)


async def test_rounds_follow_each_other_with_pauses(autojump_clock: trio.testing.MockClock) -> None:
    store = Counting(3, takes=0.5)
    began = trio.current_time()
    await run_for(1_000, store, LogicSettings(keep_days=2.0, keep_messages=7), lambda: 10 * DAY)
    times = [at - began for at, _, _ in store.asked]
    assert [after for _, _, after in store.asked] == ["", "1", "2"] * 2
    assert {each for _, each, _ in store.asked} == {Retention(8 * DAY, 7)}
    assert times[0] >= retention.FIRST
    assert times[1] - times[0] >= 5  # a tenth of the store's time
    assert times[3] - times[2] >= retention.ROUND


async def test_a_store_that_fails_is_left_alone_until_the_next_round(autojump_clock: trio.testing.MockClock) -> None:
    store = Counting(3, fails_at=(2,))
    await run_for(1_000, store, LogicSettings(keep_messages=7), lambda: 1)
    assert [(each.before_ms, after) for _, each, after in store.asked] == [
        (0, ""),
        (0, "1"),
        (0, ""),
        (0, "1"),
        (0, "2"),
    ]


async def test_logic_does_it(autojump_clock: trio.testing.MockClock) -> None:
    store, bus = Counting(3), MemoryBus()
    logic = LogicService(bus, MemoryLocationStore(), store, LogicSettings(keep_messages=7))
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        await nursery.start(logic.run)
        await trio.sleep(60)
        assert [after for _, _, after in store.asked] == ["", "1", "2"]
        nursery.cancel_scope.cancel()


async def test_by_default_nothing_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    store = Counting(3)
    await run_for(10_000, store, LogicSettings(), lambda: 1)
    assert not store.asked


@pytest.mark.parametrize(("name", "bad"), [("keep_days", "-1"), ("keep_messages", "-1"), ("keep_messages", "1.5")])
def test_settings_that_are_none_are_refused(name: str, bad: str) -> None:
    with pytest.raises(ConfigError, match=name.upper()):
        load(environment={f"GATEWAY_LOGIC__{name.upper()}": bad})


def test_settings_can_be_given() -> None:
    told = {"GATEWAY_LOGIC__KEEP_DAYS": "0.5", "GATEWAY_LOGIC__KEEP_MESSAGES": "100000"}
    logic = load(environment=told).config.logic
    assert (logic.keep_days, logic.keep_messages) == (0.5, 100_000)
