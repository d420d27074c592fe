"""The promises of DurableBus as tests. Whoever implements it derives from DurableBusContract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from gateway.core.ports import Confirmation, DurableBus, StreamItem

PATIENCE = 20.0
GROUP = "logic-group"
CONFIRMED, REPEATED, REFUSED = Confirmation.CONFIRMED, Confirmation.REPEATED, Confirmation.REFUSED


class Words:
    """What a stream said of each key, and how often."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Confirmation]] = []
        self._changed = trio.Event()

    def of(self, key: str) -> Callable[[Confirmation], None]:
        def done(became: Confirmation) -> None:
            self.told.append((key, became))
            self._changed.set()
            self._changed = trio.Event()

        return done

    async def wait(self, count: int) -> list[Confirmation]:
        """The words, once there are so many."""
        with trio.fail_after(PATIENCE):
            while len(self.told) < count:
                await self._changed.wait()
        return [became for _, became in self.told]


class Taker:
    """A handler that keeps what it is given; it settles each at once if it is to."""

    def __init__(self, settle: bool = True) -> None:
        self.settle = settle
        self.items: list[StreamItem] = []
        self._changed = trio.Event()

    def __call__(self, item: StreamItem) -> None:
        self.items.append(item)
        if self.settle:
            item.settle()
        self._changed.set()
        self._changed = trio.Event()

    @property
    def payloads(self) -> list[bytes]:
        return [item.payload for item in self.items]

    async def wait(self, count: int) -> list[bytes]:
        """The payloads, once there are so many."""
        with trio.fail_after(PATIENCE):
            while len(self.items) < count:
                await self._changed.wait()
        return self.payloads


