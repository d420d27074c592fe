"""Several Logics on one Redis: one numbering, each message once, and whoever is left goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
import trio
import trio.lowlevel
from redis.exceptions import BusyLoadingError

from gateway.backends.settings_redis import RedisSettings
from gateway.logic import store_redis
from gateway.logic.groups import MAX_MEMBERS, GroupError
from gateway.logic.service import LogicService
from gateway.logic.store import History, Outcome, Post, Posted, Receipt, StoreFailed, Told, Write
from gateway.logic.store_redis import RedisStore
from gateway.protocol.types import AckStatus
from tests.logic.redis_world import redis_groups, redis_store
from tests.logic.world import open_world
from tests.support.redis_server import RedisServer, redis_server

PAGE = 10_000_000


def post(sender: int, msg_id: str, to: int = 0, *, group: int = 0, content: str = "x") -> Post:
    return Post(sender, msg_id, to, group, content, 0, 5)


def start_again(server: RedisServer) -> None:
    """On what it kept; until that is read it answers with an error."""
    server.start()
    client = server.client()
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
            return
        except BusyLoadingError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


async def numbers(store: RedisStore, user: int) -> list[tuple[int, int, str]]:
    """(server_seq, sender, msg_id) of a whole timeline."""
    [page] = await store.read([History(user, 0, 10_000, PAGE)])
    assert not page.has_more
    return [(each.server_seq, each.sender, each.msg_id) for each in page.entries]


async def test_four_that_write_at_once_leave_no_hole_and_no_double(redis: RedisSettings) -> None:
    users, rounds = range(1, 6), 30
    told: dict[tuple[int, str], set[int]] = {}

    async def write(store: RedisStore) -> None:
        """All write the same messages, in the same order."""
        for round_ in range(rounds):
            some = [post(user, f"m{round_}", user % 5 + 1) for user in users]
            for each, outcome in zip(some, await store.write(some, 1), strict=True):
                assert isinstance(outcome, Posted)
                told.setdefault((each.sender, each.msg_id), set()).add(outcome.server_seq)

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(redis_store(redis)) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for store in stores:
                nursery.start_soon(write, store)
        for user in users:
            timeline = await numbers(stores[0], user)
            assert [seq for seq, _, _ in timeline] == list(range(1, 2 * rounds + 1))
            assert len({each[1:] for each in timeline}) == len(timeline)
            for seq, sender, msg_id in timeline:
                assert sender != user or told[sender, msg_id] == {seq}


async def test_two_services_in_one_queue_group(redis: RedisSettings) -> None:
    """Every message is sent twice, so that now and then each of the two gets one."""
    async with redis_store(redis) as first, redis_store(redis) as second, open_world(first) as world:
        other = LogicService(world.bus, world.locations, second, subjects=world.subjects)
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            devices = [world.device(user) for user in range(1, 6)]
            for i in range(40):
                for device in devices:
                    for _ in range(2):
                        device.chat(f"m{i}", device.user % 5 + 1)
            await world.settle()
            with trio.fail_after(20):
                await other.drain()
            await world.settle()
            nursery.cancel_scope.cancel()
        for device in devices:
            seqs: dict[str, set[int]] = {}
            for ack in device.acks:
                assert ack.status == AckStatus.STORED
                seqs.setdefault(ack.msg_id, set()).add(ack.server_seq)
            assert len(device.acks) == 80
            assert all(len(each) == 1 for each in seqs.values())
            assert [seq for seq, _, _ in await numbers(first, device.user)] == list(range(1, 81))
        one, two = world.service.statistics(), other.statistics()
        assert one.stored + two.stored == one.repeated + two.repeated == 200
        assert min(one.stored + one.repeated, two.stored + two.repeated) > 0


class Killed:
    """A store whose Logic dies when it has stored and has told nobody."""

    def __init__(self, inner: RedisStore) -> None:
        self.inner = inner
        self.stored = trio.Event()

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        await self.inner.write(writes, now_ms)
        self.stored.set()
        await trio.sleep_forever()
        raise AssertionError

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


async def test_killed_between_storing_and_answering_the_other_answers_the_same(redis: RedisSettings) -> None:
    async with redis_store(redis) as first, redis_store(redis) as second:
        await first.write([post(9, f"x{i}", 1) for i in range(6)], 1)
        killed = Killed(first)
        async with open_world(killed) as world:  # type: ignore[arg-type]
            lost = world.device(1)
            lost.chat("m", 2)
            with trio.fail_after(20):
                await killed.stored.wait()
            assert lost.received == []
        async with open_world(second) as world:
            alice, bob = await world.device(1).online(), world.device(2)
            alice.chat("m", 2)
            alice.chat("n", 2)
            await world.settle()
            assert [(ack.msg_id, ack.status, ack.server_seq) for ack in alice.acks] == [
                ("m", AckStatus.STORED, 7),
                ("n", AckStatus.STORED, 8),
            ]
            assert [(chat.msg_id, chat.server_seq) for chat in await bob.history()] == [("m", 1), ("n", 2)]


async def test_what_was_confirmed_survives_kill_9_of_the_server(server: RedisServer, redis: RedisSettings) -> None:
    async with redis_store(redis) as store:
        confirmed: list[str] = []

        async def write() -> None:
            for i in range(100_000):
                try:
                    await store.write([post(1, f"m{i}", 2)], 1)
                except StoreFailed:
                    return
                confirmed.append(f"m{i}")
                if i == 30:
                    enough.set()

        enough = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with trio.fail_after(20):
                await enough.wait()
            server.kill()
        start_again(server)
        stored = [msg_id for _, _, msg_id in await numbers(store, 2)]
        assert stored[: len(confirmed)] == confirmed
        assert len(stored) <= len(confirmed) + 1
        [again, new] = await store.write([post(1, "m3", 2), post(1, "new", 2)], 1)
        assert again == Posted(4, 1, repeated=True)
        assert new == Posted(len(stored) + 1, 1, [(2, len(stored) + 1)])


async def test_away_it_fails_in_time_and_nothing_happens_later(server: RedisServer, redis: RedisSettings) -> None:
    async with redis_store(redis, patience=0.5) as store, redis_store(redis) as patient:
        await patient.write([post(1, "before", 2)], 1)
        await patient.read([History(1, 0, 1, 1)])
        server.pause()
        try:
            with trio.fail_after(20):
                for _ in range(2):
                    with pytest.raises(StoreFailed):
                        await store.write([post(1, "during", 2)], 1)
                with pytest.raises(StoreFailed):
                    await store.read([History(1, 0, 1, 1)])
                with pytest.raises(StoreFailed):
                    await store.members([7])
        finally:
            server.resume()
        assert [msg_id for _, _, msg_id in await numbers(patient, 2)] == ["before"]
        assert await patient.write([post(1, "after", 2)], 1) == [Posted(2, 1, [(2, 2)])]
        server.kill()
        try:
            with pytest.raises(StoreFailed, match="cannot be asked"):
                await store.write([post(1, "gone", 2)], 1)
        finally:
            start_again(server)
        assert [msg_id for _, _, msg_id in await numbers(patient, 2)] == ["before", "after"]


async def test_a_batch_that_cannot_be_done_leaves_nothing_of_itself(server: RedisServer, redis: RedisSettings) -> None:
    client = server.client()
    async with redis_store(redis) as store:
        client.set(f"{redis.prefix}:logic:timeline:3", "not a list")
        with pytest.raises(StoreFailed, match="WRONGTYPE"):
            await store.write([post(1, "a", 2), post(1, "b", 3)], 1)
        assert await numbers(store, 2) == []
        client.delete(f"{redis.prefix}:logic:timeline:3")
        assert await store.write([post(1, "a", 2)], 1) == [Posted(1, 1, [(2, 1)])]
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreFailed, match="OutOfMemory"):
                await store.write([post(1, "c", 2), post(1, "d", 2)], 1)
        finally:
            client.config_set("maxmemory", 0)
        assert len(await numbers(store, 2)) == 1


async def test_what_is_stored_can_be_read_by_people(server: RedisServer, redis: RedisSettings) -> None:
    client = server.client()
    key = f"{redis.prefix}:logic:"
    async with redis_store(redis) as store:
        top = 2**63 - 1
        await store.write([post(1, "a", top, content='say "é"\n\0')], 77)
        await store.write([Receipt(top, 1, "a", AckStatus.READ)], 78)
        assert json.loads(bytes(client.get(f"{key}message:1"))) == {
            "status": 3, "sender": 1, "msg_id": "a", "server_seq": 1, "stored_at": 77, "refs": 2, "to_user": top,
            "group_id": 0, "content_type": 0, "sent_at": 5, "content": 'say "é"\n\0',
        }  # fmt: skip
        assert client.lrange(f"{key}timeline:{top}", 0, -1) == [b"1:3"]
        assert client.lrange(f"{key}timeline:1", 0, -1) == [b"1"]
        assert client.hgetall(f"{key}sent:1") == {b"a": b"1"}
        assert client.zrange(f"{key}owed:1", 0, -1) == [b"1"]
        await store.write([Told(1, AckStatus.READ)], 79)
        assert client.exists(f"{key}owed:1") == 0
        assert client.get(f"{key}version") == b"2"
        client.set(f"{key}version", 99)
    async with redis_store(redis) as store:
        with pytest.raises(StoreFailed, match="newer version"):
            await store.read([History(1, 0, 1, 1)])


async def test_large_batches_are_done_in_parts(redis: RedisSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_redis, "COST_PER_SCRIPT", 60)
    async with redis_groups(redis) as groups, redis_store(redis) as store:
        await groups.create(7, range(1, 11))
        await groups.create(8, range(1, 101))
        writes: list[Write] = [post(1, f"m{i}", group=8 if i % 5 == 4 else 7) for i in range(20)]
        calls, seqs = 0, []
        while writes:
            outcomes = await store.write(writes, 1)
            seqs += [each.server_seq for each in outcomes if isinstance(each, Posted)]
            writes, calls = writes[len(outcomes) :], calls + 1
        assert seqs == list(range(1, 21))
        assert calls > 5
        assert [msg_id for _, _, msg_id in await numbers(store, 10)] == [f"m{i}" for i in range(20)]
        assert [msg_id for _, _, msg_id in await numbers(store, 11)] == ["m4", "m9", "m14", "m19"]
        large = [post(1, f"large{i}", 2, content="x" * 300_000) for i in range(5)]
        assert len(await store.write(large, 1)) == 3


async def test_groups(redis: RedisSettings) -> None:
    async with redis_groups(redis) as groups, redis_store(redis) as store:
        assert (await groups.create(7, [3, 1, 3], name="Team Süd")).members == (1, 3)
        assert (await groups.add(7, [2, 3])).members == (1, 2, 3)
        assert (await groups.remove(7, [1, 99])).members == (2, 3)
        assert (await groups.find(7)).name == "Team Süd"
        await groups.create(5, [2])
        assert [each.group_id for each in await groups.list()] == [5, 7]
        assert [each.group_id for each in await groups.list(of_user=3)] == [7]
        assert await store.members([7, 5, 9]) == {7: {2, 3}, 5: {2}}
        with pytest.raises(GroupError, match="exists already"):
            await groups.create(7)
        with pytest.raises(GroupError, match="at most"):
            await groups.add(7, range(1, MAX_MEMBERS + 2))
        assert (await groups.find(7)).members == (2, 3)
        await groups.delete(7)
        with pytest.raises(GroupError, match="there is no group 7"):
            await groups.add(7, [1])
        assert (await groups.create(7)).members == ()


async def test_a_server_that_does_not_keep_what_it_confirms_is_told_of_once(
    redis: RedisSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_store(redis) as store:
        await numbers(store, 1)
    assert [each for each in caplog.records if each.message == "store_not_durable"] == []
    with redis_server("--maxmemory-policy", "allkeys-lru") as careless:
        async with redis_store(RedisSettings(port=careless.port)) as store:
            await numbers(store, 1)
            careless.restart()
            await numbers(store, 1)
    told = {vars(each)["setting"]: vars(each)["found"] for each in caplog.records}
    assert told == {"appendonly": "no", "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}
    assert len(caplog.records) == 3


async def test_cancelled_while_it_writes_it_waits_for_the_end(redis: RedisSettings) -> None:
    async with redis_store(redis) as store:
        done = 0
        for i in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def write(i: int = i) -> None:
                        nonlocal done
                        await store.write([post(1, f"m{i}", 2)], 1)
                        done += 1

                    nursery.start_soon(write)
                    for _ in range(i):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            stored = len(await numbers(store, 2))
            assert stored == done or (i == 0 and stored == 0)
