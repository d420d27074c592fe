"""RedisLocationStore keeps the contract on a real server, and what is particular to it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_locations import RedisLocationStore
from gateway.core.ports import Location, LocationStore, NodeRecord, StoreUnavailable
from tests.backends.redis_world import PATIENCE, announce, conn_ids, open_store, record, wait_until
from tests.contracts.locations import MULTI, PLATFORM, SINGLE, LocationContract, place
from tests.support.redis_server import RedisServer, redis_server

KEY = "im:user:conn:1001"
BIG = 2**62


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Any:
    """Sees an empty database with four living nodes."""
    client = server.client()
    client.flushall()
    announce(client, *(f"node-{i}" for i in range(4)))
    return client


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


@pytest.fixture
async def store(server: RedisServer, client: Any, thread: AsyncioThread) -> AsyncIterator[RedisLocationStore]:
    async with open_store(server, thread) as store:
        yield store


def fields(client: Any, key: str = KEY) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = client.hgetall(key)
    return values


def age(client: Any, seconds: float) -> None:
    """What is stored gets older by so much: the server's clock cannot be set, and nobody wants to wait."""
    keys: list[bytes] = client.keys("im:user:conn:*")
    for key in keys:
        left = int(client.pttl(key)) - int(seconds * 1000)
        if left <= 0:
            client.delete(key)
            continue
        client.pexpire(key, left)
        for field, value in fields(client, key.decode()).items():
            client.hset(key, field, re.sub(rb"(\d+)}$", lambda found: b"%d}" % (int(found[1]) - seconds), value))


class TestRedisLocationContract(LocationContract):
    lifetime = 120.0
    client: Any

    @pytest.fixture
    async def store(self, server: RedisServer, client: Any, thread: AsyncioThread) -> AsyncIterator[LocationStore]:
        type(self).client = client
        async with open_store(server, thread) as store:
            yield store

    async def elapse(self, seconds: float) -> None:
        age(self.client, seconds)


# -- what others read ----------------------------------------------------------------------------------------


async def test_keys_and_values_are_those_of_the_protocol(store: RedisLocationStore, client: Any) -> None:
    mine = place(BIG + 1)
    assert await store.claim(mine, MULTI) == []
    assert 110_000 < int(client.pttl(KEY)) <= 120_000
    (value,) = fields(client).values()
    told = json.loads(value)
    seconds: int = client.time()[0]
    assert seconds + 110 <= told.pop("expires_at") <= seconds + 120
    assert list(fields(client)) == [b"phone"]
    assert told == {
        "access_node": "node-1",
        "conn_id": BIG + 1,
        "device_id": "phone",
        "platform": "ios",
        "login_time": 1_700_000_000,
        "address": "192.0.2.7",
        "transport": "tcp",
        "region": "north",
        "boot_id": "boot-of-node-1",
    }
    assert await store.release(mine)
    assert not client.exists(KEY)


async def test_a_node_announces_itself_and_leaves(server: RedisServer, client: Any, thread: AsyncioThread) -> None:
    said = record("node-9", address="192.0.2.1:9000", connections=3, capacity=50, endpoints=("ws://a/ws",))
    async with open_store(server, thread, says=lambda: said):
        value: bytes = client.get("im:node:node-9")
        assert json.loads(value) == {
            "boot_id": "boot-of-node-9",
            "address": "192.0.2.1:9000",
            "region": "",
            "connections": 3,
            "capacity": 50,
            "state": "serving",
            "endpoints": ["ws://a/ws"],
        }
        assert 10_000 < int(client.pttl("im:node:node-9")) <= 15_000
    assert not client.exists("im:node:node-9")


async def test_a_leaving_node_takes_back_only_its_own_entry(
    server: RedisServer, client: Any, thread: AsyncioThread
) -> None:
    async with open_store(server, thread, "node-9"):
        client.set("im:node:node-9", json.dumps({"boot_id": "its-successor"}))
    assert client.exists("im:node:node-9")


async def test_a_draining_node_says_so(server: RedisServer, client: Any, thread: AsyncioThread) -> None:
    said: list[NodeRecord] = [record("node-9")]
    async with open_store(server, thread, says=lambda: said[-1]):
        said.append(record("node-9", state="draining"))
        await wait_until(lambda: b'"state":"draining"' in (client.get("im:node:node-9") or b""))


