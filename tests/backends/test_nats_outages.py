"""NatsBus while its server is stopped, stalled, killed, restarted, moved or angry (threats 28 and 36)."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadClosed
from gateway.backends.nats_bus import NatsBus
from tests.backends.nats import PATIENCE, balanced, in_order, running_bus, settings, until
from tests.contracts.bus import Inbox
from tests.support.nats_server import NatsServer, nats_server

SUBJECT = "im.logic.upstream"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_t36_away_and_back_keeps_what_was_published_and_who_listens(
    server: NatsServer, end: Literal["kill", "stop"]
) -> None:
    inbox, starred = Inbox(), Inbox()
    async with running_bus(settings(server.url)) as bus:
        bus.subscribe(SUBJECT, inbox, queue="logic-group")
        bus.subscribe("im.user.*.event", starred)
        assert bus.publish(SUBJECT, b"0")
        await inbox.wait(1)
        await (server.kill() if end == "kill" else server.stop())
        await until(lambda: not bus.healthy)
        for i in range(1, 500):
            assert bus.publish(SUBJECT, b"%d" % i)
        during = Inbox()
        bus.subscribe("im.access.*.downstream", during)
        await server.start()
        with trio.fail_after(PATIENCE):
            await bus.wait_healthy()
            assert bus.publish("im.user.7.event", b"yes")
            assert bus.publish("im.access.node-1.downstream", b"yes")
            await bus.drain()
        await inbox.wait(500)
        assert in_order(inbox.payloads, 500)
        assert await starred.wait(1) == await during.wait(1) == [b"yes"]
        assert balanced(bus.statistics())
        assert bus.statistics().connections == 2


async def test_t36_a_stalled_server_is_noticed_and_the_bound_holds(server: NatsServer) -> None:
    inbox = Inbox()
    async with running_bus(settings(server.url), max_bytes=4_000_000) as bus:
        bus.subscribe(SUBJECT, inbox)
        with trio.fail_after(PATIENCE):
            await bus.drain()
        await server.pause()
        accepted = 0
        while bus.publish(SUBJECT, b"%d" % accepted + b" " * 50_000):
            accepted += 1
        assert 70 < accepted <= 80
        assert not bus.publish(SUBJECT, bytes(50_000))
        assert bus.statistics().held_bytes <= 4_000_000
        await until(lambda: not bus.healthy)
        assert not bus.publish(SUBJECT, bytes(50_000))
        server.resume()
        with trio.fail_after(PATIENCE):
            await bus.wait_healthy()
            assert bus.publish(SUBJECT, b"%d" % accepted)
            await bus.drain()
            while b"%d" % accepted not in inbox.payloads:
                await inbox.wait(len(inbox.payloads) + 1)
        assert in_order([payload.rstrip() for payload in inbox.payloads], accepted + 1)
        assert balanced(bus.statistics())


async def test_t36_a_short_stall_costs_nothing(server: NatsServer) -> None:
    inbox = Inbox()
    async with running_bus(settings(server.url, ping_timeout=PATIENCE)) as bus:
        bus.subscribe(SUBJECT, inbox)
        await server.pause()
        for i in range(2_000):
            assert bus.publish(SUBJECT, b"%d" % i)
        await trio.sleep(0.3)
        assert bus.statistics().confirmed == 0
        server.resume()
        assert await inbox.wait(2_000) == [b"%d" % i for i in range(2_000)]
        assert bus.statistics().connections == 1


async def test_started_before_its_server(server: NatsServer) -> None:
    await server.kill()
    inbox = Inbox()
    async with running_bus(settings(server.url), connected=False) as bus:
        assert not bus.healthy
        bus.subscribe(SUBJECT, inbox)
        assert bus.publish(SUBJECT, b"early")
        await server.start()
        assert await inbox.wait(1) == [b"early"]
        await until(lambda: bus.healthy)


async def test_the_next_server_takes_over(server: NatsServer, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    inbox = Inbox()
    async with nats_server(folder) as second, running_bus(settings(server.url, second.url)) as bus:
        bus.subscribe(SUBJECT, inbox)
        for i, ended in enumerate((server, second)):
            await ended.kill()
            assert bus.publish(SUBJECT, b"%d" % i)
            await inbox.wait(i + 1)
            await until(lambda: bus.healthy)
            await ended.start()
        assert in_order(inbox.payloads, 2)


async def test_churn_while_away_leaves_only_what_is_open(server: NatsServer) -> None:
    async with running_bus(settings(server.url)) as bus:
        kept, gone = Inbox(), Inbox()
        before = bus.subscribe("im.user.1.event", gone)
        await server.kill()
        await until(lambda: not bus.healthy)
        before.close()
        for i in range(200):
            bus.subscribe(f"im.user.{i}.event", gone).close()
        bus.subscribe("im.user.1.event", kept)
        await server.start()
        with trio.fail_after(PATIENCE):
            await bus.wait_healthy()
        assert bus.publish("im.user.1.event", b"one")
        assert await kept.wait(1) == [b"one"]
        assert gone.items == []
        assert bus.statistics().subscriptions == 1
        assert bus.statistics().received == 1


async def test_t28_the_servers_own_limit_is_kept_by_us(tmp_path: Path) -> None:
    async with nats_server(tmp_path, "max_payload: 1000") as server:
        inbox = Inbox()
        async with running_bus(settings(server.url)) as bus:
            bus.subscribe(SUBJECT, inbox)
            with pytest.raises(ValueError, match="1001 bytes; at most 1000"):
                bus.publish(SUBJECT, bytes(1001))
            assert bus.publish(SUBJECT, bytes(1000))
            await inbox.wait(1)
            assert bus.statistics().connections == 1


async def test_t28_what_was_taken_before_the_limit_was_known_is_dropped_alone(tmp_path: Path) -> None:
    async with nats_server(tmp_path, "max_payload: 1000") as server:
        inbox = Inbox()
        async with running_bus(settings(server.url), connected=False) as bus:
            bus.subscribe(SUBJECT, inbox)
            for payload in (b"before", bytes(5_000), b"after"):
                assert bus.publish(SUBJECT, payload)
            assert await inbox.wait(2) == [b"before", b"after"]
            with trio.fail_after(PATIENCE):
                await bus.drain()
            counts = bus.statistics()
            assert (counts.confirmed, counts.dropped, counts.connections) == (2, 1, 1)
            assert balanced(counts)


async def test_t28_no_control_line_of_ours_is_too_long(server: NatsServer) -> None:
    async with running_bus(settings(server.url)) as bus:
        longest = ".".join(["n" * 63] * 16)
        inbox = Inbox()
        bus.subscribe(longest, inbox, queue=longest)
        assert bus.publish(longest, b"x")
        await inbox.wait(1)
        with pytest.raises(ValueError, match="subject"):
            bus.publish(longest + ".nn", b"")
        with pytest.raises(ValueError, match="subject"):
            bus.subscribe(longest + ".nn", inbox)
        with pytest.raises(ValueError, match="queue"):
            bus.subscribe(SUBJECT, inbox, queue=longest + ".nn")
        assert bus.statistics().connections == 1


async def test_t28_what_makes_the_server_close_is_not_written_again(tmp_path: Path) -> None:
    async with nats_server(tmp_path, "max_control_line: 200") as server:
        inbox = Inbox()
        async with running_bus(settings(server.url)) as bus:
            bus.subscribe(SUBJECT, inbox)
            assert bus.publish(".".join(["n" * 60] * 4), b"poison")
            await until(lambda: bus.statistics().connections == 2)
            assert bus.publish(SUBJECT, b"fine")
            await inbox.wait(1)
            with trio.fail_after(PATIENCE):
                await bus.drain()
            counts = bus.statistics()
            assert (counts.dropped, counts.held_messages, counts.connections) == (1, 0, 2)
            assert balanced(counts)


@pytest.mark.parametrize("bad", ["1\r\nPUB im.x 1\r\na", "1\nx", ">", "*", "1.2", "1 2", "1\x00", "1" * 1_000_000, ""])
async def test_t26_nothing_of_a_bad_id_reaches_the_server(server: NatsServer, bad: str) -> None:
    async with running_bus(settings(server.url)) as bus:
        inbox = Inbox()
        bus.subscribe("*.*.*.*", inbox)
        bus.subscribe("*.*.*", inbox)
        bus.subscribe("*.*", inbox)
        handler = Inbox()
        if bad != "1.2":  # two good names; our own subjects are made from one
            with pytest.raises(ValueError, match="subject"):
                bus.publish(f"im.access.{bad}.downstream", b"")
            if bad != "*":
                with pytest.raises(ValueError, match="subject"):
                    bus.subscribe(f"im.user.{bad}.event", handler)
        if bad:
            with pytest.raises(ValueError, match="queue"):
                bus.subscribe(SUBJECT, handler, queue=f"group {bad}")
        assert bus.publish(SUBJECT, b"good")
        await inbox.wait(1)
        with trio.fail_after(PATIENCE):
            await bus.drain()
        assert inbox.items == [(SUBJECT, b"good")]
        assert bus.statistics().connections == 1


async def test_more_than_handlers_can_take_is_dropped_and_counted(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    async with running_bus(settings(server.url)) as sender, running_bus(settings(server.url), max_messages=50) as bus:
        bus.subscribe(SUBJECT, inbox)
        with trio.fail_after(PATIENCE):
            await bus.drain()
            bus.publish("im.x", b"")
            await bus.drain()
        for i in range(500):
            assert sender.publish(SUBJECT, b"%d" % i)
        patience = time.monotonic() + PATIENCE
        while bus.statistics().received + bus.statistics().overrun < 500:  # this thread is busy: no handler runs
            assert time.monotonic() < patience
            time.sleep(0.01)  # noqa: ASYNC251
        assert await inbox.wait(50) == [b"%d" % i for i in range(50)]
        assert bus.statistics().overrun == 450
        assert balanced(bus.statistics())
        await until(lambda: "bus_overrun" in [record.getMessage() for record in caplog.records])
        assert sender.publish(SUBJECT, b"again")
        assert (await inbox.wait(51))[-1] == b"again"


async def test_it_says_no_while_it_does_not_run_and_may_run_again(server: NatsServer) -> None:
    inbox = Inbox()
    async with AsyncioThread() as thread:
        bus = NatsBus(settings(server.url), thread)
        bus.subscribe(SUBJECT, inbox)
        assert not bus.publish(SUBJECT, b"no")
        for i in range(3):
            async with trio.open_nursery() as nursery:
                await nursery.start(bus.run)
                with pytest.raises(RuntimeError, match="already"):
                    await bus.run()
                assert bus.publish(SUBJECT, b"%d" % i)
                await inbox.wait(i + 1)
                nursery.cancel_scope.cancel()
            assert not bus.healthy
            assert not bus.publish(SUBJECT, b"no")
            with trio.fail_after(PATIENCE):
                await bus.drain()
        assert bus.statistics().held_bytes == 0
    with pytest.RaisesGroup(AsyncioThreadClosed):
        await bus.run()


async def test_nothing_is_left_after_many_losses(server: NatsServer) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with running_bus(settings(server.url)) as bus:
        for i in range(50):
            bus.subscribe(f"im.user.{i}.event", Inbox())
        before = held()
        for i in range(5):
            await server.kill()
            await until(lambda: not bus.healthy)
            await server.start()
            await until(lambda: bus.healthy)
            assert bus.statistics().connections == i + 2
        await until(lambda: held() <= before)


async def test_t36_back_again_payloads_wait_for_those_who_are_to_hear_them(server: NatsServer) -> None:
    """NATS forgets what reaches it before its subscriber has come back too."""
    inbox = Inbox()
    async with running_bus(settings(server.url, reconnect_cap=2.0)) as bus, running_bus(settings(server.url)) as other:
        other.subscribe(SUBJECT, inbox)
        await server.kill()
        await until(lambda: not bus.healthy and not other.healthy)
        assert bus.publish(SUBJECT, b"kept")
        await server.start()
        with trio.fail_after(PATIENCE):
            await bus.wait_healthy()
        await trio.sleep(0.2)
        assert bus.statistics().confirmed == 0
        assert await inbox.wait(1) == [b"kept"]
