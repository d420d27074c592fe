"""The promises of Bus as tests. Whoever implements Bus derives from BusContract."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
import trio

from gateway.core.ports import Bus

PATIENCE = 10.0


class Inbox:
    """A handler that keeps what it is given and lets a test wait for it."""

    def __init__(self) -> None:
        self.items: list[tuple[str, bytes]] = []
        self._changed = trio.Event()

    def __call__(self, subject: str, payload: bytes) -> None:
        self.items.append((subject, payload))
        self._changed.set()
        self._changed = trio.Event()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.items]

    async def wait(self, count: int) -> list[bytes]:
        """The payloads, once there are at least `count`."""
        with trio.fail_after(PATIENCE):
            while len(self.items) < count:
                await self._changed.wait()
        return self.payloads


class BusContract:
    """Needs fixtures `bus` (running) and `small_bus` (running, refuses long before 10 MB wait)."""

    @pytest.fixture
    async def bus(self) -> Bus:
        raise NotImplementedError

    @pytest.fixture
    async def small_bus(self) -> Bus:
        raise NotImplementedError

    @pytest.fixture
    def subject(self) -> str:
        """A name of its own, since a server may be shared by tests."""
        return f"im.test-{uuid.uuid4().hex}"

    async def settle(self, bus: Bus) -> None:
        """Everything published so far has reached its subscribers, and subscriptions made so far are in force."""
        seen = Inbox()
        subject = f"im.settle-{uuid.uuid4().hex}"
        subscription = bus.subscribe(subject, seen)
        with trio.fail_after(PATIENCE):
            while not seen.items:
                bus.publish(subject, b"")
                await bus.drain()
                with trio.move_on_after(0.05):
                    await seen.wait(1)
        subscription.close()

    async def test_healthy(self, bus: Bus) -> None:
        assert bus.healthy

    async def test_a_subscriber_gets_subject_and_payload(self, bus: Bus, subject: str) -> None:
        inbox = Inbox()
        bus.subscribe(subject, inbox)
        await self.settle(bus)
        assert bus.publish(subject, b"\x00\xff hello")
        await inbox.wait(1)
        assert inbox.items == [(subject, b"\x00\xff hello")]

    async def test_an_empty_payload_travels(self, bus: Bus, subject: str) -> None:
        inbox = Inbox()
        bus.subscribe(subject, inbox)
        await self.settle(bus)
        assert bus.publish(subject, b"")
        assert await inbox.wait(1) == [b""]

    async def test_order_of_one_publisher_on_one_subject(self, bus: Bus, subject: str) -> None:
        inbox = Inbox()
        bus.subscribe(subject, inbox)
        await self.settle(bus)
        for i in range(2_000):
            assert bus.publish(subject, b"%d" % i)
            if i % 100 == 0:
                await trio.lowlevel.checkpoint()
        assert await inbox.wait(2_000) == [b"%d" % i for i in range(2_000)]

    async def test_every_plain_subscriber_gets_every_payload(self, bus: Bus, subject: str) -> None:
        inboxes = [Inbox() for _ in range(3)]
        for inbox in inboxes:
            bus.subscribe(subject, inbox)
        await self.settle(bus)
        for i in range(20):
            assert bus.publish(subject, b"%d" % i)
        for inbox in inboxes:
            assert await inbox.wait(20) == [b"%d" % i for i in range(20)]

    async def test_one_member_of_each_queue_group_gets_it(self, bus: Bus, subject: str) -> None:
        first, second, other, plain = Inbox(), Inbox(), Inbox(), Inbox()
        bus.subscribe(subject, first, queue="group-a")
        bus.subscribe(subject, second, queue="group-a")
        bus.subscribe(subject, other, queue="group-b")
        bus.subscribe(subject, plain)
        await self.settle(bus)
        sent = [b"%03d" % i for i in range(200)]
        for payload in sent:
            assert bus.publish(subject, payload)
        assert await other.wait(200) == sent
        assert await plain.wait(200) == sent
        await self.settle(bus)
        assert sorted(first.payloads + second.payloads) == sent
        assert first.payloads
        assert second.payloads

    async def test_a_member_that_leaves_its_group_gets_nothing_more(self, bus: Bus, subject: str) -> None:
        stays, leaves = Inbox(), Inbox()
        bus.subscribe(subject, stays, queue="group")
        subscription = bus.subscribe(subject, leaves, queue="group")
        await self.settle(bus)
        subscription.close()
        await self.settle(bus)
        for i in range(20):
            assert bus.publish(subject, b"%d" % i)
        assert await stays.wait(20) == [b"%d" % i for i in range(20)]
        assert leaves.items == []

    async def test_a_star_stands_for_exactly_one_name(self, bus: Bus, subject: str) -> None:
        inbox = Inbox()
        bus.subscribe(f"{subject}.*.event", inbox)
        await self.settle(bus)
        for name in ("event", "1.2.event", "1", "1.event.x", "1.downstream"):
            assert bus.publish(f"{subject}.{name}", b"no")
        assert bus.publish(f"{subject}.17.event", b"yes")
        assert bus.publish(f"{subject}.18.event", b"yes")
        await inbox.wait(2)
        await self.settle(bus)
        assert inbox.items == [(f"{subject}.17.event", b"yes"), (f"{subject}.18.event", b"yes")]

    async def test_nothing_after_close(self, bus: Bus, subject: str) -> None:
        inbox, witness = Inbox(), Inbox()
        subscription = bus.subscribe(subject, inbox)
        bus.subscribe(subject, witness)
        await self.settle(bus)
        assert bus.publish(subject, b"on its way")
        subscription.close()
        subscription.close()
        assert bus.publish(subject, b"late")
        await witness.wait(2)
        await self.settle(bus)
        assert inbox.items == []

    async def test_a_handler_may_close_its_own_subscription(self, bus: Bus, subject: str) -> None:
        inbox, witness = Inbox(), Inbox()

        def once(name: str, payload: bytes) -> None:
            inbox(name, payload)
            subscription.close()

        subscription = bus.subscribe(subject, once)
        bus.subscribe(subject, witness)
        await self.settle(bus)
        for i in range(3):
            assert bus.publish(subject, b"%d" % i)
        await witness.wait(3)
        assert inbox.payloads == [b"0"]

    async def test_what_nobody_subscribes_to_is_forgotten(self, bus: Bus, subject: str) -> None:
        assert bus.publish(subject, b"lost")
        await self.settle(bus)
        inbox = Inbox()
        bus.subscribe(subject, inbox)
        await self.settle(bus)
        assert bus.publish(subject, b"seen")
        assert await inbox.wait(1) == [b"seen"]

    async def test_a_handler_never_runs_inside_publish(self, bus: Bus, subject: str) -> None:
        depth = 0
        inbox = Inbox()

        def handler(name: str, payload: bytes) -> None:
            nonlocal depth
            assert depth == 0
            inbox(name, payload)
            depth += 1
            if payload < b"5":
                bus.publish(subject, b"%d" % (int(payload) + 1))
            depth -= 1

        bus.subscribe(subject, handler)
        await self.settle(bus)
        depth = 1
        assert bus.publish(subject, b"0")
        assert inbox.items == []
        depth = 0
        assert await inbox.wait(6) == [b"%d" % i for i in range(6)]

    async def test_what_a_handler_raises_is_contained(
        self, bus: Bus, subject: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        inbox = Inbox()

        def broken(name: str, payload: bytes) -> None:
            raise KeyError("a bug")

        bus.subscribe(subject, broken)
        bus.subscribe(subject, inbox)
        await self.settle(bus)
        for i in range(50):
            assert bus.publish(subject, b"%d" % i)
        assert await inbox.wait(50) == [b"%d" % i for i in range(50)]
        assert bus.healthy
        lines = [record for record in caplog.records if "a bug" in (record.exc_text or str(record.exc_info))]
        assert 1 <= len(lines) <= 5

    async def test_publish_says_no_when_full_and_queues_nothing(self, small_bus: Bus, subject: str) -> None:
        inbox = Inbox()
        small_bus.subscribe(subject, inbox)
        await self.settle(small_bus)
        accepted = 0
        for _ in range(10_000):
            if not small_bus.publish(subject, b"%06d" % accepted + b"x" * 1_000):
                break
            accepted += 1
        assert 0 < accepted < 10_000
        await inbox.wait(accepted)
        await self.settle(small_bus)
        assert [int(payload[:6]) for payload in inbox.payloads] == list(range(accepted))
        assert small_bus.publish(subject, b"again")
        assert (await inbox.wait(accepted + 1))[-1] == b"again"

    async def test_drain_returns_when_all_is_handed_on(self, bus: Bus, subject: str) -> None:
        inbox = Inbox()
        bus.subscribe(subject, inbox)
        await self.settle(bus)
        for i in range(1_000):
            assert bus.publish(subject, b"%d" % i)
        with trio.fail_after(PATIENCE):
            await bus.drain()
            await bus.drain()
        assert len(await inbox.wait(1_000)) == 1_000

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            ".",
            "im.",
            ".im",
            "im..x",
            "im.a b",
            "im.>",
            "im.*",
            "im.a\r\nPUB x",
            "im.\x00",
            "im.é",
            "im." + "a" * 65,
        ],
    )
    async def test_publish_refuses_what_is_no_subject(self, bus: Bus, bad: str) -> None:
        with pytest.raises(ValueError, match="subject"):
            bus.publish(bad, b"")

    @pytest.mark.parametrize("bad", ["", "im..x", "im.>", "im.a*", "im.a\r\nSUB x", "im.\x00", "im." + "a" * 65])
    async def test_subscribe_refuses_what_is_no_subject(self, bus: Bus, bad: str) -> None:
        with pytest.raises(ValueError, match="subject"):
            bus.subscribe(bad, lambda subject, payload: None)

    @pytest.mark.parametrize("bad", ["a b", "*", ">", "a\r\n"])
    async def test_subscribe_refuses_what_is_no_queue_group(self, bus: Bus, subject: str, bad: str) -> None:
        with pytest.raises(ValueError, match="queue"):
            bus.subscribe(subject, lambda name, payload: None, queue=bad)

    async def test_publish_refuses_a_payload_over_the_maximum(self, bus: Bus, subject: str) -> None:
        with pytest.raises(ValueError, match="bytes"):
            bus.publish(subject, bytes(32 * 1024 * 1024))
        assert bus.healthy

    async def test_many_subscriptions_come_and_go(self, bus: Bus, subject: str) -> None:
        def closer(inbox: Inbox) -> Callable[[], None]:
            return bus.subscribe(subject, inbox).close

        inboxes = [Inbox() for _ in range(200)]
        closers = [closer(inbox) for inbox in inboxes]
        await self.settle(bus)
        assert bus.publish(subject, b"1")
        for inbox in inboxes:
            await inbox.wait(1)
        for close in closers:
            close()
        last = Inbox()
        bus.subscribe(subject, last)
        await self.settle(bus)
        assert bus.publish(subject, b"2")
        await last.wait(1)
        assert all(inbox.payloads == [b"1"] for inbox in inboxes)