async def test_a_prefix_of_its_own(server: RedisServer, client: Any, thread: AsyncioThread) -> None:
    async with open_store(server, thread, "node-1", prefix="chat") as store:
        await store.claim(place(10), MULTI)
        assert await conn_ids(store) == [10]
    assert sorted(client.keys("chat:*")) == [b"chat:user:conn:1001"]


# -- what the scripts must not get wrong ---------------------------------------------------------------------


async def test_neighbouring_63_bit_numbers_are_told_apart(store: RedisLocationStore) -> None:
    """A Lua number would take them for the same."""
    assert await store.claim(place(BIG), MULTI) == []
    assert await store.claim(place(BIG - 1), MULTI) is None
    assert [each.conn_id for each in await store.claim(place(BIG + 1), MULTI) or []] == [BIG]
    assert [each.conn_id for each in await store.renew([place(BIG)])] == [BIG]
    assert not await store.release(place(BIG))
    assert await conn_ids(store) == [BIG + 1]


async def test_a_longer_number_is_the_newer_one(store: RedisLocationStore) -> None:
    assert await store.claim(place(9), MULTI) == []
    assert [each.conn_id for each in await store.claim(place(10), MULTI) or []] == [9]


async def test_claiming_again_changes_nothing(store: RedisLocationStore) -> None:
    for _ in range(2):
        assert await store.claim(place(10), SINGLE) == []
    assert await conn_ids(store) == [10]


async def test_200_racing_claims_through_two_nodes(server: RedisServer, client: Any, thread: AsyncioThread) -> None:
    """Threat 24: exactly one stays, and each of the others is told of exactly once."""
    for policy, device in [(MULTI, "phone"), (SINGLE, ""), (PLATFORM, "")]:
        client.delete(KEY)
        order = list(range(BIG, BIG + 200))
        random.Random(7).shuffle(order)
        told: list[int] = []
        async with open_store(server, thread) as first, open_store(server, thread) as second:

            async def race(conn_id: int, told: list[int] = told, policy: Any = policy, device: str = device) -> None:
                store, node = [(first, "node-1"), (second, "node-2")][conn_id % 2]
                gone = await store.claim(place(conn_id, device or f"device-{conn_id}", node=node), policy)
                told.extend([conn_id] if gone is None else [each.conn_id for each in gone])

            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for conn_id in order:
                        nursery.start_soon(race, conn_id)
            assert await conn_ids(first) == [BIG + 199]
            assert sorted(told) == list(range(BIG, BIG + 199))


async def test_the_expired_are_swept_in_time(store: RedisLocationStore, client: Any) -> None:
    """A user whose devices never come back costs no memory for ever, though the key lives on."""
    for i in range(1, 101):
        await store.claim(place(i, f"device-{i}"), MULTI)
    age(client, 121)
    assert not client.exists(KEY)
    for i in range(1, 101):
        await store.claim(place(i, f"device-{i}"), MULTI)
    age(client, 60)
    for i in range(101, 201):
        await store.claim(place(i, "phone"), MULTI)
    age(client, 70)
    for i in range(201, 301):
        await store.claim(place(i, "phone"), MULTI)
    assert await conn_ids(store) == [300]
    assert len(fields(client)) < 20


@pytest.mark.parametrize("policy", [MULTI, SINGLE])
async def test_what_nobody_of_ours_wrote_counts_for_nothing(
    store: RedisLocationStore, client: Any, policy: Any
) -> None:
    for device, value in [("phone", "not JSON"), ("tablet", "{}"), ("tv", '{"conn_id":1,"expires_at":9999999999}')]:
        client.hset(KEY, device, value)
    assert await store.lookup([1001]) == {}
    assert await store.claim(place(10), policy) == []
    assert await conn_ids(store) == [10]
    assert await store.release(place(10))


async def test_a_key_of_another_type_spoils_nothing_for_its_neighbours(store: RedisLocationStore, client: Any) -> None:
    client.set(KEY, "a string")
    results: dict[int, object] = {}

    async def log_in(user: int) -> None:
        try:
            results[user] = await store.claim(place(10, user=user), MULTI)
        except Exception as error:
            results[user] = type(error).__name__

    async with trio.open_nursery() as nursery:
        for user in (1000, 1001, 1002):
            nursery.start_soon(log_in, user)
    assert results == {1000: [], 1001: "StoreUnavailable", 1002: []}
    assert set(await store.lookup([1000, 1001, 1002])) == {1000, 1002}
    lost = await store.renew([place(10, user=user) for user in (1000, 1001, 1002)])
    assert [each.user_id for each in lost] == [1001]
    assert store.healthy


