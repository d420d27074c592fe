"""NatsBus and its stream: what it makes and finds on a server, and what becomes of words and items when things end."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.nats_bus import NatsBus
from gateway.backends.nats_stream import WINDOW
from gateway.backends.settings_nats import NatsSettings
from gateway.core.ports import BusUnusable, Confirmation, StreamItem
from tests.backends.nats import PATIENCE, balanced, durable, running_bus, settings, until
from tests.contracts.durable_bus import CONFIRMED, GROUP, REFUSED, Taker, Words
from tests.support.nats_server import NatsServer, nats_server

SUBJECT, STREAM = "im.logic.durable", "im-durable"
UNKNOWN = Confirmation.UNKNOWN


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path, jetstream=True) as server:
        yield server


async def keep(bus: NatsBus, *keys: str) -> list[Confirmation]:
    """What the stream says of these."""
    words = Words()
    for key in keys:
        assert bus.publish_durable(SUBJECT, key.encode(), key, words.of(key))
    return await words.wait(len(keys))


def stream(server: NatsServer) -> dict[str, Any]:
    """Configuration and state of ours, as the server tells them."""
    return server.api(f"STREAM.INFO.{STREAM}")


async def refusal(settings: NatsSettings) -> str:
    """Why a bus does not start. On a busy machine its first attempt may take too long to know."""
    why = ""
    with trio.fail_after(PATIENCE):
        while not why:
            try:
                async with AsyncioThread() as thread, trio.open_nursery() as nursery:
                    await nursery.start(NatsBus(settings, thread).run)
                    nursery.cancel_scope.cancel()
            except* BusUnusable as group:
                why = str(group.exceptions[0])
    return why


def summed_up(bus: NatsBus) -> bool:
    counts = bus.stream_statistics()
    assert counts is not None
    ends = counts.confirmed + counts.repeated + counts.refused + counts.unknown + counts.waiting
    return counts.offered == ends and balanced(bus.statistics())


async def test_what_is_made_is_what_the_page_says(server: NatsServer) -> None:
    """docs/cluster.md tells this to Logics in other languages."""
    async with running_bus(durable(server.url, max_messages=9, max_age=60.0, duplicate_window=30.0)) as bus:
        bus.consume(SUBJECT, Taker(), group=GROUP)
        await until(lambda: "config" in server.consumer(STREAM, GROUP))
        made, consumer = stream(server)["config"], server.consumer(STREAM, GROUP)["config"]
    expected = {
        "subjects": [SUBJECT], "retention": "workqueue", "discard": "new", "storage": "file", "max_msgs": 9,
        "max_bytes": 16_777_216, "max_age": 60 * 10**9, "duplicate_window": 30 * 10**9, "num_replicas": 1,
    }  # fmt: skip
    assert {name: made[name] for name in expected} == expected
    assert (consumer["ack_policy"], consumer["ack_wait"], consumer["durable_name"]) == ("explicit", 10**9, GROUP)
    assert "deliver_subject" not in consumer


async def test_bounds_that_somebody_chose_are_used_and_told(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_bus(durable(server.url, max_messages=1)):
        pass
    async with running_bus(durable(server.url, max_messages=99)) as bus:
        assert await keep(bus, "1.a", "1.b") == [CONFIRMED, REFUSED]
    (line,) = [record for record in caplog.records if record.getMessage() == "stream_differs"]
    assert getattr(line, "max_msgs", "") == "1, not 99"


@pytest.mark.parametrize(
    ("name", "value"), [("retention", "limits"), ("discard", "old"), ("subjects", ["im.logic.other"])]
)
async def test_a_stream_of_another_kind_is_refused(server: NatsServer, name: str, value: object) -> None:
    config = {"name": STREAM, "subjects": [SUBJECT], "retention": "workqueue", "discard": "new", "storage": "file"}
    server.api(f"STREAM.CREATE.{STREAM}", json.dumps(config | {name: value}).encode())
    assert re.match(rf"nats\.stream\.name: stream {STREAM} on .* has {name}", await refusal(durable(server.url)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"replicas": 3}, "replicas > 1 not supported"), ({"max_bytes": 2**50}, "insufficient storage")],
)
async def test_what_the_server_cannot_make_is_told(server: NatsServer, changes: dict[str, Any], words: str) -> None:
    why = await refusal(durable(server.url, **changes))
    assert words in why
    assert len(why.splitlines()) == 1


async def test_a_server_without_jetstream_ends_the_start_and_later_only_readiness(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path) as server:
        assert "needs JetStream" in await refusal(durable(server.url))
        await server.kill()
        async with running_bus(durable(server.url, confirm_timeout=0.5), connected=False) as bus:  # not there at all
            await server.start()
            await until(lambda: "bus_stream_unusable" in [record.getMessage() for record in caplog.records])
            assert not bus.healthy
            assert await keep(bus, "1.a") == [REFUSED]


async def test_a_stream_that_somebody_removed_is_made_again(server: NatsServer) -> None:
    async with running_bus(durable(server.url)) as bus:
        taker = Taker()
        bus.consume(SUBJECT, taker, group=GROUP)
        assert await keep(bus, "1.a") == [CONFIRMED]
        await taker.wait(1)
        server.api(f"STREAM.DELETE.{STREAM}")
        assert await keep(bus, "1.b") == [REFUSED]
        with trio.fail_after(PATIENCE):
            while await keep(bus, "1.c") == [REFUSED]:
                await trio.sleep(0.05)
        assert await taker.wait(2) == [b"1.a", b"1.c"]
        assert bus.statistics().connections == 1
        assert summed_up(bus)


async def test_t36_words_that_a_kill_swallowed_are_asked_for_again(server: NatsServer) -> None:
    """Written, kept, and killed before the answer: the next connection learns it, and nothing is kept twice."""
    async with running_bus(durable(server.url, confirm_timeout=PATIENCE)) as bus:
        words, taker = Words(), Taker()
        keys = [f"1.m{number}" for number in range(2_000)]
        for key in keys:
            assert bus.publish_durable(SUBJECT, key.encode(), key, words.of(key))
        await words.wait(1)
        await server.kill()
        await server.start()
        assert set(await words.wait(2_000)) == {CONFIRMED}  # what was only repeated by us counts as the same
        assert len(words.told) == 2_000
        bus.consume(SUBJECT, taker, group=GROUP)
        assert await taker.wait(2_000) == [key.encode() for key in keys]
        assert summed_up(bus)


async def test_what_is_given_up_unwritten_is_never_written(server: NatsServer) -> None:
    async with running_bus(durable(server.url, confirm_timeout=0.3)) as bus:
        await server.kill()
        await until(lambda: not bus.healthy)
        assert await keep(bus, "1.a") == [REFUSED]
        await server.start()
        with trio.fail_after(PATIENCE):
            await bus.wait_healthy()
        assert await keep(bus, "1.b") == [CONFIRMED]
        assert stream(server)["state"]["messages"] == 1
        assert summed_up(bus)


async def test_t36_the_bound_on_what_waits_holds(server: NatsServer) -> None:
    async with running_bus(durable(server.url, confirm_timeout=1.0), max_messages=50) as bus:
        await server.pause()
        words = Words()
        taken = [bus.publish_durable(SUBJECT, b"x", f"1.m{number}", words.of(str(number))) for number in range(60)]
        assert taken == [True] * 50 + [False] * 10
        assert set(await words.wait(50)) == {UNKNOWN}
        counts = bus.stream_statistics()
        assert counts is not None
        assert (counts.waiting, counts.waiting_bytes, counts.turned_away) == (0, 0, 10)
        server.resume()
        assert bus.publish_durable(SUBJECT, b"x", "1.last", words.of("last"))
        await words.wait(51)
        assert summed_up(bus)


async def test_every_word_is_said_when_the_bus_ends(server: NatsServer) -> None:
    words = Words()
    async with AsyncioThread() as thread:
        bus = NatsBus(durable(server.url), thread)
        assert not bus.publish_durable(SUBJECT, b"x", "1.early", words.of("early"))
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            await server.pause()
            assert bus.publish_durable(SUBJECT, b"x", "1.a", words.of("a"))
            nursery.cancel_scope.cancel()
        assert [key for key, _ in words.told] == ["a"]
        assert words.told[0][1] in (UNKNOWN, REFUSED)
        assert summed_up(bus)
        server.resume()
        async with trio.open_nursery() as nursery:
            await nursery.start(bus.run)
            assert await keep(bus, "1.b") == [CONFIRMED]
            nursery.cancel_scope.cancel()


async def test_what_is_being_worked_on_stays_here(server: NatsServer) -> None:
    async with running_bus(durable(server.url, ack_wait=0.6)) as bus:
        assert await keep(bus, "1.a") == [CONFIRMED]
        slow, idle = Taker(settle=False), Taker()
        bus.consume(SUBJECT, slow, group=GROUP)
        await slow.wait(1)
        bus.consume(SUBJECT, idle, group=GROUP)
        await trio.sleep(2)  # three times what a dead one would get
        assert (len(slow.items), idle.items) == (1, [])
        slow.items[0].settle()
        await until(lambda: server.consumer(STREAM, GROUP)["num_ack_pending"] == 0)
        assert server.consumer(STREAM, GROUP)["num_redelivered"] == 0


async def test_what_a_lost_process_held_comes_to_another(server: NatsServer) -> None:
    async with running_bus(durable(server.url, ack_wait=0.6)) as other:
        async with running_bus(durable(server.url, ack_wait=0.6)) as bus:
            assert await keep(bus, "1.a", "1.b") == [CONFIRMED] * 2
            dead = Taker(settle=False)
            bus.consume(SUBJECT, dead, group=GROUP)
            await dead.wait(2)
        dead.items[0].settle()  # too late: its bus has ended
        heir = Taker()
        other.consume(SUBJECT, heir, group=GROUP)
        assert sorted(await heir.wait(2)) == [b"1.a", b"1.b"]
        assert {item.attempt for item in heir.items} == {2}


async def test_settling_survives_a_restart(server: NatsServer) -> None:
    async with running_bus(durable(server.url, ack_wait=60.0)) as bus:
        assert await keep(bus, "1.a") == [CONFIRMED]
        taker = Taker(settle=False)
        bus.consume(SUBJECT, taker, group=GROUP)
        await taker.wait(1)
        await server.kill()
        await until(lambda: not bus.healthy)
        taker.items[0].settle()
        await server.start()
        await until(lambda: bus.healthy and stream(server)["state"]["messages"] == 0)
        assert len(taker.items) == 1


async def test_poison_is_dropped_counted_and_told(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    healthy = Taker()

    def handler(item: StreamItem) -> None:
        if item.payload == b"1.poison":
            seen.append(item.attempt)
            item.put_back()
        else:
            healthy(item)

    async with running_bus(durable(server.url, max_deliveries=3)) as bus:
        assert await keep(bus, "1.poison", "1.a") == [CONFIRMED] * 2
        bus.consume(SUBJECT, handler, group=GROUP)
        await healthy.wait(1)
        await until(lambda: bus.dropped_items == 1)
        assert seen == [1, 2, 3]
        await until(lambda: stream(server)["state"]["messages"] == 0)
    (line,) = [record for record in caplog.records if record.getMessage() == "stream_poisoned"]
    assert getattr(line, "attempts", 0) == 3


async def test_t28_a_payload_that_the_server_would_not_take_is_refused_here(tmp_path: Path) -> None:
    async with nats_server(tmp_path, "max_payload: 4000", jetstream=True) as server:
        async with running_bus(durable(server.url)) as bus:
            with pytest.raises(ValueError, match="5000 bytes; at most 39"):
                bus.publish_durable(SUBJECT, bytes(5_000), "1.a", Words().of("a"))
            words = Words()
            assert bus.publish_durable(SUBJECT, bytes(4_000 - 64 - 3), "1.b", words.of("b"))
            assert await words.wait(1) == [CONFIRMED]
            assert bus.statistics().connections == 1
        await server.kill()
        async with running_bus(durable(server.url), connected=False) as bus:  # taken before the limit is known
            words = Words()
            for key, size in (("1.c", 10), ("1.d", 5_000), ("1.e", 10)):
                assert bus.publish_durable(SUBJECT, bytes(size), key, words.of(key))
            await server.start()
            await words.wait(3)
            assert dict(words.told) == {"1.c": CONFIRMED, "1.d": REFUSED, "1.e": CONFIRMED}
            assert bus.statistics().connections == 1


async def test_gateways_with_other_prefixes_have_streams_of_their_own(server: NatsServer) -> None:
    red, blue = f"red-{uuid.uuid4().hex}", f"blue-{uuid.uuid4().hex}"
    async with (
        running_bus(durable(server.url, prefix=red)) as first,
        running_bus(durable(server.url, prefix=blue)) as second,
    ):
        taker, words = Taker(), Words()
        second.consume(f"{blue}.logic.durable", taker, group=GROUP)
        assert first.publish_durable(f"{red}.logic.durable", b"red", "1.a", words.of("a"))
        assert second.publish_durable(f"{blue}.logic.durable", b"blue", "1.a", words.of("a"))
        assert await words.wait(2) == [CONFIRMED] * 2
        assert await taker.wait(1) == [b"blue"]
        with pytest.raises(ValueError, match="no stream"):
            first.publish_durable(f"{blue}.logic.durable", b"", "1.b", words.of("b"))


async def test_a_core_uplink_keeps_no_stream(server: NatsServer) -> None:
    async with running_bus(settings(server.url)) as bus:
        with pytest.raises(ValueError, match="no stream"):
            bus.publish_durable(SUBJECT, b"", "1.a", Words().of("a"))
        with pytest.raises(ValueError, match="no stream"):
            bus.consume(SUBJECT, Taker(), group=GROUP)
        assert bus.stream_statistics() is None
    assert stream(server)["error"]["err_code"] == 10_059


NODE_MAY = """publish: ["im.logic.>", "im.user.>", "im.access.>", "$JS.API.STREAM.INFO.im-durable",
    "$JS.API.STREAM.CREATE.im-durable"], subscribe: ["im.access.>", "im.user.>", "_INBOX.>"]"""
LOGIC_MAY = """publish: ["im.logic.>", "im.user.>", "im.access.>", "$JS.API.STREAM.INFO.im-durable",
    "$JS.API.STREAM.CREATE.im-durable", "$JS.API.CONSUMER.*.im-durable.logic-group",
    "$JS.API.CONSUMER.MSG.NEXT.im-durable.logic-group", "$JS.ACK.im-durable.logic-group.>"],
    subscribe: ["im.access.>", "im.user.>", "im.logic.>", "_INBOX.>"]"""


async def test_the_permissions_on_the_page_suffice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """docs/cluster.md says what a node and a Logic need."""
    users = f"{{ user: node, password: x, permissions: {{ {NODE_MAY} }} }}, " + (
        f"{{ user: logic, password: x, permissions: {{ {LOGIC_MAY} }} }}"
    )
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    assert all(f"`{word}`" in page for word in (NODE_MAY + LOGIC_MAY).split('"')[1::2])

    def as_user(name: str, server: NatsServer) -> NatsSettings:
        return msgspec.structs.replace(durable(server.url), user=name, password="x")

    async with (
        nats_server(tmp_path, f"authorization {{ users: [ {users} ] }}", jetstream=True) as server,
        running_bus(as_user("node", server)) as node,
        running_bus(as_user("logic", server)) as logic,
    ):
        assert await keep(node, "1.a", "1.b") == [CONFIRMED] * 2
        seen: list[int] = []
        taker = Taker()

        def handler(item: StreamItem) -> None:
            seen.append(item.attempt)
            if item.attempt == 1:
                item.put_back()
            else:
                taker(item)

        logic.consume(SUBJECT, handler, group=GROUP)
        assert sorted(await taker.wait(2)) == [b"1.a", b"1.b"]
        with trio.fail_after(PATIENCE):
            await logic.drain()
    assert not [record for record in caplog.records if record.getMessage() == "bus_not_permitted"]


async def test_only_so_many_are_on_their_way_at_once(server: NatsServer) -> None:
    """A server queues what it has not kept yet; we wait with the rest."""
    async with running_bus(durable(server.url)) as bus:
        await server.pause()
        words = Words()
        for number in range(WINDOW + 500):
            assert bus.publish_durable(SUBJECT, b"x", f"1.m{number}", words.of(str(number)))
        assert bus._stream is not None
        waiting = bus._stream.waiting
        await until(lambda: len(waiting) <= 500)
        await trio.sleep(0.1)
        assert len(waiting) == 500
        server.resume()
        assert set(await words.wait(WINDOW + 500)) == {CONFIRMED}


async def test_the_bound_on_bytes_holds(server: NatsServer) -> None:
    async with running_bus(durable(server.url), max_bytes=10_000) as bus:
        words = Words()
        taken = [bus.publish_durable(SUBJECT, bytes(3_000), f"1.m{number}", words.of("")) for number in range(5)]
        assert taken == [True] * 3 + [False] * 2
        assert await words.wait(3) == [CONFIRMED] * 3
        assert await keep(bus, "1.again") == [CONFIRMED]