class DurableBusContract:
    """Needs fixtures `bus` (running, its stream empty), `subject` (of its stream) and `small_bus` (the same, whose
    stream is full with 10 messages); and `unsettled`, how many items one taker may hold there."""

    unsettled: int
    small = 10

    @pytest.fixture
    async def bus(self) -> DurableBus:
        raise NotImplementedError

    @pytest.fixture
    async def small_bus(self) -> DurableBus:
        raise NotImplementedError

    @pytest.fixture
    def subject(self) -> str:
        raise NotImplementedError

    async def keep(self, bus: DurableBus, subject: str, count: int, first: int = 0) -> None:
        """Have so many payloads, b"0" and on, confirmed under keys of their own."""
        words = Words()
        for i in range(first, first + count):
            assert bus.publish_durable(subject, b"%d" % i, f"1.m{i}", words.of(str(i)))
        assert await words.wait(count) == [CONFIRMED] * count

    async def nothing_more(self, bus: DurableBus, subject: str, taker: Taker) -> None:
        """What is in the stream by now has been handed on."""
        before = len(taker.items)
        words = Words()
        assert bus.publish_durable(subject, b"last", f"last.{before}", words.of("last"))
        assert (await taker.wait(before + 1))[before:] == [b"last"]

    async def test_confirmed_while_nobody_takes_and_taken_later(self, bus: DurableBus, subject: str) -> None:
        await self.keep(bus, subject, 20)
        taker = Taker()
        bus.consume(subject, taker, group=GROUP)
        assert await taker.wait(20) == [b"%d" % i for i in range(20)]
        assert {item.attempt for item in taker.items} == {1}
        await self.nothing_more(bus, subject, taker)

    async def test_order_of_one_publisher(self, bus: DurableBus, subject: str) -> None:
        taker, words = Taker(), Words()
        bus.consume(subject, taker, group=GROUP)
        for i in range(1_500):
            assert bus.publish_durable(subject, b"%d" % i, f"1.m{i}", words.of(str(i)))
            if i % 100 == 0:
                await trio.lowlevel.checkpoint()
        assert await taker.wait(1_500) == [b"%d" % i for i in range(1_500)]
        await words.wait(1_500)
        assert words.told == [(str(i), CONFIRMED) for i in range(1_500)]

    async def test_of_several_under_one_key_the_first_is_kept(self, bus: DurableBus, subject: str) -> None:
        words, taker = Words(), Taker()
        for i, key in enumerate(["1.a", "1.a", "2.a", "1.b", "1.a"]):
            assert bus.publish_durable(subject, b"%d" % i, key, words.of(key))
        assert await words.wait(5) == [CONFIRMED, REPEATED, CONFIRMED, CONFIRMED, REPEATED]
        bus.consume(subject, taker, group=GROUP)
        assert await taker.wait(3) == [b"0", b"2", b"3"]
        assert bus.publish_durable(subject, b"5", "1.a", words.of("1.a"))  # settled, and known still
        assert (await words.wait(6))[-1] is REPEATED
        await self.nothing_more(bus, subject, taker)

    async def test_the_word_never_comes_inside_publish_durable(self, bus: DurableBus, subject: str) -> None:
        inside = True
        words = Words()

        def done(became: Confirmation) -> None:
            assert not inside
            words.of("a")(became)

        assert bus.publish_durable(subject, b"a", "1.a", done)
        assert bus.publish_durable(subject, b"b", "1.a", done)
        inside = False
        assert await words.wait(2) == [CONFIRMED, REPEATED]

    async def test_takers_of_a_group_share(self, bus: DurableBus, subject: str) -> None:
        takers = [Taker(), Taker()]
        for taker in takers:
            bus.consume(subject, taker, group=GROUP)
        await self.keep(bus, subject, 1_000)
        with trio.fail_after(PATIENCE):
            while sum(len(taker.items) for taker in takers) < 1_000:
                await trio.sleep(0.01)
        assert sorted(int(text) for taker in takers for text in taker.payloads) == list(range(1_000))
        assert all(taker.items for taker in takers)

    async def test_what_a_taker_leaves_unsettled_comes_to_another(self, bus: DurableBus, subject: str) -> None:
        await self.keep(bus, subject, 6)
        dead, other = Taker(settle=False), Taker()
        consumption = bus.consume(subject, dead, group=GROUP)
        await dead.wait(6)
        for item in dead.items[:2]:
            item.settle()
        consumption.abandon()
        bus.consume(subject, other, group=GROUP)
        assert sorted(await other.wait(4)) == [b"2", b"3", b"4", b"5"]
        assert all(item.attempt > 1 for item in other.items)
        dead.items[0].put_back()  # said too late
        await self.nothing_more(bus, subject, other)

    async def test_after_close_what_was_taken_can_be_settled(self, bus: DurableBus, subject: str) -> None:
        await self.keep(bus, subject, 3)
        first, second = Taker(settle=False), Taker()
        consumption = bus.consume(subject, first, group=GROUP)
        await first.wait(3)
        consumption.close()
        consumption.close()
        bus.consume(subject, second, group=GROUP)
        for item in first.items:
            item.settle()
        await self.keep(bus, subject, 3, first=3)
        assert await second.wait(3) == [b"3", b"4", b"5"]
        assert len(first.items) == 3

    async def test_what_is_put_back_comes_again(self, bus: DurableBus, subject: str) -> None:
        await self.keep(bus, subject, 1)
        seen: list[int] = []
        done = trio.Event()

        def handler(item: StreamItem) -> None:
            seen.append(item.attempt)
            if len(seen) < 3:
                item.put_back(0.05 * len(seen))
            else:
                item.settle()
                done.set()

        bus.consume(subject, handler, group=GROUP)
        with trio.fail_after(PATIENCE):
            await done.wait()
        assert seen == [1, 2, 3]

    async def test_a_handler_that_raises_gets_it_again(
        self, bus: DurableBus, subject: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        await self.keep(bus, subject, 2)
        taker = Taker()
        seen: list[bytes] = []

        def handler(item: StreamItem) -> None:
            seen.append(item.payload)
            if item.payload == b"0" and item.attempt < 3:
                raise KeyError("a bug")
            taker(item)

        bus.consume(subject, handler, group=GROUP)
        assert sorted(await taker.wait(2)) == [b"0", b"1"]
        assert sorted(seen) == [b"0", b"0", b"0", b"1"]
        assert any("a bug" in str(record.exc_info) for record in caplog.records)

    async def test_a_full_stream_refuses_and_takes_again_when_there_is_room(
        self, small_bus: DurableBus, subject: str
    ) -> None:
        await self.keep(small_bus, subject, self.small)
        words = Words()
        for i in range(3):
            assert small_bus.publish_durable(subject, b"too many", f"2.m{i}", words.of(str(i)))
        assert await words.wait(3) == [REFUSED] * 3
        taker = Taker(settle=False)
        small_bus.consume(subject, taker, group=GROUP)
        await taker.wait(self.small)
        assert small_bus.publish_durable(subject, b"still full", "2.m0", words.of("0"))
        assert (await words.wait(4))[-1] is REFUSED
        for item in taker.items:
            item.settle()
        with trio.fail_after(PATIENCE):
            while words.told[-1][1] is REFUSED:  # the settling is on its way
                assert small_bus.publish_durable(subject, b"room", "2.m0", words.of("0"))
                await words.wait(len(words.told) + 1)
        assert words.told[-1][1] is CONFIRMED
        assert (await taker.wait(self.small + 1))[-1] == b"room"

    async def test_a_taker_holds_no_more_than_it_may(self, bus: DurableBus, subject: str) -> None:
        count = self.unsettled + 50
        await self.keep(bus, subject, count)
        taker = Taker(settle=False)
        bus.consume(subject, taker, group=GROUP)
        await taker.wait(self.unsettled)
        await bus.drain()
        await trio.sleep(0.1)
        assert len(taker.items) == self.unsettled
        taker.settle = True
        for item in taker.items[:]:
            item.settle()
        assert await taker.wait(count) == [b"%d" % i for i in range(count)]

    async def test_drain_waits_for_the_streams_word(self, bus: DurableBus, subject: str) -> None:
        words = Words()
        for i in range(300):
            assert bus.publish_durable(subject, b"x", f"1.m{i}", words.of(str(i)))
        with trio.fail_after(PATIENCE):
            await bus.drain()
        assert [became for _, became in words.told] == [CONFIRMED] * 300

    @pytest.mark.parametrize("bad", ["", ".", "a b", "a\r\nNats-Msg-Id: b", "*", "a\0", "é", "x" * 2_000])
    async def test_a_key_that_is_no_sequence_of_names_is_refused(self, bus: DurableBus, subject: str, bad: str) -> None:
        with pytest.raises(ValueError, match="subject"):
            bus.publish_durable(subject, b"", bad, Words().of("bad"))

    async def test_a_payload_over_the_maximum_is_refused(self, bus: DurableBus, subject: str) -> None:
        with pytest.raises(ValueError, match="bytes"):
            bus.publish_durable(subject, bytes(32 * 1024 * 1024), "1.a", Words().of("bad"))
        assert bus.healthy

    @pytest.mark.parametrize("bad", ["", "a b", "*", ">"])
    async def test_a_group_that_is_no_name_is_refused(self, bus: DurableBus, subject: str, bad: str) -> None:
        with pytest.raises(ValueError, match=r"group|subject"):
            bus.consume(subject, Taker(), group=bad)