async def test_an_address_cannot_speak_for_the_entry(store: RedisLocationStore) -> None:
    """What comes from outside into a value is quoted there, and the scripts look for unquoted text."""
    evil = '","conn_id":1,"boot_id":"x","platform":"y","expires_at":1}' + "\udc80\0"
    mine = msgspec.structs.replace(place(10), address=evil, region="")
    assert await store.claim(mine, MULTI) == []
    (found,) = (await store.lookup([1001]))[1001]
    assert (found.conn_id, found.boot_id, found.platform) == (10, "boot-of-node-1", "ios")
    assert await store.renew([mine]) == []
    assert [each.conn_id for each in await store.claim(place(11), MULTI) or []] == [10]


async def test_a_user_with_many_devices(store: RedisLocationStore) -> None:
    for i in range(1, 301):
        assert await store.claim(place(i, f"device-{i}"), MULTI) == []
    gone = await store.claim(place(1_000, "phone"), SINGLE)
    assert gone is not None
    assert sorted(each.conn_id for each in gone) == list(range(1, 301))


async def test_more_than_one_batch(store: RedisLocationStore) -> None:
    places = [place(i, user=i) for i in range(1, 1_201)]
    async with trio.open_nursery() as nursery:
        for each in places:
            nursery.start_soon(store.claim, each, MULTI)
    assert await store.renew(places) == []
    assert len(await store.lookup(range(1, 1_301))) == 1_200
    assert store.statistics()["waiting"] == 0


# -- nodes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node just seen alive is asked for again, not believed for a second."""
    monkeypatch.setattr("gateway.backends.redis_locations.NODE_FRESH", 0.0)


def left_behind(node: str, conn_id: int = 10, device: str = "phone") -> Location:
    return place(conn_id, device, node=node)


@pytest.mark.parametrize("how", ["gone", "restarted"])
async def test_t41_locations_of_a_node_that_is_no_more_count_for_nothing(
    store: RedisLocationStore, client: Any, how: str, asked_each_time: None
) -> None:
    await store.claim(left_behind("node-2"), MULTI)
    await store.claim(place(11, "tablet"), MULTI)
    assert await conn_ids(store) == [10, 11]
    if how == "gone":
        client.delete("im:node:node-2")  # its time to live is over
    else:
        client.set("im:node:node-2", json.dumps({"boot_id": "a-new-start"}))
    assert await conn_ids(store) == [11]


async def test_t41_a_user_of_a_killed_node_is_reachable_once_reconnected(
    store: RedisLocationStore, client: Any, asked_each_time: None
) -> None:
    await store.claim(left_behind("node-2"), MULTI)
    client.delete("im:node:node-2")
    assert [each.conn_id for each in await store.claim(place(11), MULTI) or []] == [10]
    assert await conn_ids(store) == [11]


@pytest.mark.parametrize("policy", [MULTI, SINGLE, PLATFORM])
async def test_t41_what_a_dead_node_left_refuses_no_login(
    store: RedisLocationStore, client: Any, policy: Any, asked_each_time: None
) -> None:
    """Its clock was ahead, so its entry looks newer than whoever logs in now."""
    await store.claim(left_behind("node-2", 99), policy)
    assert await store.claim(place(11), policy) is None
    client.set("im:node:node-2", json.dumps({"boot_id": "a-new-start"}))
    assert await store.claim(place(11), policy) == []
    assert await conn_ids(store) == [11]


async def test_t41_one_living_rival_is_enough_to_refuse(store: RedisLocationStore, client: Any) -> None:
    await store.claim(left_behind("node-2", 99, "phone"), MULTI)
    await store.claim(left_behind("node-3", 98, "tablet"), MULTI)
    client.delete("im:node:node-2")
    assert await store.claim(place(11, "tv"), SINGLE) is None
    assert [each.conn_id for each in await store.renew([left_behind("node-2", 99, "phone")])] == []


async def test_t42_a_stale_owner_changes_nothing(store: RedisLocationStore) -> None:
    """A node was cut off, its user logged in elsewhere, the node is back."""
    stale, newest = place(10), place(11, node="node-2")
    await store.claim(stale, MULTI)
    await store.claim(newest, MULTI)
    assert [each.conn_id for each in await store.renew([stale])] == [10]
    assert await store.claim(stale, MULTI) is None
    assert not await store.release(stale)
    assert await conn_ids(store) == [11]


async def test_two_processes_with_one_node_id_are_reported(
    server: RedisServer, client: Any, thread: AsyncioThread, caplog: pytest.LogCaptureFixture
) -> None:
    state: list[NodeRecord] = [record("node-9")]
    async with open_store(server, thread, says=lambda: state[-1]):
        client.set("im:node:node-9", json.dumps({"boot_id": "somebody-else"}), px=15_000)
        state.append(record("node-9", state="draining"))
        await wait_until(lambda: any(each.message == "node_id_taken" for each in caplog.records))


# -- names (threat 27) ---------------------------------------------------------------------------------------

BAD_NAMES = ["", "a:b", "{a}", "a b", "a\r\nDEL x", "a\0", "é", "*", "a" * 65, "a" * 1_000_000]


@pytest.mark.parametrize("bad", BAD_NAMES, ids=range(len(BAD_NAMES)))
@pytest.mark.parametrize("field", ["device_id", "platform", "access_node", "boot_id"])
async def test_t27_names_that_are_none_are_refused_before_anything_is_sent(
    store: RedisLocationStore, client: Any, field: str, bad: str
) -> None:
    location = msgspec.structs.replace(place(10), **{field: bad})
    with pytest.raises(ValueError, match="must be 1 to 64 characters"):
        await store.claim(location, MULTI)
    assert not client.exists(KEY)


@pytest.mark.parametrize("bad", [0, -1, 2**63, "1001", "1:{x}", True, 1.0, None])
async def test_t27_user_ids_that_are_none_are_refused(store: RedisLocationStore, bad: Any) -> None:
    for refused in (
        lambda: store.lookup([bad]),
        lambda: store.claim(place(10, user=bad), MULTI),
        lambda: store.release(place(10, user=bad)),
        lambda: store.renew([place(10, user=bad)]),
    ):
        with pytest.raises(ValueError, match="user id must be"):
            await refused()


@pytest.mark.parametrize("bad", ["", "a:b", "{a}", "a*"])
async def test_t27_a_prefix_that_is_no_name_is_refused(server: RedisServer, thread: AsyncioThread, bad: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        async with open_store(server, thread, prefix=bad):
            pass


async def test_t27_only_cheap_commands_reach_the_server(
    server: RedisServer, client: Any, thread: AsyncioThread
) -> None:
    """Nothing that walks the whole database, and of scripts only the constant ones."""
    client.script_flush()
    client.config_resetstat()
    async with open_store(server, thread, "node-1") as store:
        await store.claim(place(10), MULTI)
        await store.claim(place(11), SINGLE)
        await store.claim(place(12), PLATFORM)
        await store.renew([place(12)])
        await conn_ids(store)
        await store.release(place(12))
    used = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    assert used <= {
        *("evalsha", "eval", "time", "set", "get", "del", "exists", "client|setname", "config|resetstat", "info"),
        *("hget", "hset", "hdel", "hvals", "hgetall", "hlen", "hrandfield", "pexpire", "hello", "auth"),
    }
    assert client.info("memory")["number_of_cached_scripts"] == 6


# -- callers -------------------------------------------------------------------------------------------------


async def test_t45_a_cancelled_claim_leaves_nothing_behind_after_its_release(store: RedisLocationStore) -> None:
    """The claim under way is over before its caller goes on, so that the release finds what it entered."""
    for i in range(1, 101):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.claim, place(i), MULTI)
            for _ in range(i % 10):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await store.release(place(i))
        assert await store.lookup([1001]) == {}
    assert store.statistics()["waiting"] == 0


async def test_a_store_that_does_not_run_says_so(server: RedisServer, thread: AsyncioThread) -> None:
    async with open_store(server, thread) as store:
        pass
    with pytest.raises(StoreUnavailable, match="not running"), trio.fail_after(PATIENCE):
        await store.claim(place(10), MULTI)
